"""The peak memory of a process that trains a network.

`python -m bench.memory` prints the memory that `fit` adds to it, beside the least that training needs: one copy of the
parameters, the state of the optimizer and one batch, with what each layer gives and its delta. The last row trains on a
mapped file.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np

import fastbp
from fastbp import layers

from .processes import run
from .suite import IMPLEMENTATIONS, Recorded
from .table import Table, print_machine

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
    # Mapped files, mostly libraries, do not count: the system decides how much of them is in memory, and this differs
    # by 48 MB between runs. The figure of `resource` would include the process that this one was forked from.
    found = dict(line.split(":") for line in status.read_text().splitlines())
    print(1024 * (int(found["VmHWM"].split()[0]) - int(found["RssFile"].split()[0])))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


class Peak(Recorded):
    """Peak memory of a process that fits a 784-256-10 network in float32, with its samples and imports."""

    params = ((10_000, 40_000), IMPLEMENTATIONS)
    param_names = ("samples", "impl")
    version = "2"
    unit = "bytes"
    type = "peakmemory"

    def setup(self, samples, impl):
        code = TRAINING.format(samples=samples, reference=impl == "numpy")
        run(code)  # compiles the kernels, whose memory does not count
        self.values = [int(run(code)) for _ in range(3)]

    def track_peak(self, *_):
        return self.result()


# Prints the peak memory of the process minus its memory before `fit`, in bytes. A small fit runs first, so that threads
# and compiled code do not count.
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

# The same for one of fastbp's networks of images.
GROWTH_ON_IMAGES = """
import warnings
from pathlib import Path
import numpy, fastbp

def figure(name):
    return 1024 * int(Path("/proc/self/status").read_text().partition(f"{{name}}:")[2].split()[0])

warnings.simplefilter("ignore")
rng = numpy.random.default_rng(0)
x, t = rng.random(({samples}, 1, 28, 28), numpy.float32), rng.integers(0, 10, {samples})
fastbp.{network}(dtype="float32", seed=0).fit(x[:4], t[:4], batch_size=2, optimizer="adam")
trained = fastbp.{network}(dtype="float32", seed=0)
before = figure("VmRSS")
trained.fit(x, t, batch_size={batch_size}, optimizer="adam")
print(figure("VmHWM") - before)
"""

# Fits a mapped file of bytes with at most `limit` bytes of new memory, and prints how many bytes of it remain in use.
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
    """The peak bytes of `fit` of a float32 network by Adam, without network and data."""
    return int(run(GROWTH.format(widths=widths, samples=samples, batch_size=batch_size)))


def least(widths: tuple[int, ...], batch_size: int) -> int:
    """The bytes of the parameters, of Adam's two states, and of a batch: x, and output and delta of each layer."""
    parameters = sum((D + 1) * M for D, M in itertools.pairwise(widths))
    return 4 * (3 * parameters + batch_size * (widths[0] + 2 * sum(widths[1:])))


def growth_on_images(network: str, samples: int, batch_size: int) -> int:
    """The peak bytes of `fit` of a float32 network of images by Adam, without network and data."""
    return int(run(GROWTH_ON_IMAGES.format(network=network, samples=samples, batch_size=batch_size)))


def least_on_images(network: str, batch_size: int) -> int:
    """The same as `least` for a network of images.

    ReLU and dropout change what comes to them in place. What a convolution gives to a max pooling is kept nowhere, nor
    is its delta: a byte for each window says which pixel is the largest.
    """
    trained = getattr(fastbp, network)(dtype="float32", seed=0)
    out = np.zeros((1, 1, 28, 28), np.float32)
    size = out.nbytes
    moving = [each for each in trained.layers.values() if not isinstance(each, layers.ReLU | layers.Dropout)]
    pooled = [one for one, after in itertools.pairwise(moving) if isinstance(after, layers.Pooling)]
    for layer in trained.layers.values():
        out = layer.forward(out)
        if layer in moving and layer not in pooled:
            size += 2 * out.nbytes
        if isinstance(layer, layers.Pooling):
            size += out.size
    parameters = sum(value.nbytes for value in trained.params.values())
    return 3 * parameters + batch_size * size


def write_images(path: Path, samples: int, features: int) -> None:
    """Write a file of images of zero bytes that `np.load` can map; it is sparse."""
    np.lib.format.open_memmap(path, "w+", np.uint8, (samples, features)).flush()


def growth_of_mapped(path: Path, limit: int) -> int:
    """The bytes that a process keeps after a fit of a mapped file, within `limit` bytes of new memory."""
    return int(run(MAPPED.format(path=str(path), limit=limit)))


def main() -> None:
    """Print the table."""
    print_machine("Adam, float32; MB", "least: parameters × (1 + slots) + batch")
    table = Table(("fit takes", "least", "data"))
    for widths, samples, batch_size in (((784, 50, 10), 20_000, 100), ((4000, 4000, 1000, 10), 5_000, 100)):
        sizes = growth(widths, samples, batch_size), least(widths, batch_size), samples * widths[0] * 4
        table.row(f"{'-'.join(map(str, widths))}, batch {batch_size}", *(size / 1e6 for size in sizes))
    for network in ("SimpleConvNet", "LeNet", "DeepConvNet"):
        sizes = growth_on_images(network, 2_000, 100), least_on_images(network, 100), 2_000 * 784 * 4
        table.row(f"{network}, batch 100", *(size / 1e6 for size in sizes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        write_images(path, 2_000_000, 784)
        sizes = growth_of_mapped(path, 200_000_000), least((784, 50, 10), 100), path.stat().st_size
    table.row(
        "784-50-10, memory-mapped bytes, kept after fit", *(size / 1e6 for size in sizes),
        notes=["200 MB of new memory allowed (RLIMIT_DATA)"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
