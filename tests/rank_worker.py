"""What the ranks of tests/test_ranks.py do: `mpiexec -n R python -m tests.rank_worker WORK ARGUMENT ...`.

The first rank prints what every rank ended with.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fastbp import Sequential, StopTraining, TwoLayerNet, num_threads
from fastbp.engine import steps
from fastbp.layers import Affine, BatchNormalization, Dropout, ReLU, SoftmaxWithLoss, Tanh
from fastbp.optimizers import SGD, Adam
from fastbp.training import run
from tests.rank_cases import digest, fit

COMM = MPI.COMM_WORLD
LAST = COMM.size - 1


def cases(threads, *numbers):
    """Fit cases."""
    with num_threads(int(threads)):
        whole = {number: digest(*fit(int(number), comm=COMM)) for number in numbers}
        shard = COMM.rank, COMM.size
        shards = {f"shards {number}": digest(*fit(int(number), shard, comm=COMM)) for number in numbers}
        tell(whole | shards)


def tell(own):
    found = COMM.gather(own)
    if COMM.rank == 0:
        print(json.dumps({name: [each[name] for each in found] for name in own}))


def data(samples=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, 20)).astype(np.float32), rng.integers(0, 4, samples)


def network(seed=0, hidden=30, dtype=np.float32):
    return TwoLayerNet(20, hidden, 4, seed=seed, dtype=dtype)


def trained(net=None, x=None, t=None, comm=COMM, **settings):
    """What a fit ends with: every bit, and its error."""
    net, optimizer = net or network(), settings.pop("optimizer", None) or Adam(0.01)
    given = data()
    try:
        net.fit(
            given[0] if x is None else x, given[1] if t is None else t, comm=comm,
            **{"seed": 0, "batch_size": 32, "optimizer": optimizer, "epochs": 3} | settings,
        )  # fmt: skip
    except BaseException as error:
        return digest(net, optimizer), f"{type(error).__name__}: {error}"
    return digest(net, optimizer), ""


def swapped(array):
    """The same samples, of which the first and the last one change places."""
    return array[[-1, *range(1, len(array) - 1), 0]]


class Own(ReLU):
    """A layer of somebody else."""


def refusals():
    """What ranks disagree on, and what only the last one does wrong."""
    is_last = COMM.rank == LAST
    x, t = data(250 if is_last else 300)
    ends = [layer for layer in network().layers.values() if isinstance(layer, Affine)]
    own = {
        "samples of x": trained(x=x, t=t),
        "x": trained(x=data()[0].astype(np.float64) if is_last else None),
        "t": trained(t=np.eye(4)[data()[1]] if is_last else None),
        "seed": trained(seed=int(is_last)),
        "batch_size": trained(batch_size=30 + is_last),
        "architecture": trained(network(hidden=30 + is_last)),
        "parameters": trained(network(seed=int(is_last))),
        "dtype": trained(network(dtype=np.float64 if is_last else np.float32)),
        "layers": trained(Sequential([*ends[:1], Tanh() if is_last else ReLU(), *ends[1:]], SoftmaxWithLoss())),
        "own layer": trained(Sequential([*ends[:1], Own(), *ends[1:]], SoftmaxWithLoss())),
        "optimizer": trained(optimizer=SGD(0.1 + is_last)),
        "epochs": trained(epochs=2 + is_last),
        "on_epoch": trained(on_epoch=print if is_last else None),
        "checkpoint": trained(checkpoint="nowhere" if is_last else None),
        "sample_weight": trained(sample_weight=np.ones(300) if is_last else None),
        "values of x": trained(x=swapped(data()[0]) if is_last else None),
        "values of t": trained(t=swapped(data()[1]) if is_last else None),
        "values of sample_weight": trained(sample_weight=1 + np.arange(300) % (2 + is_last)),
        "validation_data": trained(validation_data=data(seed=1 + is_last)),
        "no rank": trained(comm=MPI.COMM_NULL),
        "wrong": trained(t=data()[1][:9] if is_last else None),
        "no communicator": trained(comm="world"),
    }
    tell(own)


def promises():
    """What fit promises, kept by ranks together; `alone` is the same by one process."""
    together = {name: promise(COMM) for name, promise in PROMISES.items()}
    tell({**together, **{f"{name}, alone": promise(None) for name, promise in PROMISES.items()}})


def _stops(comm):
    def on_steps(progress):
        if progress.epoch == 2 and progress.step == 4 and (comm is None or comm.rank == LAST):
            raise StopTraining

    return each_step(on_steps, comm)


def _changes(comm):
    optimizer = Adam(0.01)

    def on_epoch(progress):
        optimizer.lr /= 2
        progress.network.params["b1"] += 1

    return trained(on_epoch=on_epoch, optimizer=optimizer, comm=comm)


def _waits(comm):
    return trained(validation_data=data(seed=1), patience=2, epochs=20, comm=comm)


def _meets_nan(comm):
    x, t = data()
    x[77] = np.nan
    return trained(x=x, t=t, comm=comm)


def _shows(comm):
    """The lines of progress as well, which are those of the first rank."""
    lines = io.StringIO()
    with contextlib.redirect_stderr(lines):
        result = trained(verbose=True, comm=comm)
    return *result, lines.getvalue().count("epoch") + (3 if comm is not None and comm.rank else 0)


def _calls(comm):
    """The places of callbacks as well."""
    places = []
    result = each_step(lambda progress: places.append((progress.epoch, progress.step)), comm)
    return *result, places


def _maps(comm):
    """Every rank opens the same file."""
    folder = tempfile.mkdtemp() if comm is None or comm.rank == 0 else None
    path = Path(folder if comm is None else comm.bcast(folder)) / "x.npy"
    if folder is not None:
        np.save(path, data()[0])
    if comm is not None:
        comm.Barrier()
    result = trained(x=np.load(path, mmap_mode="r"), comm=comm)
    if comm is not None:
        comm.Barrier()
    if folder is not None:
        shutil.rmtree(folder)
    return result


def _draws(comm):
    return trained(seed=np.random.default_rng(5), comm=comm)


def each_step(on_steps, comm, **settings):
    """`trained` with a callback after each step."""
    stretch, run.STRETCH = run.STRETCH, 0.0
    try:
        return trained(on_steps=on_steps, comm=comm, **settings)
    finally:
        run.STRETCH = stretch


PROMISES = {
    "memory-mapped file": _maps,
    "stop": _stops,
    "changes of a callback": _changes,
    "patience": _waits,
    "NaN": _meets_nan,
    "progress": _shows,
    "generator": _draws,
    "callbacks": _calls,
}


def failures():
    """Errors of the last rank: in a callback, in the midst of a step, at Ctrl-C; and what one rank changes alone."""
    is_last = COMM.rank == LAST

    def fails(progress):
        if is_last and progress.epoch == 2:
            raise ZeroDivisionError("of one rank")

    def changes(progress):
        progress.network.params["b1"] += is_last

    own = {
        "callback": trained(on_epoch=fails),
        "changed alone": trained(on_epoch=changes),
        "step": in_the_midst(is_last),
        "Ctrl-C in a callback": trained(on_epoch=lambda _: os.kill(os.getpid(), signal.SIGINT) if is_last else None),
    }
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    if is_last:
        timer.start()
    own["Ctrl-C"] = trained(epochs=10**6)
    timer.join() if is_last else None
    own["afterwards"] = trained()
    tell(own)


def long(path, goes_on, epochs, killed=-1, seconds=0):
    """A longer fit with checkpoints. One of the ranks is killed so many seconds after the first one."""
    rng = np.random.default_rng(3)
    x, t = data(500)
    affine = [
        Affine((rng.standard_normal(shape) / 5).astype(np.float32), np.zeros(shape[1], np.float32))
        for shape in ((20, 60), (60, 40), (40, 4))
    ]
    normal = BatchNormalization(np.ones(60, np.float32), np.zeros(60, np.float32))
    layers = [affine[0], normal, ReLU(), Dropout(0.2, seed=1), affine[1], ReLU(), affine[2]]
    comm = COMM if COMM.size > 1 else None

    def kill():
        while not Path(path).exists():
            time.sleep(0.001)
        time.sleep(float(seconds))
        os.kill(os.getpid(), signal.SIGKILL)

    if COMM.rank == int(killed):
        threading.Thread(target=kill, daemon=True).start()
    tell({"long": trained(
        Sequential(layers, SoftmaxWithLoss()), x, t, comm, epochs=int(epochs), patience=10**6, record_steps=True,
        checkpoint=path, every=timedelta(milliseconds=40), resume=path if int(goes_on) else None,
    )})  # fmt: skip


def in_the_midst(is_last):
    """`trained`, where the last rank has no memory in a step."""
    results, calls = steps.results_of_step, []

    def fails(*arguments):
        calls.append(None)
        if len(calls) == 15:
            raise MemoryError("no more")
        return results(*arguments)

    if is_last:
        steps.results_of_step = fails
    try:
        return trained()
    finally:
        steps.results_of_step = results


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
