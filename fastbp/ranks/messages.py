"""How ranks talk to each other. None waits for one that has failed: it hears of the error while it waits."""

from __future__ import annotations

import functools
import os
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastbp.checks import Array
from fastbp.extras import require

# Of messages that a rank sends to all others when it fails.
_FAILURE = 1

# Seconds of waiting until a rank looks for a failure of another one, and until it sleeps between two looks.
_LOOK, _SLEEP = 0.002, 0.02
_NAP = 0.0002

_give_way = getattr(os, "sched_yield", lambda: time.sleep(0))


class Messages:
    """A communicator of fastbp's own, with the ranks of a given one.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Every rank makes its object at the same time.

    Attributes
    ----------
    rank, size : int
        This rank, and how many there are.
    seconds : float
        Spent waiting for others and moving bytes.
    is_broken : bool
        Whether a rank has failed, so that nothing can be moved any more.

    Raises
    ------
    ImportError
        If mpi4py is not installed.
    TypeError
        If `comm` is no such communicator.
    ValueError
        If this process is none of its ranks.
    """

    def __init__(self, comm: Any) -> None:
        self._mpi = require("mpi4py.MPI")
        if not isinstance(comm, self._mpi.Intracomm) and comm != self._mpi.COMM_NULL:
            raise TypeError(
                f"comm: expected a communicator of mpi4py, got {type(comm).__name__}; pass MPI.COMM_WORLD, or leave it "
                f"out"
            )
        if comm == self._mpi.COMM_NULL:
            raise ValueError(
                "comm: expected a communicator that this process is a rank of, got MPI.COMM_NULL, which those get that "
                "Split or Create left out; call fit only where comm != MPI.COMM_NULL"
            )
        self._comm = comm.Dup()
        self.rank, self.size = int(comm.rank), int(comm.size)
        self.seconds = 0.0
        self.is_broken = False

    def free(self) -> None:
        """Free the communicator. After a failure it is left: others may still wait for something in it."""
        if not self.is_broken:
            self._comm.Free()

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks of an error, so that none waits for this one."""
        if self.is_broken:
            return
        self.is_broken = True
        try:
            said = str(error)
        except Exception:  # the other ranks must hear of it all the same
            said = "an error that cannot be said"
        message = np.frombuffer(f"{type(error).__name__}: {said}".encode(), np.uint8)
        others = (rank for rank in range(self.size) if rank != self.rank)
        requests = [self._comm.Isend([message, self._mpi.BYTE], rank, _FAILURE) for rank in others]
        self._mpi.Request.Waitall(requests)

    def exchange(self, value: object) -> list[Any]:
        """The values of all ranks, in their order."""
        mine = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = len(mine)
        self.wait([self._comm.Iallgather(self._mpi.IN_PLACE, [sizes, self._mpi.INT64_T])])
        ends = np.cumsum(sizes)
        data = np.empty(ends[-1], np.uint8)
        data[ends[self.rank] - len(mine) : ends[self.rank]] = mine
        self.wait([self.sharing(data, sizes)()])
        return [pickle.loads(data[end - size : end].tobytes()) for end, size in zip(ends, sizes, strict=True)]

    def sharing(self, data: Array, sizes: Array) -> Callable[[], Any]:
        """A function that begins to complete bytes that lie rank by rank, where each rank has its own.

        It returns the request to wait for.
        """
        told = [data, (sizes, np.cumsum(sizes) - sizes), self._mpi.BYTE]
        return functools.partial(self._comm.Iallgatherv, self._mpi.IN_PLACE, told)

    def scattering(self, given: Array, to: Array, taken: Array, from_: Array) -> Callable[[], Any]:
        """The same for sending bytes that lie rank by rank in `given`, as many as `to` says, and for taking such."""
        sent = [given, (to, np.cumsum(to) - to), self._mpi.BYTE]
        return functools.partial(
            self._comm.Ialltoallv, sent, [taken, (from_, np.cumsum(from_) - from_), self._mpi.BYTE]
        )

    def wait(self, requests: Sequence[Any]) -> None:
        """Wait for requests.

        Raises
        ------
        RuntimeError
            If another rank fails meanwhile, with its message.
        """
        began = time.perf_counter()
        look_at = began + _LOOK
        while not self._mpi.Request.Testall(requests):
            now = time.perf_counter()
            if now >= look_at:
                self._raise_failure()
                look_at = now + _LOOK
            if now - began >= _SLEEP:
                time.sleep(_NAP)
            else:
                _give_way()
        self.seconds += time.perf_counter() - began

    def _raise_failure(self) -> None:
        status = self._mpi.Status()
        if not self._comm.Iprobe(self._mpi.ANY_SOURCE, _FAILURE, status):
            return
        self.is_broken = True
        message = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        self._comm.Recv([message, self._mpi.BYTE], status.Get_source(), _FAILURE)
        raise failed(status.Get_source(), message.tobytes().decode())


def failed(rank: int, what: str) -> RuntimeError:
    """The error of the other ranks where one has failed."""
    return RuntimeError(f"rank {rank}: expected no error, got {what}; mend it on that rank, and start all again")
