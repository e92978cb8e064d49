"""Ctrl-C during a run: it waits for the end of a step."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds after a first Ctrl-C before a second one abandons the step of a user's own layer.
PATIENCE = 1.0


class Abandoned(KeyboardInterrupt):
    """Raised in a step that does not come to its end. Its results are not used."""


class Interrupts:
    """Holds SIGINT back in a `with` statement, except where `deliver` or `let_through` is called.

    Call these only where nothing is left to be done: a second SIGINT can cut short what the first one began. Nothing is
    held back in another thread than the main one, and where SIGINT has no handler in Python.

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
        """Call the handler for each signal that was held back; its error, if any, is raised here."""
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
        """Raise `Abandoned` in the body at a signal that comes long after the first one held back."""
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
        if signal.getsignal(signal.SIGINT) == self._note:  # else someone has set another handler meanwhile
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


class Interruptible:
    """A run of steps that is interrupted between two of them. It is ahead of what it trains until `write`.

    Attributes
    ----------
    interrupts : Interrupts
        Enter them before the first step.
    """

    def __init__(self) -> None:
        self.interrupts = Interrupts()

    def write(self) -> None:
        """Bring what is trained up to date with the finished steps."""
        raise NotImplementedError

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let others look at what is trained after this step, change it and interrupt, in a `with` statement."""
        self.write()
        with self.interrupts.let_through():
            yield

    @contextmanager
    def written_at_the_end(self) -> Iterator[None]:
        """Bring what is trained up to date at the end of a `with` statement, also after an error."""
        try:
            yield
        finally:
            self.write()

    def look_at_interrupts(self) -> None:
        """Deliver Ctrl-C, if there was one, now that a step is finished."""
        if self.interrupts.noted:
            self.write()
            self.interrupts.deliver()
