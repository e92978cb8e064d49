"""Ctrl-C in the course of a run: it waits until what a step changes is whole."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds that a user's own layer may go on after Ctrl-C before a further one abandons its step.
PATIENCE = 1.0


class Abandoned(KeyboardInterrupt):
    """Raised in a step that does not come to its end, whose results are then not used."""


class Interrupts:
    """Holds SIGINT back in a `with` statement, but where `deliver` or `let_through` says that all is whole.

    Where SIGINT is let through, nothing may be left to be done: a second one can cut short what the first one began.
    In another thread than the main one, and where no function of Python's waits for SIGINT, nothing is held back.

    Attributes
    ----------
    noted : int
        How many signals are held back.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._since = 0.0
        self._may_abandon = self._is_entered = False

    def __enter__(self) -> Interrupts:
        self._is_entered = True
        self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_entered = False
        self._release()

    def deliver(self) -> None:
        """Give the signals that are held back to their handler, whose error, if any, goes on from here."""
        if self.noted:
            self._release()
            self._hold()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Hold nothing back in the body of a `with` statement."""
        self._release()
        try:
            yield
        finally:
            self._hold()

    @contextmanager
    def abandoning(self) -> Iterator[None]:
        """Raise `Abandoned` in the body at a signal that comes long after another one, for which it still waits."""
        self._may_abandon = True
        try:
            yield
        finally:
            self._may_abandon = False

    def _hold(self) -> None:
        self.noted = 0
        handler = signal.getsignal(signal.SIGINT)
        if not self._is_entered:
            return
        if not callable(handler) or threading.current_thread() is not threading.main_thread():
            return
        try:
            signal.signal(signal.SIGINT, self._note)
        except ValueError:  # in an interpreter beside the main one
            return
        self._handler = handler

    def _release(self) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        if signal.getsignal(signal.SIGINT) == self._note:  # else someone has set another one meanwhile
            signal.signal(signal.SIGINT, handler)
        noted, self.noted = self.noted, 0
        for _ in range(noted):
            handler(signal.SIGINT, sys._getframe())

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.noted += 1
        if self.noted == 1:
            self._since = time.monotonic()
        elif self._may_abandon and time.monotonic() - self._since >= PATIENCE:
            self._may_abandon = False
            raise Abandoned
