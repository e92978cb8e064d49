"""The most memory that a process takes to train a network, from its start to its end.

`python -m bench.memory` prints what `fit` itself takes: for a large network, beside the least that it needs (one copy
of the parameters, the optimizer's state and what belongs to one batch), and for a memory-mapped file.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np

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
if status.exists():
    # Not the files that are mapped, libraries above all: how much of them is in memory is the system's affair, and
    # differs by 48 MB from time to time. The figure of resource would have in it what the process was forked from.
    found = dict(line.split(":") for line in status.read_text().splitlines())
    print(1024 * (int(found["VmHWM"].split()[0]) - int(found["RssFile"].split()[0])))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


class Peak(Recorded):
    """Peak memory of a process with `fit` of a 784-256-10 network in float32, the samples and imports with it."""

    params = ((10_000, 40_000), IMPLEMENTATIONS)
    param_names = ("samples", "impl")
    version = "2"
    unit = "bytes"
    type = "peakmemory"

    def setup(self, samples, impl):
        code = TRAINING.format(samples=samples, reference=impl == "numpy")
        in_a_process(code)  # what compiles is not counted
        self.values = [int(in_a_process(code)) for _ in range(3)]

    def track_peak(self, *_):
        return self.result()


# Prints by how many bytes the most memory that the process had is above what it had before `fit`. A small fit goes
# first: the threads and the compiled code are not counted.
GROWTH = """
from pathlib import Path
import numpy, fastbp
from fastbp.layers import Affine, ReLU, SoftmaxWithLoss

def figure(name):
    return 1024 * int(Path("/proc/self/status").read_text().partition(f"{{name}}:")[2].split()[0])

def network(*widths):
    layers = []
    for D, M in zip(widths, widths[1:]):
        W = rng.standard_normal((D, M), numpy.float32)
        W *= D ** -0.5
        layers += [Affine(W, numpy.zeros(M, numpy.float32)), ReLU()]
    return fastbp.Sequential(layers[:-1], SoftmaxWithLoss())

rng = numpy.random.default_rng(0)
network(4, 3).fit(rng.random((20, 4), numpy.float32), rng.integers(0, 3, 20), optimizer="adam")
x, t = rng.random(({samples}, {widths[0]}), numpy.float32), rng.integers(0, 10, {samples})
trained = network(*{widths})
before = figure("VmRSS")
trained.fit(x, t, batch_size={batch_size}, optimizer="adam")
print(figure("VmHWM") - before)
"""

# Fits a file of bytes with as much memory of its own as `limit` says beside what the process has, and prints how much
# more of it there was than before.
MAPPED = """
import resource
from pathlib import Path
import numpy, fastbp

def data_size():
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0])

x = numpy.load({path!r}, mmap_mode="r")
network = fastbp.TwoLayerNet(x.shape[1], 50, 10, dtype="float32", seed=0)
t = numpy.zeros(len(x), numpy.int64)
network.fit(x[:200], t[:200], optimizer="adam")
before = data_size()
resource.setrlimit(resource.RLIMIT_DATA, (before + {limit}, resource.RLIM_INFINITY))
network.fit(x, t, optimizer="adam", scale=1 / 255)
print(data_size() - before)
"""


def growth(widths: tuple[int, ...], samples: int, batch_size: int) -> int:
    """The bytes that `fit` of a float32 network by Adam takes at most beside network and data."""
    return int(in_a_process(GROWTH.format(widths=widths, samples=samples, batch_size=batch_size)))


def least(widths: tuple[int, ...], batch_size: int) -> int:
    """The bytes of the parameters, of Adam's two kinds of state, and of a batch: x, and an output and delta a layer."""
    parameters = sum((D + 1) * M for D, M in itertools.pairwise(widths))
    return 4 * (3 * parameters + batch_size * (widths[0] + 2 * sum(widths[1:])))


def write_images(path: Path, samples: int, features: int) -> None:
    """A file of so many images of bytes, all 0 and most of it a hole, that `np.load` maps."""
    np.lib.format.open_memmap(path, "w+", np.uint8, (samples, features)).flush()


def growth_of_mapped(path: Path, limit: int) -> int:
    """The bytes of its own that a process has more after a fit of a mapped file; it may not have more than `limit`."""
    return int(in_a_process(MAPPED.format(path=str(path), limit=limit)))


def main() -> None:
    """Print both."""
    for widths, samples, batch_size in (((784, 50, 10), 20_000, 100), ((4000, 4000, 1000, 10), 5_000, 100)):
        took, needed = growth(widths, samples, batch_size), least(widths, batch_size)
        print(
            f"{'-'.join(map(str, widths))}, batch {batch_size}, Adam, float32: fit takes {took / 1e6:.1f} MB, "
            f"parameters × (1 + slots) + batch is {needed / 1e6:.1f} MB, x is {samples * widths[0] * 4 / 1e6:.0f} MB"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        write_images(path, 2_000_000, 784)
        took = growth_of_mapped(path, 200_000_000)
        size = path.stat().st_size
    print(
        f"784-50-10 on a memory-mapped file of {size / 1e6:.0f} MB, with 200 MB of data more than before allowed "
        f"(RLIMIT_DATA): done, {took / 1e6:.1f} MB more afterwards"
    )


if __name__ == "__main__":
    main()
