"""Checkpoints of `fit`: everything from which a run goes on to bitwise the same parameters, in one whole file."""

from __future__ import annotations

import math
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastbp import saving
from fastbp.history import History
from fastbp.layers import Dropout
from fastbp.validation import Array, whole_number

if TYPE_CHECKING:
    from fastbp.fitting import Best, Run
    from fastbp.network import Sequential

FilePath = str | os.PathLike[str]


class Checkpoints:
    """Writes the file of a run at the times that the user chose, and reads it."""

    def __init__(
        self, network: Sequential, run: Run, best: Best, path: FilePath | None, every: int | timedelta
    ) -> None:
        self._network, self._run, self._best, self._path = network, run, best, path
        self._epochs, self._seconds = _interval(every)
        self._written_at = time.monotonic()

    def between_steps(self) -> None:
        """Write the file if it is time; after an epoch's last step `after_epoch` has its turn first."""
        if self._is_time() and self._run.step < self._run.steps:
            self._run.write()
            self._write()

    def after_epoch(self, is_last: bool) -> None:
        """Write the file if it is time, or after so many epochs, or the last."""
        if is_last or self._run.epochs % self._epochs == 0 or self._is_time():
            self._write()

    def resume(self, path: FilePath) -> None:
        """Go on from where the run in the file was; errors as those of `read`."""
        read(path, self._network, self._run, self._best)

    def _is_time(self) -> bool:
        return time.monotonic() - self._written_at >= self._seconds

    def _write(self) -> None:
        if self._path is not None:
            write(self._path, self._network, self._run, self._best)
        self._written_at = time.monotonic()


def _interval(every: int | timedelta) -> tuple[float, float]:
    """After how many epochs, and after how many seconds a checkpoint is due; one of them is inf."""
    if not isinstance(every, timedelta):
        remedy = "give the number of epochs from one checkpoint to the next, or a datetime.timedelta"
        return whole_number("every", every, 1, remedy), math.inf
    if every <= timedelta():
        raise ValueError(f"every: expected a time longer than 0, got {every}; give one such as timedelta(minutes=10)")
    return math.inf, every.total_seconds()


def write(path: FilePath, network: Sequential, run: Run, best: Best) -> None:
    """Write what there is between two steps, or after an epoch."""
    optimizer = run.optimizer
    arrays = {f"parameter {key}": value for key, value in network.params.items()}
    arrays |= {f"best {key}": value for key, value in best.params.items()}
    arrays |= saving.optimizer_state(optimizer)
    arrays |= {"losses": run.losses[: run.step], "hits": run.hits[: run.step], "steps": network.history.steps}
    meta = {
        "checkpoint": {
            "run": _description(network, run),
            "epochs": run.epochs,
            "step": run.step,
            "seconds": run.seconds,
            "iter": optimizer.iter,
            "generator": run.before,
            "dropout": [layer.step for layer in _dropouts(network)],
            "history": network.history.to_dict() | {"steps": []},  # as an array beside it: there may be millions
            "best": best.value,
            "waited": best.since,
        }
    }
    saving.write(path, arrays, meta)


def read(path: FilePath, network: Sequential, run: Run, best: Best) -> None:
    """Put everything back where it was.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, not a checkpoint, or one of another run. Nothing is changed then.
    """
    arrays, meta = saving.read(path)
    if "checkpoint" not in meta:
        raise ValueError(f"{os.fspath(path)}: expected a checkpoint of fit, got another file; pass what fit wrote")
    content = meta["checkpoint"]
    for name, value in _description(network, run).items():
        if content["run"].get(name) != value:
            raise ValueError(
                f"{os.fspath(path)}: expected a checkpoint of this run, with {name} {value}, got one with "
                f"{content['run'].get(name)}; call fit as it was called then, or start without resume"
            )
    optimizer = run.optimizer
    for key, parameter in network.params.items():
        parameter[...] = arrays[f"parameter {key}"]
    saving.set_optimizer_state(optimizer, arrays, content["iter"])
    run.generator.bit_generator.state = content["generator"]
    for layer, step in zip(_dropouts(network), content["dropout"], strict=True):
        layer.step = step
    network.history = History.from_dict(content["history"])
    network.history.extend_steps(arrays["steps"])
    best.params, best.value, best.since = _beginning("best ", arrays), content["best"], content["waited"]
    run.epochs, run.step, run.seconds = content["epochs"], content["step"], content["seconds"]
    run.losses[: run.step], run.hits[: run.step] = arrays["losses"], arrays["hits"]


def _description(network: Sequential, run: Run) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    return {
        "parameters": {key: [str(value.dtype), *value.shape] for key, value in network.params.items()},
        "layers": [type(layer).__name__ for layer in network.layers.values()],
        "loss": type(network.last_layer).__name__,
        "optimizer": type(run.optimizer).__name__,
        "samples": run.samples,
        "batch_size": run.batch_size,
    }


def _beginning(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _dropouts(network: Sequential) -> list[Dropout]:
    return [layer for layer in network.layers.values() if isinstance(layer, Dropout)]
