"""How soon training starts: `python -m bench.start`.

From the start of `python` to a network that is trained on scikit-learn's digits, with a warm cache of compiled kernels,
and what of that is fastbp's; and the first step of a second architecture, which compiles nothing. Medians of some runs.
"""

from __future__ import annotations

import statistics
import time

from .suite import in_a_process

RUNS = 5

# Prints the seconds of fastbp's own import, of the import of scikit-learn, of what the first fit takes longer than the
# second, of 30 epochs, and of the first step of another architecture.
TRAINING = """
import time
import numba, numpy
times = [time.perf_counter()]
import fastbp
from fastbp.data import load_digits
from fastbp.layers import Affine, Dropout, ReLU, Sigmoid, SoftmaxWithLoss, Tanh
times.append(time.perf_counter())
digits = load_digits()
times.append(time.perf_counter())
network = fastbp.TwoLayerNet(64, 50, 10, seed=0)
network.fit(digits.x_train[:100], digits.t_train[:100], seed=0)
times.append(time.perf_counter())
network.fit(digits.x_train[:100], digits.t_train[:100], seed=0)
times.append(time.perf_counter())
network.fit(digits.x_train, digits.t_train, epochs=30, optimizer=fastbp.optimizers.SGD(0.3), seed=0)
times.append(time.perf_counter())
rng = numpy.random.default_rng(0)
affine = lambda D, M: Affine(rng.standard_normal((D, M)) / D ** 0.5, numpy.zeros(M))
layers = [affine(64, 80), Tanh(), Dropout(0.2, seed=1), affine(80, 40), ReLU(), affine(40, 20), Sigmoid()]
second = fastbp.Sequential([*layers, affine(20, 10)], SoftmaxWithLoss())
start = time.perf_counter()
second.fit(digits.x_train[:100], digits.t_train[:100], optimizer="adam", seed=0)
step = time.perf_counter() - start
assert network.accuracy(digits.x_test, digits.t_test) > 0.93
imported, loaded, first, again, trained = (b - a for a, b in zip(times, times[1:]))
print(imported, loaded, first - again, trained, step)
"""
# The same without what is only there to be timed.
WHOLE = """
import fastbp
from fastbp.data import load_digits
digits = load_digits()
network = fastbp.TwoLayerNet(64, 50, 10, seed=0)
network.fit(digits.x_train, digits.t_train, epochs=30, optimizer=fastbp.optimizers.SGD(0.3), seed=0)
"""


def whole() -> float:
    """Seconds of a process that trains on the digits."""
    start = time.perf_counter()
    in_a_process(WHOLE)
    return time.perf_counter() - start


def main() -> None:
    """Print the times."""
    in_a_process(TRAINING)  # fills the cache
    total = statistics.median(whole() for _ in range(RUNS))
    runs = [[float(text) for text in in_a_process(TRAINING).split()] for _ in range(RUNS)]
    imported, loaded, compiled, trained, step = (statistics.median(times) for times in zip(*runs, strict=True))
    print(f"from python to a network trained on the digits for 30 epochs, warm cache: {total:.2f} s; of this")
    print(f"  import of fastbp (after NumPy and Numba)  {imported:.2f} s")
    print(f"  compiled code, from the cache             {compiled:.2f} s")
    print(f"  scikit-learn and its digits               {loaded:.2f} s")
    print(f"  30 epochs                                 {trained:.2f} s")
    print(f"first step of a second architecture: {step * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
