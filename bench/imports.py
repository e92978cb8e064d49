"""What a new process waits for: the import, and the first call and first training from an empty and a warm cache."""

import tempfile

from .suite import Recorded, in_a_process

PREPARATION = """
import numpy, fastbp
from fastbp import functions
rng = numpy.random.default_rng(0)
network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
"""
# What comes before the clock starts, and what it times.
CALLS = {
    "import": ("", "import fastbp"),
    "ReLU": (PREPARATION, "functions.relu(numpy.zeros(1000))"),
    "fit": (PREPARATION, "network.fit(rng.random((200, 784)), rng.integers(0, 10, 200), verbose=False)"),
}
WAITS = ("import", "ReLU, empty cache", "ReLU, warm cache", "fit, empty cache", "fit, warm cache")
RUNS = 5


def setup_cache():
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        found["import",] = [seconds("import", cache) for _ in range(RUNS)]
        for call in ("ReLU", "fit"):
            found[f"{call}, empty cache",] = [seconds(call, cache)]  # once: it takes seconds, and fills the cache
            found[f"{call}, warm cache",] = [seconds(call, cache) for _ in range(RUNS)]
    return found


def seconds(call, cache):
    """Seconds that one process waits, with the cache of kernels in this folder."""
    preparation, timed = CALLS[call]
    code = f"import time\n{preparation}\nstart = time.perf_counter()\n{timed}\nprint(time.perf_counter() - start)"
    return float(in_a_process(code, FASTBP_CACHE=cache))


class Waiting(Recorded):
    """Seconds of the import, or of the first call after it, in a process of its own."""

    params = (WAITS,)
    param_names = ("first",)
    unit = "seconds"
    type = "time"

    def setup(self, found, first):
        self.values = self.samples(found, first)

    def track_time(self, *_):
        return self.result()
