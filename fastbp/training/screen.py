"""What stands on the screen while somebody waits: how wide it may be, and the word that kernels compile."""

from __future__ import annotations

import functools
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from numba.core import event

from fastbp.runtime.cache import cache_folder

P = ParamSpec("P")
Result = TypeVar("Result")


def is_live() -> bool:
    """Whether lines on stderr can be drawn again: on a terminal and in a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel.")


def columns() -> int:
    """How wide a line on stderr may be: that of the terminal, at most 80; one column stays free."""
    return min(80, shutil.get_terminal_size().columns) - 1


class _Compiling(event.Listener):  # type: ignore[misc]
    """Counts the kernels that compile, and says so on stderr from the first one on."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._depth, self._start = 0, 0.0
        self._is_live, self._is_said = is_live(), False
        self._once = ", once" if _is_kept() else ""

    def on_start(self, event: Any) -> None:  # noqa: ARG002
        if not self._depth:
            self._start = time.perf_counter()
        self._depth += 1
        self._say()

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        self._depth -= 1
        self.count += 1
        if self._depth:
            self._say()
            return
        self.seconds += time.perf_counter() - self._start
        if self._is_live:
            self._write("\r" + " " * (columns() - 1) + "\r")

    def _say(self) -> None:
        if self._is_live:
            seconds = self.seconds + time.perf_counter() - self._start
            self._write(f"\rcompiling kernels{self._once}: {self.count} done, {seconds:.0f} s")
        elif not self._is_said:
            self._write(f"compiling kernels{self._once}\n")
        self._is_said = True

    def finish(self) -> None:
        if self.count:
            later = "; later runs load them" if self._once else ""
            self._write(f"{self.count} kernel{'s' * (self.count > 1)} compiled in {self.seconds:.1f} s{later}\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _is_kept() -> bool:
    """Whether compiled kernels are kept for later runs."""
    try:
        return cache_folder().is_dir()
    except PermissionError:
        return False


_is_telling = False


@contextmanager
def told_of_compiling(is_wanted: bool | None) -> Iterator[None]:
    """Say on stderr that kernels compile where some do, and how far that is, in the body of a `with` statement.

    It is one word for all that happens in the outermost such body.

    Parameters
    ----------
    is_wanted : bool or None
        None: where the line can be drawn again.
    """
    global _is_telling
    if _is_telling or not (is_live() if is_wanted is None else is_wanted):
        yield
        return
    listener, _is_telling = _Compiling(), True
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
        _is_telling = False
        listener.finish()


def tells_of_compiling(function: Callable[P, Result]) -> Callable[P, Result]:
    """A function that says that kernels compile, unless it is called with verbose=False. A decorator."""

    @functools.wraps(function)
    def telling(*args: P.args, **settings: P.kwargs) -> Result:
        with told_of_compiling(settings.get("verbose")):  # type: ignore[arg-type]
            return function(*args, **settings)

    return telling
