"""What somebody sees who waits for a run: a bar in 80 columns, and the word that kernels compile."""

import io
import json
import os
import re
import sys
import warnings

import numba
import numpy as np
import pytest

from fastbp import Sequential, TwoLayerNet
from fastbp.cli import main
from fastbp.layers import Affine, IdentityWithLoss
from fastbp.optimizers import SGD
from fastbp.sklearn import MLPClassifier
from fastbp.training import screen
from fastbp.training.screen import told_of_compiling
from tests.subprocesses import ROOT

CELLS = [
    """
import numpy as np
from fastbp import TwoLayerNet
x, t = np.random.default_rng(0).random((400, 4)), np.arange(400) % 3
history = TwoLayerNet(4, 3, 3, seed=0).fit(x, t, epochs=3, validation_data=(x, t))
""",
    "history.plot()",
]


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


class OutStream(io.StringIO):
    """The stream of a notebook."""

    __module__ = "ipykernel.iostream"


@pytest.fixture(params=[Terminal, OutStream])
def on_screen(request, monkeypatch):
    """Makes stderr a stream whose lines can be drawn again; pytest sets its own before each test."""

    def make():
        stream = request.param()
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    monkeypatch.setenv("COLUMNS", "200")
    return make


def lines(stream):
    return [line for line in re.split(r"[\r\n]+", stream.getvalue()) if line.strip()]


def bars(stream):
    """What the bar showed: kernels that nobody compiled before have lines of their own."""
    return [line for line in lines(stream) if "%|" in line]


def data(samples=400):
    rng = np.random.default_rng(0)
    return rng.random((samples, 4)), rng.integers(0, 3, samples)


def fitted(**settings):
    x, t = data()
    return TwoLayerNet(4, 3, 3, seed=0).fit(x, t, **{"epochs": 3, "seed": 0} | settings)


def test_the_bar_fits_80_columns_and_shows_the_validation(on_screen):
    live = on_screen()
    history = fitted(epochs=1000, validation_data=data())
    shown = [line for line in bars(live) if "epoch" in line]
    assert max(map(len, shown)) <= 79
    last = list(history)[-1]
    numbers = "loss {loss:.4f} {accuracy:.4f}, val {val_loss:.4f} {val_accuracy:.4f}".format(**last)
    assert re.match(r"epoch 1000/1000 100%\|[█#]+\| ", shown[-1])
    assert shown[-1].endswith(f", {numbers}")
    assert min(line.count("|") for line in shown) == 2


def test_without_validation_the_bar_shows_what_there_is(on_screen):
    live = on_screen()
    history = fitted(epochs=2)
    assert bars(live)[-1].endswith(f", loss {history['loss'][-1]:.4f} {history['accuracy'][-1]:.4f}")


def test_large_losses_are_short(on_screen):
    live = on_screen()
    x, t = data()[0], np.full((400, 1), 1e6)
    network = Sequential([Affine(np.ones((4, 1)), np.zeros(1))], IdentityWithLoss())
    network.fit(x, t, optimizer=SGD(1e-9), validation_data=(x, t))
    assert re.search(r", loss [\d.]+e\+\d\d, val [\d.]+e\+\d\d$", bars(live)[-1])
    assert len(bars(live)[-1]) <= 79


def test_a_narrow_terminal_is_not_overrun(on_screen, monkeypatch):
    live = on_screen()
    monkeypatch.setenv("COLUMNS", "50")
    fitted(validation_data=data())
    assert max(map(len, bars(live))) <= 49


def test_elsewhere_there_are_lines_if_they_are_wanted(capsys):
    fitted()
    assert capsys.readouterr().err == ""
    fitted(verbose=True, validation_data=data())
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert len(shown) == 3
    assert re.fullmatch(r"epoch 3: loss [\d.]+, accuracy [\d.]+, val_loss [\d.]+, val_accuracy [\d.]+", shown[-1])


def test_no_bar_where_it_is_not_wanted(on_screen):
    live = on_screen()
    fitted(verbose=False)
    assert live.getvalue() == ""


def compile_one():
    numba.njit(lambda x: x + 1)(1.0)


def test_a_run_says_that_kernels_compile_and_how_far_it_is(on_screen):
    live = on_screen()
    with told_of_compiling(None):
        compile_one()
        with told_of_compiling(True):
            compile_one()
    began, *_, ended = lines(live)
    assert began == "compiling kernels, once: 0 done, 0 s"
    assert "compiling kernels, once: 1 done, " in live.getvalue()
    assert re.fullmatch(r"2 kernels compiled in \d+\.\d s; later runs load them", ended)
    assert live.getvalue().count("later runs") == 1


def test_a_line_that_counts_is_gone_once_the_kernel_is_there(on_screen):
    live = on_screen()
    with told_of_compiling(None):
        compile_one()
        assert live.getvalue().endswith("\r" + " " * 78 + "\r")


def test_a_run_that_compiles_nothing_says_nothing(on_screen):
    live = on_screen()
    with told_of_compiling(True):
        pass
    compile_one()
    with told_of_compiling(False):
        compile_one()
    assert live.getvalue() == ""


def test_in_a_pipe_it_is_said_where_progress_is_wanted(capsys):
    with told_of_compiling(None):
        compile_one()
    assert capsys.readouterr().err == ""
    with told_of_compiling(True):
        compile_one()
        compile_one()
    began, ended = capsys.readouterr().err.splitlines()
    assert began == "compiling kernels, once"
    assert ended.startswith("2 kernels compiled in ")


def test_without_a_cache_it_is_not_once(on_screen, monkeypatch):
    live = on_screen()
    monkeypatch.setattr(screen, "_is_kept", lambda: False)
    with told_of_compiling(None):
        compile_one()
    assert "once" not in live.getvalue()
    assert re.fullmatch(r"1 kernel compiled in \d+\.\d s", lines(live)[-1])


def test_fit_the_command_and_an_estimator_tell_unless_it_is_not_wanted(on_screen, monkeypatch):
    on_screen()
    made = screen._Compiling
    asked = []
    monkeypatch.setattr(screen, "_Compiling", lambda: asked.append(True) or made())
    fitted(verbose=False)
    MLPClassifier(max_iter=20, tol=1).fit(*data())
    assert asked == []
    fitted()
    assert main(["info"]) == 0
    MLPClassifier(max_iter=20, tol=1, verbose=True).fit(*data())
    assert asked == [True] * 3


def test_a_notebook_shows_the_bar_and_the_curves(tmp_path, monkeypatch):
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
    (tmp_path / "kernels" / "here").mkdir(parents=True)
    (tmp_path / "kernels" / "here" / "kernel.json").write_text(json.dumps(spec | {"display_name": "here"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own
        client.NotebookClient(notebook, timeout=100, kernel_name="here").execute()
    trained, drawn = (cell.outputs for cell in notebook.cells)
    shown = "".join(output.text for output in trained if output.output_type == "stream")
    assert re.search(r"epoch 3/3 100%\|█+\| .*, loss [\d.]+ [\d.]+, val [\d.]+ [\d.]+", shown)
    assert drawn[-1].data["image/png"].startswith("iVBOR")
