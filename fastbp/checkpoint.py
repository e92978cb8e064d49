"""Checkpoints of `fit`: everything from which a run goes on to bitwise the same parameters, in one whole file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastbp import saving
from fastbp.history import History
from fastbp.layers import Dropout
from fastbp.validation import Array

if TYPE_CHECKING:
    from fastbp.fitting import Best, Run
    from fastbp.network import Sequential

FilePath = str | os.PathLike[str]


def write(path: FilePath, network: Sequential, run: Run, best: Best, epoch: int) -> None:
    """Write what there is after an epoch."""
    optimizer = run.optimizer
    arrays = {f"parameter {key}": value for key, value in network.params.items()}
    arrays |= {f"best {key}": value for key, value in best.params.items()}
    arrays |= saving.optimizer_state(optimizer)
    meta = {
        "checkpoint": {
            "run": _description(network, run),
            "epoch": epoch,
            "iter": optimizer.iter,
            "generator": run.generator.bit_generator.state,
            "dropout": [layer.step for layer in _dropouts(network)],
            "history": network.history.to_dict(),
            "best": best.value,
            "waited": best.since,
        }
    }
    saving.write(path, arrays, meta)


def read(path: FilePath, network: Sequential, run: Run, best: Best) -> int:
    """Put everything back where it was, and return how many epochs were done.

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
    best.params, best.value, best.since = _beginning("best ", arrays), content["best"], content["waited"]
    epoch: int = content["epoch"]
    return epoch


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
