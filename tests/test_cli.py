"""The `fastbp` command as a person uses it."""

import email.message
import fcntl
import importlib.metadata
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import numpy as np
import pytest

from fastbp import layers
from fastbp.cli import main
from fastbp.commands import training
from fastbp.ops.contract import is_reference
from tests.pages import text_of
from tests.subprocesses import ROOT


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def accuracies(printed):
    return [float(value) for value in re.findall(r"test ([\d.]+)$", printed, re.MULTILINE)]


def test_train_on_digits_reaches_093(capsys):
    status, out, err = run(capsys, "train")
    assert (status, err) == (0, "")
    assert out.startswith(
        "digits: 1,438 images to train, 359 to test; network 64-50-10, float64, fastbp\n"
        "Affine1 64×50, Relu1, Affine2 50×10: 3,760 parameters; sgd, rate 0.3\n"
    )
    assert out.count("epoch") == 31
    assert accuracies(out)[-1] >= 0.93


FEW = "steps are few: the first weights are small, and the accuracy rises late; train for 30 epochs, as without"


def test_a_training_that_has_hardly_begun_says_so(capsys):
    assert run(capsys, "train", "--epochs", "2")[1].splitlines()[-1] == f"30 {FEW} --epochs"
    assert FEW not in run(capsys, "train", "--epochs", "10")[1]
    assert FEW not in run(capsys, "train", "--epochs", "2", "--batch-size", "10")[1]
    assert FEW not in run(capsys, "train", "--epochs", "30", "--lr", "1e-6")[1]
    assert FEW not in run(capsys, "train", "--epochs", "2", "--lr", "1e200")[1]


def test_train_on_the_reference_prints_the_same_numbers(capsys):
    compiled = run(capsys, "train", "--epochs", "3", "--seed", "5")[1]
    numpy = run(capsys, "train", "--epochs", "3", "--seed", "5", "--impl", "numpy")[1]
    assert compiled.splitlines()[1:5] == numpy.splitlines()[1:5]
    assert "numpy" in numpy.splitlines()[0]


def test_train_compared_with_numpy_ends_at_the_same_weights(capsys):
    _, out, _ = run(capsys, "train", "--epochs", "2", "--compare")
    found = re.search(r"NumPy took (\d+\.\d\d) s in training \d+ times, [\d.]+ times fastbp's .*weights (\S+)\n", out)
    assert float(found[1]) >= training.ENOUGH
    assert float(found[2]) < 1e-12


def test_training_on_numpy_is_compared_with_fastbp(capsys, monkeypatch):
    used = []
    fit = training._fit
    monkeypatch.setattr(training, "_fit", lambda *given, **more: (used.append(is_reference()), fit(*given, **more)))
    monkeypatch.setattr(training, "ENOUGH", 0.0)
    _, out, _ = run(capsys, "train", "--epochs", "2", "--impl", "numpy", "--compare")
    assert used == [True, False]
    found = re.search(r"NumPy took \d+\.\d\d s in training, [\d.]+ times fastbp's .*weights (\S+)\n", out)
    assert float(found[1]) < 1e-12


