"""The tables that scripts of this folder print: the machine, the columns, and each row as soon as it is measured."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@functools.cache
def machine() -> dict[str, Any]:
    """The processor, its peak and the libraries; the peak takes half a second to measure."""
    # asv imports this file beside commits that have no such module.
    from fastbp.benchmark.machine import describe  # noqa: PLC0415

    return describe()


def print_machine(*facts: str) -> None:
    """Print what figures depend on, and further facts of one table, a line each."""
    found = machine()
    cores = f"{found['cores']} cores, {found['vector_bits']}-bit vectors, {found['threads']} threads"
    print(f"{found['processor']}, {cores}; multiply-add peak {found['peak_flops'] / 1e9:.0f} GFLOP/s in float32")
    versions = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    print("\n".join([f"{versions}; BLAS: {found['blas']}", *facts]), flush=True)


class Table:
    """A table whose rows appear one by one.

    A cell is a text, a number, or None where nothing was measured.
    """

    def __init__(self, columns: Sequence[str], head: str = "", names: int = 58, width: int = 10) -> None:
        self.names, self.width = names, width
        self.row(head, *columns)

    def row(self, name: str, *cells: str | float | None, notes: Iterable[object] = ()) -> None:
        """Print a row; the notes stand behind its cells."""
        shown = "".join(f"{_cell(cell):>{self.width}}" for cell in cells)
        print(f"{name:<{self.names}}{shown}  {', '.join(map(str, notes))}".rstrip(), flush=True)


@dataclass(frozen=True)
class Ratio:
    """A figure against another, and the bar for it, if there is one."""

    value: float
    of: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether the figure keeps to its bar."""
        above = self.at_most is not None and not self.value <= self.at_most
        below = self.at_least is not None and not self.value >= self.at_least
        return not (above or below)

    def __str__(self) -> str:
        bars = (("at most", self.at_most), ("at least", self.at_least))
        result = "held" if self.is_held else "MISSED"
        shown = [f" ({name} {bar}: {result})" for name, bar in bars if bar is not None]
        return f"{self.value:.2f} {self.of}{''.join(shown)}"


def digits(value: float) -> str:
    """Three digits of a number, or all before its point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str | None:
    """Seconds in the unit that suits them."""
    if seconds is None:
        return None
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{digits(seconds * scale)} {unit}"


def _cell(value: str | float | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else digits(value)
