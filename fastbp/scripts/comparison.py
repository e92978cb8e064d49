"""A script on fastbp's kernels and on the book's own modules, each in a process of its own: times, and what differs."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Comparison", "Difference", "compare"]

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Difference:
    """A line that differs.

    Attributes
    ----------
    line : int
        From 1.
    fastbp, numpy : str or None
        What was printed; None where a run had ended.
    is_last_digit : bool
        Whether it is only in numbers, and in none by more than a unit in the last place of float32.
    """

    line: int
    fastbp: str | None
    numpy: str | None
    is_last_digit: bool


@dataclass(frozen=True)
class Comparison:
    """What two runs took and printed.

    Attributes
    ----------
    statuses : tuple of int
        Of the run on fastbp, and of that on NumPy.
    seconds : tuple of float
        From the first line of the script to the last.
    lines : int
        That fastbp's run printed.
    differences : list of Difference
    """

    statuses: tuple[int, int]
    seconds: tuple[float, float]
    lines: int
    differences: list[Difference]

    @property
    def is_equal(self) -> bool:
        """Whether both ended alike, and printed the same but for last digits of float32."""
        return self.statuses[0] == self.statuses[1] and all(found.is_last_digit for found in self.differences)

    def report(self) -> list[str]:
        """Lines that say it."""
        ours, numpy = self.seconds
        lines = [f"fastbp {ours:.2f} s, NumPy {numpy:.2f} s: {numpy / max(ours, 1e-9):.1f} times as fast"]
        if self.statuses[0] != self.statuses[1]:
            lines.append(f"exit status {self.statuses[0]} on fastbp, {self.statuses[1]} on NumPy")
        if not self.differences:
            return [*lines, f"the same text, {self.lines} line{'' if self.lines == 1 else 's'}"]
        first = self.differences[0]
        beyond = next((found for found in self.differences if not found.is_last_digit), None)
        lines += _told("first line that differs", first)
        if beyond is None:
            lines.append(
                f"{len(self.differences)} of {self.lines} lines differ, all in the last digit of float32 at most"
            )
        elif beyond is first:
            lines.append("that is more than the last digit of float32")
        else:
            lines += _told("that is the last digit of float32 at most; more than it", beyond)
        return lines


def compare(script: Path, arguments: Sequence[str], options: Sequence[str], folder: Path) -> Comparison:
    """Run a script twice, on fastbp first.

    Parameters
    ----------
    script : Path
    arguments : sequence of str
        Of the script.
    options : sequence of str
        Of `fastbp run`, for both.
    folder : Path
        For the pictures of both.
    """
    runs = []
    for name, extra in (("fastbp", []), ("numpy", ["--numpy"])):
        mine = [*options, *extra, "--plots", str(folder / name)]
        runs.append(_in_process(mine, script, arguments))
    (status, seconds, ours), (numpy_status, numpy_seconds, theirs) = runs
    found = differences(ours, theirs)
    return Comparison((status, numpy_status), (seconds, numpy_seconds), len(ours), found)


def differences(ours: Sequence[str], theirs: Sequence[str]) -> list[Difference]:
    """The lines that differ, in their order."""
    pairs = enumerate(itertools.zip_longest(ours, theirs), 1)
    return [Difference(number, a, b, _is_last_digit(a, b)) for number, (a, b) in pairs if a != b]


def _in_process(options: Sequence[str], script: Path, arguments: Sequence[str]) -> tuple[int, float, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        seconds = Path(folder, "seconds")
        command = [sys.executable, "-m", "fastbp", "run", *options, "--seconds", str(seconds), str(script), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
            try:
                printed, _ = process.communicate()
            except BaseException:
                process.terminate()
                raise
        if process.returncode == 130:
            raise KeyboardInterrupt
        took = float(seconds.read_text()) if seconds.exists() else float("nan")
    return process.returncode, took, printed.splitlines()


def _is_last_digit(a: str | None, b: str | None) -> bool:
    if a is None or b is None or _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    return all(_are_close(x, y) for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True))


def _are_close(x: str, y: str) -> bool:
    if x == y:
        return True
    if not any(mark in x + y for mark in ".eE"):
        return False  # a whole number is no rounded one
    largest = np.float32(max(abs(float(x)), abs(float(y))))
    return abs(float(x) - float(y)) <= float(np.spacing(largest))


def _told(what: str, found: Difference) -> list[str]:
    return [f"{what}: {found.line}", f"  fastbp  {found.fastbp}", f"  NumPy   {found.numpy}"]
