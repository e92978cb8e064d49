"""The results of a training run: a row of numbers for each epoch, as columns, a table or learning curves."""

from __future__ import annotations

import csv
import html
import math
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.checks import as_array
from fastbp.extras import require
from fastbp.files import check_place

__all__ = ["History"]


class History:
    """The numbers of each epoch by column name.

    The first row sets the columns. Usual ones are `epoch`, `loss` and `accuracy` of the training batches,
    `val_loss` and `val_accuracy` of the validation data, and `seconds`; other names are columns too.

    Examples
    --------
    >>> history = History()
    >>> history.append(epoch=1, loss=2.25, accuracy=0.25)
    >>> history.append(epoch=2, loss=1.5, accuracy=0.75)
    >>> history["loss"]
    array([2.25, 1.5 ])
    >>> print(history)
    epoch    loss  accuracy
        1  2.2500    0.2500
        2  1.5000    0.7500
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[int | float]] = {}
        self._steps = array("d")

    def append(self, **row: float) -> None:
        """Add the row of one epoch.

        Parameters
        ----------
        **row : int or float
            A number for each column.

        Raises
        ------
        TypeError
            For what is not a number.
        ValueError
            If the columns are not those of the first row, or there are none. Nothing is added then.
        """
        numbers = {name: _number(name, value) for name, value in row.items()}
        if not numbers:
            raise ValueError("row: expected at least one column, got none; give one such as loss=0.5")
        if len(self) and numbers.keys() != self._columns.keys():
            raise ValueError(
                f"row: expected the columns of the first row, {list(self._columns)}, got {list(numbers)}; "
                f"give the same in every row, NaN where there is no number"
            )
        for name, number in numbers.items():
            self._columns.setdefault(name, []).append(number)

    def extend_steps(self, losses: ArrayLike) -> None:
        """Add the losses of further steps.

        Parameters
        ----------
        losses : array_like (S,)
            One for each step, in order.

        Raises
        ------
        TypeError, ValueError
            If losses are not real numbers in such a shape.

        Examples
        --------
        >>> history = History()
        >>> history.extend_steps([2.25, 1.5])
        >>> history.steps
        array([2.25, 1.5 ])
        """
        losses = as_array("losses", losses)
        if losses.ndim != 1:
            raise ValueError(f"losses: expected one dimension, got shape {losses.shape}; pass losses.reshape(-1)")
        self._steps.extend(losses.astype(np.float64).tolist())

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the first row.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, loss=2.25)
        >>> history.columns
        ('epoch', 'loss')
        """
        return tuple(self._columns)

    @property
    def steps(self) -> NDArray[np.float64]:
        """The loss of every step that was recorded, (S,), a copy; empty if none was.

        Examples
        --------
        >>> network.fit(x, t, epochs=2, batch_size=2, record_steps=True).steps.shape
        (6,)
        """
        return np.array(self._steps, np.float64)

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        """Return one column as a new array (epochs,)."""
        if column not in self._columns:
            raise KeyError(f"{column!r}: expected one of {list(self._columns)}")
        return np.array(self._columns[column], np.float64)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __iter__(self) -> Iterator[dict[str, int | float]]:
        """Each row as a dict."""
        return (self._row(index) for index in range(len(self)))

    def best(self, column: str = "val_loss") -> dict[str, int | float]:
        """Return the row with the lowest value of `column`, or the highest where its name ends in accuracy.

        The first of equals; NaN is never the best.

        Parameters
        ----------
        column : str

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If it holds nothing but NaN.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, val_loss=2.25)
        >>> history.append(epoch=2, val_loss=1.5)
        >>> history.best()
        {'epoch': 2, 'val_loss': 1.5}
        """
        values = self[column]
        if np.isnan(values).all():
            raise ValueError(f"{column}: expected a number in some row, got only NaN; choose another column")
        if column.endswith("accuracy"):
            values = -values
        return self._row(int(np.nanargmin(values)))

    def to_dict(self) -> dict[str, Any]:
        """Return the columns and steps as plain lists of numbers, which `from_dict` takes.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, loss=2.25)
        >>> history.to_dict()
        {'columns': {'epoch': [1], 'loss': [2.25]}, 'steps': []}
        """
        return {"columns": {name: list(values) for name, values in self._columns.items()}, "steps": list(self._steps)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> History:
        """Return the history that `to_dict` described.

        Parameters
        ----------
        content : mapping
            With `columns`, a dict of lists of one length, and `steps`, a list.

        Raises
        ------
        TypeError, ValueError
            If it is something else.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, loss=2.25)
        >>> history.to_dict()
        {'columns': {'epoch': [1], 'loss': [2.25]}, 'steps': []}
        >>> History.from_dict(history.to_dict())["loss"]
        array([2.25])
        """
        if not isinstance(content, Mapping) or not {"columns", "steps"} <= content.keys():
            got = list(content) if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"content: expected a dict with 'columns' and 'steps', got {got}; pass what to_dict gave")
        columns = content["columns"]
        if not isinstance(columns, Mapping):
            raise ValueError(f"columns: expected a dict of lists, got {type(columns).__name__}; pass what to_dict gave")
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns: expected lists of one length, got {lengths}; pass what to_dict gave")
        history = cls()
        for row in zip(*columns.values(), strict=True):
            history.append(**dict(zip(columns, row, strict=True)))
        history.extend_steps(content["steps"])
        return history

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the learning curves: loss and accuracy side by side, training and validation in each.

        Parameters
        ----------
        path : path, optional
            Where to save the picture, such as curves.png.

        Returns
        -------
        matplotlib.figure.Figure
            Not one of pyplot's: nothing opens and nothing has to be closed. A notebook shows the picture.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            If there is nothing to draw, or matplotlib does not know the format of `path`.
        OSError
            If there is no folder for `path`, or nothing can be written there.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, loss=2.25)
        >>> figure = history.plot("curves.png")
        """
        kinds = [kind for kind in ("loss", "accuracy") if {kind, f"val_{kind}"} & self._columns.keys()]
        if not kinds:
            raise ValueError(
                f"plot: expected a column of loss or accuracy, got {list(self._columns)}; train an epoch first"
            )
        require("matplotlib")
        from fastbp.training.curves import Curves  # noqa: PLC0415 - training needs no matplotlib

        figure = Curves(figsize=(5 * len(kinds), 4), layout="constrained")
        if path is not None:
            check_picture("path", Path(path), figure)
            check_place("path", Path(path))
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            self._draw(axes, kind)
        if path is not None:
            figure.savefig(path)
        return figure

    def to_frame(self) -> Any:
        """Return the rows as a new pandas `DataFrame`, a column for each of `columns`.

        Raises
        ------
        ImportError
            Without pandas.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, loss=2.25)
        >>> history.to_frame()
           epoch  loss
        0      1  2.25
        """
        return require("pandas").DataFrame({name: list(values) for name, values in self._columns.items()})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Save the rows as text, the names first, separated by commas; numbers have all their digits.

        Parameters
        ----------
        path : path
            Taken as it is; a file that is there is replaced.

        Raises
        ------
        ValueError
            If there is no epoch yet.
        OSError
            If there is no folder for `path`, or nothing can be written there.

        Examples
        --------
        >>> history = History()
        >>> history.append(epoch=1, loss=2.25)
        >>> history.to_csv("history.csv")
        """
        if not len(self):
            raise ValueError("history: expected at least one epoch, got none; train first")
        check_place("path", Path(path))
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([self.columns, *zip(*self._columns.values(), strict=True)])

    def __repr__(self) -> str:
        return f"History({len(self)} epochs, columns {list(self._columns)}, {len(self._steps)} steps)"

    def __str__(self) -> str:
        """The rows as a table, or "no epochs"."""
        if not len(self):
            return "no epochs"
        widths = [max(map(len, column)) for column in zip(*self._table(), strict=True)]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in self._table())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        if not len(self):
            return "<p>no epochs</p>"
        head, *body = ([html.escape(cell) for cell in row] for row in self._table())
        lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
        header = "".join(f"<th>{cell}</th>" for cell in head)
        rows = "".join(f"<tr>{line}</tr>\n" for line in lines)
        return f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"

    def _table(self) -> list[tuple[str, ...]]:
        """The names and then each row, as text."""
        return [self.columns, *zip(*map(_texts, self._columns.values()), strict=True)]

    def _row(self, index: int) -> dict[str, int | float]:
        return {name: values[index] for name, values in self._columns.items()}

    def _draw(self, axes: Any, kind: str) -> None:
        epochs = self["epoch"] if "epoch" in self._columns else np.arange(1.0, len(self) + 1)
        marker = "." if len(self) <= 50 else ""
        for column, label, style in ((kind, "train", "-"), (f"val_{kind}", "validation", "--")):
            if column in self._columns:
                axes.plot(epochs, self[column], style, marker=marker, label=label)
        axes.set(xlabel="epoch", ylabel=kind)
        if kind == "accuracy":
            axes.set_ylim(0, 1.02)
        elif axes.dataLim.y0 >= 0:
            axes.set_ylim(0, None)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()


def _number(name: str, value: object) -> int | float:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    raise TypeError(f"{name}: expected a number, got {type(value).__name__}; pass float({name})")


def _texts(values: list[int | float]) -> list[str]:
    """One column with the same number of decimals in each row: five digits for its largest, or powers of ten."""
    if all(isinstance(value, int) for value in values):
        return [str(value) for value in values]
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    if sizes and not (min(sizes) >= 1e-3 and max(sizes) < 1e6):
        return [f"{value:.3e}" for value in values]
    decimals = 4 - math.floor(math.log10(max([1, *sizes])))
    return [f"{value:.{max(0, decimals)}f}" for value in values]


def check_picture(argument: str, path: Path, figure: Any) -> None:
    """Raise `ValueError` unless matplotlib knows the kind of file."""
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(
            f"{argument}: expected a file ending in one of {', '.join(sorted(kinds))}, got {path}; name a .png"
        )
