"""Cold starts: the import, and the first call and the first training with an empty and a warm cache."""

import functools

from .processes import empty_and_warm, seconds
from .suite import Recorded

PREPARATION = """
import numpy, fastbp
from fastbp import functions
rng = numpy.random.default_rng(0)
network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
"""
# The code before the clock starts, and the code that it times.
CALLS = {
    "import": ("", "import fastbp"),
    "ReLU": (PREPARATION, "functions.relu(numpy.zeros(1000))"),
    "fit": (PREPARATION, "network.fit(rng.random((200, 784)), rng.integers(0, 10, 200), verbose=False)"),
}
WAITS = ("import", "ReLU, empty cache", "ReLU, warm cache", "fit, empty cache", "fit, warm cache")
RUNS = 5


def setup_cache():
    found = {("import",): [waiting("import") for _ in range(RUNS)]}
    for call in ("ReLU", "fit"):
        empty, warm = empty_and_warm(functools.partial(waiting, call), RUNS)
        found |= {(f"{call}, empty cache",): [empty], (f"{call}, warm cache",): warm}
    return found


def waiting(call, **environment):
    """Seconds that one new process waits for a call."""
    preparation, timed = CALLS[call]
    (found,) = seconds(timed, preparation=preparation, **environment)
    return found


class Waiting(Recorded):
    """Seconds of the import, or of the first call after it, in a new process."""

    params = (WAITS,)
    param_names = ("first",)
    version = "2"
    unit = "seconds"
    type = "time"

    def setup(self, found, first):
        self.values = self.samples(found, first)

    def track_time(self, *_):
        return self.result()
