"""Checkpoints of `fit`: everything from which a run goes on to bitwise the same parameters, in one whole file."""

from __future__ import annotations

import math
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fastbp import files
from fastbp.contents import optimizer_state, set_optimizer_state
from fastbp.files import FilePath
from fastbp.layers import Dropout
from fastbp.optimizers import Optimizer
from fastbp.training.best import Best
from fastbp.training.history import History
from fastbp.training.protocol import Network
from fastbp.training.run import Run
from fastbp.training.samples import check_writeable
from fastbp.validation import Array, whole_number

# The arrays of a checkpoint, and what else is in it.
Reached = tuple[dict[str, Array], dict[str, Any]]


class Checkpoints:
    """Writes the file of a run at the times that the user chose, and reads it."""

    def __init__(self, network: Network, run: Run, best: Best, path: FilePath | None, every: int | timedelta) -> None:
        self._network, self._run, self._best, self._path = network, run, best, path
        self._epochs, self._seconds = _interval(every)
        if path is not None:
            _check_path(path)
        self._given = _settings(network, run.optimizer)
        self._written_at = time.monotonic()

    def between_steps(self) -> None:
        """Write the file if it is time; after an epoch's last step `after_epoch` has its turn first."""
        if self._is_time() and self._run.step < self._run.steps:
            self._write()

    def after_epoch(self, is_last: bool) -> None:
        """Write the file if it is time, or after so many epochs, or the last."""
        if is_last or self._run.epochs % self._epochs == 0 or self._is_time():
            self._write()

    def read(self, path: FilePath) -> Reached:
        """What `resume` takes from a file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, not a checkpoint, or one of another run.
        """
        arrays, meta = files.read(path)
        if "checkpoint" not in meta:
            raise ValueError(f"{os.fspath(path)}: expected a checkpoint of fit, got another file; pass what fit wrote")
        content = meta["checkpoint"]
        if "given" not in content:  # it was written before there were any of these in it
            seeds = [layer.seed for layer in _dropouts(self._network)]
            content |= {"given": self._given, "settings": self._given, "seeds": seeds}
        _check(os.fspath(path), content, self._network, self._run, self._given)
        return arrays, content

    def resume(self, reached: Reached) -> History:
        """Put everything back where it was; returns the history."""
        arrays, content = reached
        _put(arrays, content, self._network, self._run, self._best)
        _set(self._network, self._run.optimizer, _changed(content, self._given))
        history = History.from_dict(content["history"])
        history.extend_steps(arrays["steps"])
        return history

    def _is_time(self) -> bool:
        return time.monotonic() - self._written_at >= self._seconds

    def _write(self) -> None:
        if self._path is not None:
            with self._run.paused():
                write(self._path, self._network, self._run, self._best, self._given)
        self._written_at = time.monotonic()


def _interval(every: int | timedelta) -> tuple[float, float]:
    """After how many epochs, and after how many seconds a checkpoint is due; one of them is inf."""
    if not isinstance(every, timedelta):
        remedy = "give the number of epochs from one checkpoint to the next, or a datetime.timedelta"
        return whole_number("every", every, 1, remedy), math.inf
    if every <= timedelta():
        raise ValueError(f"every: expected a time longer than 0, got {every}; give one such as timedelta(minutes=10)")
    return math.inf, every.total_seconds()


def _check_path(path: object) -> None:
    """Raise an error unless a file can be written there."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint: expected a str or Path, got {type(path).__name__}; name a file")
    file = Path(os.path.realpath(path))
    if file.exists() and not file.is_file():
        raise ValueError(
            f"checkpoint: expected a file or a new name, got a folder or a device, {file}; choose another path"
        )
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(
            error.errno,
            f"checkpoint: expected a folder that can be written to, got {file.parent} ({error.strerror}); "
            f"make it, or choose another path",
        ) from None


def write(path: FilePath, network: Network, run: Run, best: Best, given: dict[str, Any]) -> None:
    """Write what there is between two steps, or after an epoch; `given` are the settings at the beginning."""
    optimizer = run.optimizer
    arrays = {f"parameter {key}": value for key, value in network.params.items()}
    arrays |= {f"best {key}": value for key, value in best.params.items()}
    arrays |= optimizer_state(optimizer)
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
            "seeds": [layer.seed for layer in _dropouts(network)],
            "given": given,
            "settings": _settings(network, optimizer),
            "history": network.history.to_dict() | {"steps": []},  # as an array beside it: there may be millions
            "best": best.value,
            "waited": best.since,
        }
    }
    files.write(path, arrays, meta)


def _check(path: str, content: dict[str, Any], network: Network, run: Run, given: dict[str, Any]) -> None:
    """Raise an error unless a run can go on from there."""
    for name, value in _description(network, run).items():
        if content["run"].get(name) != value:
            raise ValueError(
                f"{path}: expected a checkpoint of this run, with {name} {value}, got one with "
                f"{content['run'].get(name)}; call fit as it was called then, or start without resume"
            )
    kinds = [state["bit_generator"] for state in (run.before, content["generator"])]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{path}: expected a checkpoint of a run with a generator {kinds[0]}, as seed is, got one with {kinds[1]}; "
            f"pass np.random.Generator(np.random.{kinds[1]}()), whose state is then that of the file"
        )
    for name, value in _changed(content, given).items():
        if value is None:
            raise ValueError(
                f"{path}: expected {name} as a number or an array, got a function that a callback had set, which "
                f"no file can hold; pass an optimizer with that function"
            )
    check_writeable(network.params)


def _put(arrays: dict[str, Array], content: dict[str, Any], network: Network, run: Run, best: Best) -> None:
    for key, parameter in network.params.items():
        parameter[...] = arrays[f"parameter {key}"]
    set_optimizer_state(run.optimizer, arrays, content["iter"])
    run.generator.bit_generator.state = content["generator"]
    for layer, step, seed in zip(_dropouts(network), content["dropout"], content["seeds"], strict=True):
        layer.step, layer.seed = step, seed
    best.params, best.value, best.since = _beginning("best ", arrays), content["best"], content["waited"]
    run.epochs, run.step, run.seconds = content["epochs"], content["step"], content["seconds"]
    run.losses[: run.step], run.hits[: run.step] = arrays["losses"], arrays["hits"]


def _settings(network: Network, optimizer: Optimizer) -> dict[str, Any]:
    """What a callback may set otherwise than it was given: the optimizer's settings (None: a function), and ratios."""
    settings = {name: getattr(optimizer, name) for name in optimizer.setting_names()}
    ratios = {f"dropout_ratio {number}": layer.dropout_ratio for number, layer in enumerate(_dropouts(network), 1)}
    return {name: None if callable(value) else value for name, value in (settings | ratios).items()}


def _changed(content: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings that callbacks had changed, but for those that fit is now given otherwise than then."""
    then, later = content["given"], content["settings"]
    return {
        name: later[name]
        for name, value in given.items()
        if _is_equal(value, then[name]) and not _is_equal(value, later[name])
    }


def _set(network: Network, optimizer: Optimizer, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if name.startswith("dropout_ratio "):
            _dropouts(network)[int(name.removeprefix("dropout_ratio ")) - 1].dropout_ratio = value
        else:
            setattr(optimizer, name, value)


def _is_equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) and (one is None) == (other is None)


def _description(network: Network, run: Run) -> dict[str, Any]:
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


def _dropouts(network: Network) -> list[Dropout]:
    return [layer for layer in network.layers.values() if isinstance(layer, Dropout)]
