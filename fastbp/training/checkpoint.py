"""Checkpoints of `fit`: everything from which a run goes on to bitwise the same parameters, in one whole file."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from fastbp import files
from fastbp.checks import Array, whole_number
from fastbp.contents import optimizer_state, set_optimizer_state
from fastbp.files import FilePath, check_folder, file_path
from fastbp.ops.contract import LayerRecord, drawing, set_state, state_of
from fastbp.training.best import Best
from fastbp.training.given import check_writeable
from fastbp.training.history import History
from fastbp.training.run import Run

# The arrays of a checkpoint, and what else is in it.
Reached = tuple[dict[str, Array], dict[str, Any]]


class Checkpoints:
    """Writes the file of a run when it is due, and reads it."""

    def __init__(self, run: Run, best: Best, path: FilePath | None, every: int | timedelta | None) -> None:
        self._network, self._run, self._best, self._path = run.network, run, best, path
        if path is None and every is not None:
            raise ValueError(f"every: expected a checkpoint beside it, got {every} alone; name the file by checkpoint=")
        self._epochs, self._seconds = _interval(1 if every is None else every)
        if path is not None and run.company.rank == 0:
            _check_path(path)
        self._given = self._settings()
        self._arguments: dict[str, Any] = {}
        self._written_at = time.monotonic()

    def note_arguments(self, seed: object) -> None:
        """Take note of what a run that goes on must be given once more: all ranks together, before `read`."""
        self._arguments = {"seed": int(seed) if isinstance(seed, Integral) else None, **self._run.given_words()}

    def between_steps(self) -> None:
        """Write the file if it is time, but not after the last step of an epoch: that is left to `after_epoch`."""
        if self._run.step < self._run.steps and self._is_time():
            self._write()

    def after_epoch(self, is_last: bool) -> None:
        """Write the file if it is due by time or by epochs, or after the last epoch."""
        if is_last or self._run.epochs % self._epochs == 0 or self._is_time():
            self._write()

    def read(self, path: FilePath, epochs: int) -> Reached:
        """What `resume` takes from a file, for a run of so many epochs in all.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, not a checkpoint, or one of another run.
        """
        company = self._run.company
        return company.first(self._read(path, epochs) if company.rank == 0 else ({}, {}))

    def _read(self, path: FilePath, epochs: int) -> Reached:
        arrays, meta = files.read(path)
        if "checkpoint" not in meta:
            raise ValueError(f"{os.fspath(path)}: expected a checkpoint of fit, got another file; pass what fit wrote")
        content = meta["checkpoint"]
        if "given" not in content:  # files of earlier versions lack these three
            seeds = [layer.seed for layer, _ in self._drawing()]
            content |= {"given": self._given, "settings": self._given, "seeds": seeds}
        self._check(os.fspath(path), content)
        begun = content["epochs"] + (content["step"] > 0)
        if epochs < begun:
            raise ValueError(
                f"epochs: expected at least {begun}, as many as the run of {os.fspath(path)} has begun, got {epochs}; "
                f"give the number of all epochs, with those before"
            )
        return arrays, content

    def resume(self, reached: Reached) -> History:
        """Put everything back where it was; returns the history."""
        arrays, content = reached
        run, best = self._run, self._best
        for key, parameter in self._network.params.items():
            parameter[...] = arrays[f"parameter {key}"]
        set_optimizer_state(run.optimizer, arrays, content["iter"])
        run.generator.bit_generator.state = content["generator"]
        set_state(self._network.layers.values(), _read_state(arrays, "state"))
        for (layer, record), count, seed in zip(self._drawing(), content["dropout"], content["seeds"], strict=True):
            layer.seed = seed
            for name in record.counters:
                setattr(layer, name, count)
        best.params = {key[5:]: value for key, value in arrays.items() if key.startswith("best ")}
        best.statistics = _read_state(arrays, "best-state")
        best.value, best.since = content["best"], content["waited"]
        run.epochs, run.step, run.seconds = content["epochs"], content["step"], content["seconds"]
        run.losses[: run.step], run.hits[: run.step] = arrays["losses"], arrays["hits"]
        for name, value in self._changed(content).items():
            kind, _, number = name.partition(" ")
            setattr(self._drawing()[int(number) - 1][0] if number else run.optimizer, kind, value)
        history = History.from_dict(content["history"])
        history.extend_steps(arrays["steps"])
        return history

    def _is_time(self) -> bool:
        if self._path is None:
            return False
        return self._run.company.first(time.monotonic() - self._written_at >= self._seconds)

    def _write(self) -> None:
        if self._path is not None:
            with self._run.paused():
                if self._run.company.rank == 0:
                    files.write(self._path, *self._content())
        self._written_at = time.monotonic()

    def _content(self) -> Reached:
        """What the file holds: arrays, and what else there is."""
        network, run, best = self._network, self._run, self._best
        arrays = {f"parameter {key}": value for key, value in network.params.items()}
        arrays |= {f"best {key}": value for key, value in best.params.items()}
        arrays |= _written_state(state_of(network.layers.values()), "state")
        arrays |= _written_state(best.statistics, "best-state")
        arrays |= optimizer_state(run.optimizer)
        arrays |= {"losses": run.losses[: run.step], "hits": run.hits[: run.step], "steps": network.history.steps}
        content = {
            "run": self._description(),
            "epochs": run.epochs,
            "step": run.step,
            "seconds": run.seconds,
            "iter": run.optimizer.iter,
            "generator": run.before,
            "dropout": [getattr(layer, name) for layer, record in self._drawing() for name in record.counters],
            "seeds": [layer.seed for layer, _ in self._drawing()],
            "arguments": self._arguments,
            "given": self._given,
            "settings": self._settings(),
            "history": network.history.to_dict() | {"steps": []},  # as an array beside it: there may be millions
            "best": best.value,
            "waited": best.since,
        }
        return arrays, {"checkpoint": content}

    def _check(self, path: str, content: dict[str, Any]) -> None:
        """Raise an error unless the run can go on from there."""
        for name, value in self._description().items():
            if content["run"].get(name) != value:
                raise ValueError(
                    f"{path}: expected a checkpoint of this run, with {name} {value}, got one with "
                    f"{content['run'].get(name)}; call fit as it was called then, or start without resume"
                )
        for name, then in content.get("arguments", {}).items():  # files of earlier versions lack them
            now = self._arguments[name]
            if now != then and (name != "seed" or None not in (now, then)):
                raise ValueError(
                    f"{name}: expected {then}, as for the run of {path}, got {now}; give the same, or, for other "
                    f"data, load the network and call fit without resume"
                )
        ours, theirs = (state["bit_generator"] for state in (self._run.before, content["generator"]))
        if ours != theirs:
            raise ValueError(
                f"{path}: expected a checkpoint of a run with a generator {ours}, as seed is, got one with {theirs}; "
                f"pass np.random.Generator(np.random.{theirs}()), whose state is then that of the file"
            )
        for name, value in self._changed(content).items():
            if value is None:
                raise ValueError(
                    f"{path}: expected {name} as a number or an array, got a function that a callback had set, which "
                    f"no file can hold; pass an optimizer with that function"
                )
        check_writeable(self._network.params)

    def _description(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {
            "parameters": {key: [str(value.dtype), *value.shape] for key, value in self._network.params.items()},
            "layers": [type(layer).__name__ for layer in self._network.layers.values()],
            "loss": type(self._network.last_layer).__name__,
            "optimizer": type(self._run.optimizer).__name__,
            "samples": self._run.samples,
            "batch_size": self._run.batch_size,
        }

    def _settings(self) -> dict[str, Any]:
        """What a callback may set: ratios of layers that draw, and the optimizer's settings, None for a function."""
        optimizer = self._run.optimizer
        settings = {name: getattr(optimizer, name) for name in optimizer.setting_names()}
        for number, (layer, record) in enumerate(self._drawing(), 1):
            settings |= {f"{name} {number}": getattr(layer, name) for name in record.settings if name != "seed"}
        return {name: None if callable(value) else value for name, value in settings.items()}

    def _changed(self, content: dict[str, Any]) -> dict[str, Any]:
        """The settings that callbacks had changed, without those that this fit is given anew."""
        then, later = content["given"], content["settings"]
        return {
            name: later[name]
            for name, value in self._given.items()
            if _is_equal(value, then[name]) and not _is_equal(value, later[name])
        }

    def _drawing(self) -> list[tuple[Any, LayerRecord]]:
        return drawing(self._network.layers.values())


