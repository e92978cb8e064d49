"""The most memory that a process takes to train a network, from its start to its end."""

from .suite import IMPLEMENTATIONS, Recorded, in_a_process

TRAINING = """
import contextlib, resource, sys
from pathlib import Path
import numpy, fastbp
from fastbp.layers import Affine, ReLU, SoftmaxWithLoss
from fastbp.optimizers import Adam
rng = numpy.random.default_rng(0)
x, t = rng.random(({samples}, 784), numpy.float32), rng.integers(0, 10, {samples})
W1, W2 = rng.standard_normal((784, 256), numpy.float32) / 28, rng.standard_normal((256, 10), numpy.float32) / 16
layers = [Affine(W1, numpy.zeros(256, numpy.float32)), ReLU(), Affine(W2, numpy.zeros(10, numpy.float32))]
network = fastbp.Sequential(layers, SoftmaxWithLoss())
with fastbp.use_reference() if {reference} else contextlib.nullcontext():
    network.fit(x, t, epochs=1, batch_size=200, optimizer=Adam(0.001), verbose=False)
status = Path("/proc/self/status")
if status.exists():  # the system's own figure would have in it what the process was forked from
    print(1024 * int(status.read_text().partition("VmHWM:")[2].split()[0]))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


class Peak(Recorded):
    """Peak resident memory of `fit` of a 784-256-10 network in float32, the samples and all imports with it."""

    params = ((10_000, 40_000), IMPLEMENTATIONS)
    param_names = ("samples", "impl")
    unit = "bytes"
    type = "peakmemory"

    def setup(self, samples, impl):
        code = TRAINING.format(samples=samples, reference=impl == "numpy")
        in_a_process(code)  # what compiles is not counted
        self.values = [int(in_a_process(code)) for _ in range(3)]

    def track_peak(self, *_):
        return self.result()
