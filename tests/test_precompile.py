"""`fastbp compile`: afterwards a program compiles nothing, in whatever process of the machine."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastbp import precompile
from fastbp.cli import main
from fastbp.runtime import cache as kernel_cache
from fastbp.runtime.jit import entry_kernel
from tests.subprocesses import ROOT, run_python
from tests.test_cache import COMPILATIONS

# The files of the cache that a process saves or loads.
RECORDED = """
from fastbp.runtime import cache
used, path_of = set(), cache._KernelCache._path
def recorded(*arguments):
    path = path_of(*arguments)
    used.add(str(path))
    return path
cache._KernelCache._path = recorded
"""

COMMAND = """
from fastbp.cli import main
assert main({arguments}) == 0
print(*sorted(used), sep="\\n")
"""


def compiled_ahead(cache, *options):
    """The first line that the command prints for a new cache. It finds there what the cache of the tests has for it.

    Other tests may compile at the same time, so what it finds need not fit together.
    """
    command = RECORDED + COMMAND.format(arguments=["compile", *options])
    for file in map(Path, run_python(command, timeout=1800).splitlines()[1:]):
        (cache / file.parent.name).mkdir(mode=0o700, exist_ok=True, parents=True)
        shutil.copyfile(file, cache / file.parent.name / file.name)
    return run_python(command, timeout=1800, FASTBP_CACHE=cache).splitlines()[0]


def uncompiled(code, cache):
    """Names of the functions that `code` compiles."""
    names = "{each.data['dispatcher'].py_func.__qualname__ for each in compiled}"
    printed = run_python(f"{COMPILATIONS}{code}\nprint('compiled', *sorted({names}))", FASTBP_CACHE=cache)
    return printed.splitlines()[-1].removeprefix("compiled").strip()


DENSE = """
import numpy as np
from fastbp import Sequential, num_threads
from fastbp.layers import Affine, ReLU, Sigmoid, SoftmaxWithLoss, Tanh
rng = np.random.default_rng(0)
x, t = rng.random((3000, 50), dtype="f4"), rng.integers(0, 10, 3000)
def affine(D, M):
    return Affine(rng.random((D, M), dtype="f4"), np.zeros(M, "f4"))
for layers in ([affine(50, 10)], [affine(50, 200), ReLU(), affine(200, 9), Tanh(), Sigmoid(), affine(9, 10)]):
    for optimizer in "sgd", "adam":
        with num_threads(2):
            network = Sequential(layers, SoftmaxWithLoss())
            network.fit(x, t, optimizer=optimizer, validation_data=(x, t), sample_weight=rng.random(3000), seed=0)
            network.fit((255 * x).astype("u1"), t, optimizer=optimizer, scale=1 / 255, seed=0)
            network.predict(x)
            network.predict(x[0])
            network.accuracy(x, t)
"""


def test_after_compile_a_dense_network_in_float32_compiles_nothing(tmp_path):
    said = compiled_ahead(tmp_path)
    assert re.fullmatch(r"\d+ kernels compiled in [\d.]+ s; \d+ in .*[0-9a-f]{16}, [\d.]+ MB", said)
    assert uncompiled(DENSE, tmp_path) == ""


EVERYTHING = """
import warnings
import numpy as np
from bench import cases
from fastbp import MultiLayerNetExtend, SimpleConvNet, kernels
from fastbp.ops.contract import OPTIMIZERS
from fastbp.sklearn import MLPClassifier, MLPRegressor
warnings.simplefilter("ignore")
for dtype in cases.DTYPES:
    for size in ((7, 5, 4), (3000, 20, 20)):
        for case in cases.KERNELS:
            getattr(kernels, case.kernel)(*case.arguments(cases.Draw(dtype, size)))
        for case in cases.LAYERS:
            draw = cases.Draw(dtype, size)
            layer = case.layer(draw)
            layer.forward(*case.inputs(draw))
            layer.backward(*case.dout(draw))
    for kind, record in OPTIMIZERS.items():
        if record.update is not None:
            filters = {"filter_num": 4, "filter_size": 3, "pad": 0, "stride": 1}
            network = SimpleConvNet((1, 8, 8), filters, 20, 3, dtype=dtype)
            x = np.random.default_rng(0).random((30, 1, 8, 8)).astype(dtype)
            network.fit(x, np.arange(30) % 3, optimizer=kind(), validation_data=(x, np.arange(30) % 3))
    network = MultiLayerNetExtend(64, [30, 20], 3, use_dropout=True, use_batchnorm=True, dtype=dtype)
    network.fit(x, np.arange(30) % 3, seed=0)
    network.gradient(x.reshape(30, 64), np.arange(30) % 3)
    MLPClassifier().fit(x.reshape(30, 64), np.arange(30) % 3).predict(x.reshape(30, 64))
    MLPRegressor(solver="lbfgs").fit(x.reshape(30, 64), np.arange(30) % 3).predict(x.reshape(30, 64))
"""


def test_after_compile_all_nothing_compiles(tmp_path):
    pytest.importorskip("sklearn")
    compiled_ahead(tmp_path, "--all")
    assert uncompiled(EVERYTHING, tmp_path) == ""


MEETING = """
import sys, time
from pathlib import Path
import fastbp.functions
Path(sys.argv[1], f"{sys.argv[2]}.ready").touch()
while len([*Path(sys.argv[1]).glob("*.ready")]) < 4:
    time.sleep(0.001)
"""

SIGMOID = """
from fastbp.functions import sigmoid
print(sigmoid([0.3, -2.0]).tobytes().hex())
"""


def test_four_processes_fill_an_empty_cache_at_once(tmp_path):
    cache = tmp_path / "cache"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", MEETING + SIGMOID, str(tmp_path), str(number)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "FASTBP_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len(set(said)) == 1
    (folder,) = cache.iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".bin"}
    assert uncompiled(SIGMOID, cache) == ""


def complaint(capsys):
    assert main(["compile"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ((None, "FASTBP_CACHE=off"), "got none (FASTBP_CACHE=off)"),
        ((Path("kept"), "read-only"), "got kept (read-only)"),
    ],
)
def test_a_cache_that_cannot_be_written_is_one_clear_line(found, says, monkeypatch, capsys):
    monkeypatch.setattr(kernel_cache, "_CACHE", found)
    assert complaint(capsys) == (
        f"fastbp: error: FASTBP_CACHE: expected a folder for compiled kernels that can be written, {says}; "
        "name another one\n"
    )


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def one_more(x):
        return x + 1

    monkeypatch.setattr(kernel_cache, "_replace", full)
    monkeypatch.setattr(kernel_cache, "_lost", [])
    monkeypatch.setattr(precompile, "COMMON", [precompile.Step("one", lambda: entry_kernel(one_more)(1.0))])
    assert "got [Errno 28] No space left on device for the first of 1; make room" in complaint(capsys)
