"""The progress of a run on the screen: one bar for `fit`, for the command and for the estimators."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from typing import Any, Self

from fastbp.extras import require
from fastbp.training.run import Run, Stretch


class Bar:
    """A progress bar on a terminal that has tqdm. Elsewhere, and unless it is wanted, it shows nothing.

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
        if is_wanted and sys.stderr.isatty():
            with suppress(ImportError):
                self._bar = require("tqdm.auto").tqdm(total=total, **settings)
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
    """Shows a run of `fit`: a bar on a terminal, else a line for each epoch, or nothing."""

    def __init__(self, run: Run, epochs: int, verbose: bool | None) -> None:
        is_wanted = (sys.stderr.isatty() if verbose is None else verbose) and run.company.rank == 0
        super().__init__(epochs * run.samples, is_wanted, unit=" samples", unit_scale=True)
        self._run, self._has_lines = run, is_wanted and not self.is_shown

    def show(self, stretch: Stretch) -> None:
        """Show how far the run has come with these steps."""
        if not self.is_shown:
            return
        run = self._run
        samples = (stretch.epoch - 1) * run.samples + round(run.samples * stretch.step / run.steps)
        accuracy = {"accuracy": f"{stretch.accuracy:.4f}"} if run.classifies else {}
        self.reach(samples, epoch=stretch.epoch, loss=f"{stretch.loss:.4f}", **accuracy)

    def show_epoch(self, row: dict[str, Any]) -> None:
        """Print the numbers of an epoch, where no bar shows them."""
        if self._has_lines:
            numbers = (f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']}: {', '.join(numbers)}", file=sys.stderr, flush=True)
