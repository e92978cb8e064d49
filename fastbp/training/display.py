"""The progress of a run on the screen: one bar for `fit`, for the command and for the estimators."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from typing import Any, Self

from fastbp.extras import require
from fastbp.training.divergence import Watch
from fastbp.training.run import Run, Stretch
from fastbp.training.screen import columns, is_live


class Bar:
    """A progress bar on a terminal or in a notebook, with tqdm. Elsewhere, and unless it is wanted, it shows nothing.

    Parameters
    ----------
    total : int
        How much work there is.
    is_wanted : bool
    **settings
        Of tqdm, such as `unit`.

    Attributes
    ----------
    is_shown : bool
    """

    def __init__(self, total: int, is_wanted: bool = True, **settings: Any) -> None:
        self._bar: Any = None
        if is_wanted and is_live():
            with suppress(ImportError):
                self._bar = require("tqdm").tqdm(total=total, ncols=columns(), **settings)
        self.is_shown = self._bar is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.is_shown:
            self._bar.close()

    def reach(self, done: int, **numbers: Any) -> None:
        """Show how much of the work is done, and numbers beside the bar."""
        if self.is_shown:
            self._bar.update(done - self._bar.n)
            if numbers:
                self._bar.set_postfix(numbers)

    def print(self, line: str) -> None:
        """Print a line to stdout, above the bar."""
        with self._bar.external_write_mode() if self.is_shown else nullcontext():
            print(f"{line}\n", end="", flush=True)  # one write, of which a Ctrl-C cannot cut off the end


class Display(Bar):
    """Shows a run of `fit`: a bar on a terminal and in a notebook, else a line for each epoch, or nothing.

    Beside the bar stand loss and accuracy of the epoch so far, and those of the validation after the one before. Where
    losses grow as by a rate that is too large, a warning says so in any case.
    """

    def __init__(self, run: Run, epochs: int, verbose: bool | None) -> None:
        is_wanted = (is_live() if verbose is None else verbose) and run.company.rank == 0
        super().__init__(epochs * run.samples, is_wanted, bar_format=_FORMAT)
        self._run, self._epochs, self._has_lines = run, epochs, is_wanted and not self.is_shown
        self._train, self._validation = "", ""
        self._watch = Watch(run)

    def show(self, stretch: Stretch) -> None:
        """Show how far the run has come with these steps."""
        self._watch.look_at_steps(stretch.losses)
        if not self.is_shown:
            return
        run = self._run
        samples = (stretch.epoch - 1) * run.samples + round(run.samples * stretch.step / run.steps)
        self._train = _numbers(stretch.loss, stretch.accuracy if run.classifies else None)
        self._bar.set_description_str(f"epoch {stretch.epoch}/{self._epochs}", refresh=False)
        self._put_beside()
        self.reach(samples)

    def show_epoch(self, row: dict[str, Any]) -> None:
        """Show the numbers of an epoch: those of the validation beside the bar, or all in a line without one."""
        self._watch.look_at_epoch(row)
        if self.is_shown and "val_loss" in row:
            self._validation = f", val {_numbers(row['val_loss'], row.get('val_accuracy'))}"
            self._put_beside()
        if self._has_lines:
            numbers = (f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']}: {', '.join(numbers)}", file=sys.stderr, flush=True)

    def _put_beside(self) -> None:
        self._bar.set_postfix_str(f"loss {self._train}{self._validation}", refresh=False)


# In 79 columns there is room for both losses and accuracies, and for six characters of the bar.
_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def _numbers(loss: float, accuracy: float | None) -> str:
    text = f"{loss:.4f}" if abs(loss) < 10 else f"{loss:.4g}"
    return text if accuracy is None else f"{text} {accuracy:.4f}"