def _written_state(state: Mapping[tuple[int, str], Any], kind: str) -> dict[str, Array]:
    return {f"{kind} {number} {name}": np.asarray(value) for (number, name), value in state.items()}


def _read_state(arrays: Mapping[str, Array], kind: str) -> dict[tuple[int, str], Any]:
    """The state that `_written_state` wrote; counters are integers again."""
    found = {tuple(key.split(" ")): value for key, value in arrays.items() if key.startswith(f"{kind} ")}
    return {(int(number), name): value if value.ndim else int(value) for (_, number, name), value in found.items()}


def _interval(every: int | timedelta) -> tuple[float, float]:
    """The epochs and the seconds from one checkpoint to the next; one of them is inf."""
    if not isinstance(every, timedelta):
        remedy = "give the number of epochs from one checkpoint to the next, or a datetime.timedelta"
        return whole_number("every", every, 1, remedy), math.inf
    if every <= timedelta():
        raise ValueError(f"every: expected a time longer than 0, got {every}; give one such as timedelta(minutes=10)")
    return math.inf, every.total_seconds()


def _check_path(path: object) -> None:
    """Raise an error unless a file can be written there."""
    file = Path(os.path.realpath(file_path("checkpoint", path)))
    if file.exists() and not file.is_file():
        raise ValueError(
            f"checkpoint: expected a file or a new name, got a folder or a device, {file}; choose another path"
        )
    check_folder("checkpoint", file)
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(
            error.errno,
            f"checkpoint: expected a folder that can be written to, got {file.parent} ({error.strerror}); "
            f"choose another path",
        ) from None


def _is_equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) and (one is None) == (other is None)