def test_ctrl_c_in_a_comparison_keeps_the_picture(capsys, monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    path = tmp_path / "curves.png"
    monkeypatch.setattr(training, "_compare", interrupt)
    status, out, err = run(capsys, "train", "--epochs", "2", "--compare", "--plot", str(path))
    assert (status, err) == (130, "fastbp: interrupted\n")
    assert f"learning curves saved to {path}" in out
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_train_in_float32(capsys):
    status, out, _ = run(capsys, "train", "--epochs", "2", "--dtype", "float32", "--batch-size", "32", "--lr", "0.2")
    assert status == 0
    assert "float32" in out


@pytest.mark.parametrize(("network", "least"), [("simple-conv", 0.9), ("deep-conv", 0.93)])
def test_train_a_convolutional_network_on_digits(network, least, capsys):
    status, out, err = run(capsys, "train", "--network", network)
    assert (status, err) == (0, "")
    assert out.startswith(f"digits: 1,438 images to train, 359 to test; network {network}, float32, fastbp\nConv1 ")
    assert "parameters; adam, rate 0.001\n" in out
    assert len(accuracies(out)) == 20
    assert accuracies(out)[-1] >= least


def test_train_a_convolutional_network_compared_with_numpy(capsys, tmp_path):
    options = "--network", "simple-conv", "--epochs", "2", "--dtype", "float64", "--plot", str(tmp_path / "curves.png")
    status, out, _ = run(capsys, "train", "--compare", *options)
    assert status == 0
    found = re.search(r"NumPy took \d+\.\d\d s in training.*, [\d.]+ times fastbp's .*weights (\S+)\n", out)
    assert float(found[1]) < 1e-12
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_train_le_net_on_mnist_files(capsys, mnist_folder):
    status, out, _ = run(
        capsys, "train", "--network", "lenet", "--data", "mnist", "--data-dir", str(mnist_folder), "--epochs", "1"
    )
    assert status == 0
    assert "Conv1 6×1×5×5, Relu1, Pool1, Conv2 16×6×5×5, Relu2, Pool2, Affine1 400×120, Relu3, " in out
    assert "61,706 parameters; adam, rate 0.001" in out
    assert accuracies(out)[0] > 0.8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--optimizer", "adam"], "adam, rate 0.001"),
        (["--optimizer", "momentum", "--lr", "0.05"], "momentum, rate 0.05"),
        (["--lr", "0.05"], "sgd, rate 0.05"),
    ],
)
def test_the_rate_is_the_given_one_or_the_optimizers_own(options, says, capsys):
    out = run(capsys, "train", "--epochs", "1", *options)[1]
    assert f"3,760 parameters; {says}\n" in out


def test_train_on_mnist_files(capsys, mnist_folder):
    status, out, _ = run(capsys, "train", "--data", "mnist", "--data-dir", str(mnist_folder), "--epochs", "1")
    assert status == 0
    assert "network 784-50-10" in out
    assert accuracies(out)[0] > 0.8


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_learning_curves_are_saved(capsys, tmp_path, suffix):
    path = tmp_path / f"curves.{suffix}"
    status, out, _ = run(capsys, "train", "--epochs", "2", "--plot", str(path))
    assert status == 0
    assert f"learning curves saved to {path}" in out
    assert path.read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_a_picture_that_cannot_be_written_is_refused_before_training(capsys, tmp_path):
    (tmp_path / "taken.png").mkdir()
    status, out, err = run(capsys, "train", "--plot", str(tmp_path / "taken.png"))
    assert (status, out) == (2, "")
    assert "--plot: expected a file that can be written" in err


def test_check_passes(capsys):
    status, out, _ = run(capsys, "check")
    assert status == 0
    assert "passed: largest difference" in out
    faster = re.search(r"([\d,]+) times faster", out)
    assert int(faster[1].replace(",", "")) > 100


def test_check_fails_on_a_wrong_gradient(capsys, monkeypatch):
    right = layers.ReLU.backward
    monkeypatch.setattr(layers.ReLU, "backward", lambda self, dout: 1.1 * right(self, dout))
    status, out, _ = run(capsys, "check")
    assert status == 1
    assert "FAILED" in out


def test_info_names_what_a_bug_report_needs(capsys):
    status, out, _ = run(capsys, "info")
    assert status == 0
    names = ["fastbp", "Python", "system", "numpy", "numba", "llvmlite", "extras", "CPU", "vectors", "threads"]
    assert [line.split()[0] for line in out.splitlines()][: len(names) + 2] == [*names, "MPI", "kernel"]
    assert np.__version__ in out


