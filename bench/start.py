"""How soon training starts: `python -m bench.start`.

A new process trains a network on scikit-learn's digits with a warm cache of compiled kernels. The table shows the time
from start to end and its parts, and the first step of a second architecture, which compiles nothing. All figures are
medians of five runs.
"""

import statistics

from .processes import seconds, seconds_of_all
from .table import Table, duration, print_machine

RUNS = 5

COMPILED, AGAIN, UNTIMED = "  compiled code, from the cache", "second fit", "preparation"

# The steps of a process by their rows. The row COMPILED shows what the first fit takes longer than the second.
STEPS = {
    "  import of fastbp (after NumPy and Numba)": "import fastbp; from fastbp.data import load_digits",
    "  scikit-learn and its digits": "digits = load_digits()",
    COMPILED: """
network = fastbp.TwoLayerNet(64, 50, 10, seed=0)
network.fit(digits.x_train[:100], digits.t_train[:100], seed=0)""",
    AGAIN: "network.fit(digits.x_train[:100], digits.t_train[:100], seed=0)",
    "  30 epochs": """
network.fit(digits.x_train, digits.t_train, epochs=30, optimizer=fastbp.optimizers.SGD(0.3), seed=0)""",
    UNTIMED: """
from fastbp.layers import Affine, Dropout, ReLU, Sigmoid, SoftmaxWithLoss, Tanh
assert network.accuracy(digits.x_test, digits.t_test) > 0.93
rng = numpy.random.default_rng(0)
affine = lambda D, M: Affine(rng.standard_normal((D, M)) / D ** 0.5, numpy.zeros(M))
layers = [affine(64, 80), Tanh(), Dropout(0.2, seed=1), affine(80, 40), ReLU(), affine(40, 20), Sigmoid()]
second = fastbp.Sequential([*layers, affine(20, 10)], SoftmaxWithLoss())""",
    "first step of a second architecture": """
second.fit(digits.x_train[:100], digits.t_train[:100], optimizer="adam", seed=0)""",
}
WHOLE = """
import fastbp
from fastbp.data import load_digits
digits = load_digits()
network = fastbp.TwoLayerNet(64, 50, 10, seed=0)
network.fit(digits.x_train, digits.t_train, epochs=30, optimizer=fastbp.optimizers.SGD(0.3), seed=0)
"""


def whole() -> float:
    """Seconds of a process that trains on the digits."""
    return seconds_of_all(WHOLE)


def steps() -> dict[str, float]:
    """Seconds of each step of one process."""
    return dict(zip(STEPS, seconds(*STEPS.values(), preparation="import numba, numpy"), strict=True))


def main() -> None:
    """Print the table."""
    print_machine("warm cache")
    steps()  # fills the cache
    total = statistics.median(whole() for _ in range(RUNS))
    runs = [steps() for _ in range(RUNS)]
    found = {name: statistics.median(run[name] for run in runs) for name in STEPS}
    found[COMPILED] -= found.pop(AGAIN)
    found.pop(UNTIMED)
    table = Table(("median",))
    table.row("from python to a network trained on the digits for 30 epochs", duration(total), notes=["of this"])
    for name, value in found.items():
        table.row(name, duration(value))


if __name__ == "__main__":
    main()
