"""What losses say of a rate that is too large: an error where one is not finite, a warning where they grow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from fastbp.checks import Array

# How many times the loss of outputs of 0, and that before the first update, a mean of an epoch may be without a word.
# 784-50-10 on the digits has 0.6 times of it after an epoch with a rate of 1, 90 times with a rate of 50.
MOST = 10.0


class Trained(Protocol):
    """What is asked of a run."""

    def loss_of_zeros(self) -> float:
        """The loss of outputs that are all 0, which is about that of guessing."""


class Watch:
    """Looks at the losses of a run, and warns once."""

    def __init__(self, run: Trained) -> None:
        self._run, self._first, self._is_quiet = run, math.nan, False

    def look_at_steps(self, losses: Array) -> None:
        """Keep the loss of the first step, which is of the parameters before any update."""
        if math.isnan(self._first):
            self._first = float(losses[0])

    def look_at_epoch(self, row: Mapping[str, Any]) -> None:
        """Warn where the mean loss of an epoch is far above that of guessing and that of the beginning."""
        loss = row["loss"]
        if self._is_quiet or not math.inf > loss > MOST * self._first:
            return
        guessing = self._run.loss_of_zeros()
        if loss > MOST * guessing:
            self._is_quiet = True
            warnings.warn(
                f"fit: expected a loss that falls, got a mean of {loss:.4g} in epoch {row['epoch']} after "
                f"{self._first:.4g} at the first step (outputs of 0 have {guessing:.4g}); give a smaller rate",
                stacklevel=5,
            )


def raise_not_finite(epoch: int, step: int, losses: Array) -> NoReturn:
    """Raise `FloatingPointError` for the loss of a step."""
    before = f"{losses[step - 1]:.4g} the step before" if step else "no step before it"
    raise FloatingPointError(
        f"loss: expected a finite number, got {losses[step]} at step {step + 1} of epoch {epoch} ({before}); the "
        f"parameters are those of the step before; a learning rate too large or a NaN in x is the usual cause "
        f"(on_nan='ignore' goes on all the same)"
    )


def check_validation(row: Mapping[str, Any]) -> None:
    """Raise `FloatingPointError` where the loss of the validation data after an epoch is not finite."""
    if math.isfinite(row.get("val_loss", 0.0)):
        return
    raise FloatingPointError(
        f"validation_data: expected a finite val_loss, got {row['val_loss']} after epoch {row['epoch']}, whose loss is "
        f"{row['loss']:.4g}; the parameters are those after it; a NaN in the validation data is the usual cause "
        f"(on_nan='ignore' goes on all the same)"
    )