def test_info_names_the_addresses_of_the_metadata(capsys, monkeypatch):
    found = email.message.Message()
    found["Project-URL"] = "Repository, https://forge.example/fastbp"
    found["Project-URL"] = "Issues, https://forge.example/fastbp/issues"
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: found)
    lines = run(capsys, "info")[1].splitlines()
    assert lines[-2:] == [
        "repository    https://forge.example/fastbp",
        "issues        https://forge.example/fastbp/issues",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--data", "mnist", "--data-dir", "/nowhere"], "/nowhere: expected a folder"),
        (["train", "--data-dir", "/tmp"], "--data-dir: expected together with --data mnist"),
        (["train", "--network", "lenet"], "--network: expected one for images of 8×8 pixels, got lenet, which needs"),
        (["train", "--plot", "curves.xyz"], "--plot: expected a file ending in one of"),
        (["train", "--plot", "/nowhere/curves.png"], "--plot: expected a folder /nowhere"),
        (
            ["graph", "affine", "-o", "/nowhere/affine.svg"],
            "-o: expected a folder /nowhere, got none there; make it first",
        ),
        (
            ["graph", "affine", "-o", "affine.xyz"],
            "expected a file ending in .svg, .png, .html, .dot or .mmd, got affine",
        ),
        (["graph", "afine"], ", got 'afine'; did you mean affine?"),
    ],
)
def test_a_mistake_is_one_clear_line(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("fastbp: error: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "command"),
        (["fly"], "command: expected one of train, check, "),
        (["fly"], ", got 'fly'; choose one of these"),
        (["trian"], ", got 'trian'; did you mean train?"),
        (["--verbose", "trian", "--epochs", "1"], ", got 'trian'; did you mean train?"),
        (["train", "--epochs", "0"], "expected a whole number, at least 1, got '0'"),
        (["train", "--lr", "-1"], "expected a number greater than 0, got '-1'"),
        (["train", "--lr", "fast"], "expected a number greater than 0, got 'fast'"),
        (["train", "--seed", "-1"], "expected a whole number, at least 0, got '-1'"),
        (
            ["train", "--data", "cats"],
            "argument --data: expected one of digits, mnist, got 'cats'; choose one of these",
        ),
        (["train", "--network", "lenett"], "expected one of two-layer, simple-conv, deep-conv, lenet, got 'lenett'"),
        (["train", "--network", "lenett"], "; did you mean lenet?"),
        (["train", "--optimizer", "adan"], "got 'adan'; did you mean adam?"),
        (["train", "--dtype", "float16"], "argument --dtype: expected one of float32, float64, got 'float16'"),
    ],
)
def test_a_bad_option_is_one_clear_line(capsys, arguments, says):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_images_that_are_not_square_are_one_clear_line(capsys, tmp_path):
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])
        )
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5]))
    data = "--data", "mnist", "--data-dir", str(tmp_path)
    status, out, err = run(capsys, "train", "--network", "lenet", *data)
    assert (status, out) == (2, "")
    assert "expected square images for --network lenet, got images of 6 pixels; choose --network two-layer" in err


