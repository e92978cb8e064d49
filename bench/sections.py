"""Scripts of sections: each has rows, whose cells are percentiles of seconds, and ratios with a bar behind or below."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.table import Ratio, Table, digits, print_machine
from fastbp.benchmark import peers

Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """Figures by column, and ratios; `scale` turns seconds into milliseconds."""

    name: str
    figures: Seconds
    ratios: tuple[Ratio, ...] = ()
    scale: float = 1e3


Sections = Mapping[str, Callable[[], Iterator[Row]]]


def print_sections(
    script: str,
    what: str,
    sections: Sections,
    arguments: Sequence[str] | None,
    *,
    names: int,
    width: int,
    last: float = math.inf,
    is_below: bool = False,
) -> None:
    """Print the rows of the sections that the arguments of a script name, of all of them by default.

    A section without its library is left out, and so is one that would begin after `last` seconds. Ratios stand behind
    their row, or each in a line below it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{script}", description=what)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(sections)} (default: all)")
    chosen = parser.parse_args(arguments).sections
    if unknown := [name for name in chosen if name not in sections]:
        parser.error(f"SECTION: expected some of {', '.join(sections)}, got {', '.join(unknown)}")
    warnings.simplefilter("ignore")  # optimizations that have not converged
    start = time.perf_counter()
    load = [f"load before the run: {os.getloadavg()[0]:.1f} (quiet: near 0)"] if hasattr(os, "getloadavg") else []
    print_machine(*load, "10th, 50th and 90th percentile, ms")
    columns: list[str] = []
    for name in chosen or sections:
        print(f"{time.perf_counter() - start:4.0f} s: {name}", file=sys.stderr, flush=True)
        if time.perf_counter() - start > last:
            command = f"python -m bench.{script} {name}"
            print(f"{name}: left out, as {last} s are over; run it alone: {command}", flush=True)
            continue
        try:
            for row in sections[name]():
                if [*row.figures] != columns:
                    columns = [*row.figures]
                    print()
                    table = Table(columns, names=names, width=width)
                cells = (percentiles(values, row.scale) for values in row.figures.values())
                table.row(row.name, *cells, notes=() if is_below else row.ratios)
                for each in row.ratios if is_below else ():
                    print(f"  {each}", flush=True)
                if time.perf_counter() - start > last:
                    print(f"{name}: {last} s are over; further rows, if it has any, are left out", flush=True)
                    break
        except (ImportError, peers.UnavailableError) as error:
            print(f"{name}: left out: {error}", flush=True)


def percentiles(values: list[float], scale: float) -> str:
    """A cell."""
    return " ".join(map(digits, np.percentile(np.array(values) * scale, [10, 50, 90])))


def ratio(figures: Seconds, one: str, other: str) -> float:
    """The median of one column divided by the median of another; NaN where that is 0."""
    whole = float(np.median(figures[other]))
    return float(np.median(figures[one])) / whole if whole else math.nan
