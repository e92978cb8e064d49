"""The C file of `fastbp.export` against `predict`: `python -m bench.exported`, on one sample of 784-50-10.

The C file is compiled by gcc with several flags. All take their turns, and the table has the least of the times.
"""

import ctypes
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from fastbp import TwoLayerNet, export

from .table import Ratio, Table, duration, print_machine

ROUNDS, CALLS = 100, 500

FLAGS = "-O2", "-O3", "-O3 -march=native"
BAR = 2.0  # of the time of `predict`, where gcc makes vectors of loops

REPEAT = """
void repeat(const float *x, float *y, int count);
void repeat(const float *x, float *y, int count) { for (int i = 0; i < count; i++) predict(x, y); }
"""


def exported(network, flags, folder):
    """A function that calls the C file so many times."""
    source, library = folder / "network.c", folder / f"{network.params['W1'].dtype}{flags.replace(' ', '')}.so"
    export.to_c(network, source)
    source.write_text(source.read_text() + REPEAT)
    command = ["gcc", "-std=c99", *flags.split(), "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    subprocess.run(command, check=True)
    x, y = np.random.default_rng(0).random(784, np.float32), np.empty(10, np.float32)
    repeat = ctypes.CDLL(str(library)).repeat
    return lambda: repeat(*(array.ctypes.data_as(ctypes.c_void_p) for array in (x, y)), CALLS)


def predicting(network):
    """A function that predicts one sample as often."""
    x = np.random.default_rng(0).random((1, 784)).astype(network.params["W1"].dtype)
    return lambda: [network.predict(x) for _ in range(CALLS)]


def best(functions):
    """The least seconds of a call of each, in turns."""
    found = dict.fromkeys(functions, np.inf)
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            found[name] = min(found[name], (time.perf_counter() - start) / CALLS)
    return found


def main() -> None:
    """Print the table."""
    print_machine("one sample of 784-50-10, one thread")
    table = Table(("time",))
    for dtype in ("float32", "float64"):
        network = TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            functions = {"predict": predicting(network)}
            functions |= {flags: exported(network, flags, Path(folder)) for flags in FLAGS}
            found = best(functions)
        predict = found.pop("predict")
        table.row(f"{dtype}, predict", duration(predict))
        for flags, seconds in found.items():
            bar = BAR if "-O3" in flags else None
            table.row(f"  gcc {flags}", duration(seconds), notes=[Ratio(seconds / predict, "of predict", bar)])


if __name__ == "__main__":
    main()