def test_a_truncated_file_is_one_clear_line(capsys, tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05\0")
    status, _, err = run(capsys, "train", "--data", "mnist", "--data-dir", str(tmp_path))
    assert status == 2
    assert "the file is truncated or damaged" in err


@pytest.mark.parametrize(
    ("missing", "package", "arguments"),
    [
        ("sklearn", '"scikit-learn>=1.9"', ["train"]),
        ("matplotlib", "matplotlib", ["train", "--plot", "a.png"]),
        ("pooch", "pooch", ["train", "--data", "mnist"]),
    ],
)
def test_a_missing_package_says_what_to_install(capsys, monkeypatch, missing, package, arguments):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith(f"fastbp: error: {missing}")
    assert err.endswith(f": expected to be installed, got nothing; install it with: pip install {package}\n")


def test_a_loss_that_is_lost_ends_the_training(capsys):
    status, out, err = run(capsys, "train", "--lr", "1e200", "--epochs", "5")
    assert status == 1
    assert out.count("\nepoch") == 1
    assert err.startswith(
        "fastbp: error: --lr: expected a rate at which the loss stays finite, got 1e+200 and a loss of"
    )
    assert err.endswith("in epoch 1; choose a smaller one\n")


# A test run in the background ignores Ctrl-C, and its children would inherit that.
HEED_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fastbp.cli import main
sys.exit(main())
"""


def start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment):
    """The command in a process of its own, as it is installed."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | environment
    command = [sys.executable, "-c", HEED_CTRL_C, *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=ROOT, env=variables, text=True)


def on_terminal(*arguments, interrupt_at=None):
    """What the command writes to a terminal, and its status; Ctrl-C once `interrupt_at` is on the screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, "-c", HEED_CTRL_C, *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True)
    limit = threading.Timer(120, process.kill)
    limit.start()
    os.close(theirs)
    screen = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        screen += chunk
        if interrupt_at and interrupt_at in screen:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
        if not chunk:
            break
    os.close(ours)
    limit.cancel()
    return screen.decode(), process.wait()


def test_on_a_terminal_there_is_a_progress_bar():
    screen, status = on_terminal("train", "--epochs", "3")
    assert status == 0
    assert "step/s" in screen
    assert "epoch 3/3" in screen


def test_on_a_terminal_compile_shows_how_far_it_is():
    screen, status = on_terminal("compile")
    assert status == 0
    assert "next=float32 optimizers" in screen
    assert re.search(r"\d+ kernels compiled in [\d.]+ s; \d+ in /", screen)


def test_ctrl_c_keeps_what_was_done(tmp_path):
    path = tmp_path / "curves.png"
    screen, status = on_terminal("train", "--epochs", "100000", "--plot", str(path), interrupt_at=b"epoch      3/")
    assert status == 130
    assert "fastbp: interrupted after" in screen
    assert "Traceback" not in screen
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_ctrl_c_in_a_pipe_ends_with_its_message():
    lines = []
    with start("train", "--epochs", "100000", stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch      3/"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert "images/s" in lines[-2]
    assert re.fullmatch(r"fastbp: interrupted after \d+ of 100000 epochs\n", lines[-1])


def test_a_reader_that_goes_away_ends_the_command_without_a_word():
    with start("train", "--epochs", "100000") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FASTBP_NUM_THREADS", "abc", "ValueError: FASTBP_NUM_THREADS: expected a whole number, at least 1, got 'abc'"),
        ("NUMBA_DISABLE_JIT", "1", "RuntimeError: NUMBA_DISABLE_JIT: expected unset or 0, got 1"),
    ],
)
def test_a_mistake_in_the_environment_ends_with_a_clear_error(variable, value, says):
    process = start("info", **{variable: value})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith(says)


def help_of(capsys, monkeypatch, *command):
    """What --help prints on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def commands(text):
    """The subcommands that the help lists."""
    return re.findall(r"^    (\w+) ", text, re.MULTILINE)


def test_the_help_is_a_screenful_with_examples(capsys, monkeypatch):
    lines = help_of(capsys, monkeypatch).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    examples = [line.split() for line in lines[lines.index("examples:") + 1 :]]
    assert len(examples) >= 3
    assert {words[0] for words in examples} == {"fastbp"}


def test_the_help_of_every_command_says_what_it_does_and_ends_with_an_example(capsys, monkeypatch):
    found = commands(help_of(capsys, monkeypatch))
    assert {"train", "check", "bench", "graph", "run", "compile", "export", "info"} <= set(found)
    for name in found:
        text = help_of(capsys, monkeypatch, name)
        assert max(map(len, text.splitlines())) <= 80, name
        example = re.search(rf"\nexample:\n  fastbp {name}\b(.*)\n$", text)
        assert example, name
        assert set(re.findall(r"(?<= )--?[\w-]+", example[1])) <= set(re.findall(r"(?<=[ \[])--?[\w-]+", text)), name


def test_the_guide_has_every_command(capsys, monkeypatch):
    rows = re.findall(r"^\| `(\w+)` \|", text_of("docs/command-line.md"), re.MULTILINE)
    assert sorted(rows) == sorted(commands(help_of(capsys, monkeypatch)))


def test_the_guide_says_how_far_the_training_on_digits_comes(capsys):
    found = accuracies(run(capsys, "train")[1])
    assert found[1] < 0.2
    assert found[5] > 0.8
    assert found[29] > 0.95


def test_python_m_fastbp_is_the_command():
    done = subprocess.run([sys.executable, "-m", "fastbp", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"fastbp \d+\.\d+\.\d+\n", done.stdout)
