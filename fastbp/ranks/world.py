"""The ranks that a program was started as, by `mpiexec -n 4 program`."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from fastbp.extras import require

Value = TypeVar("Value")

# Variables that the starters of MPICH and Intel MPI, of Open MPI, and of others set.
_SET_BY_STARTERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK")


def world() -> Any:
    """The communicator of all ranks of this program; None for a program that no MPI started.

    Raises
    ------
    ImportError
        If an MPI started it, and mpi4py is not installed.
    """
    return require("mpi4py.MPI").COMM_WORLD if any(name in os.environ for name in _SET_BY_STARTERS) else None


def found() -> str:
    """The MPI that `fit` would use, in words."""
    try:
        mpi = require("mpi4py.MPI") if _is_loaded_for_ranks() else _loaded_alone()
    except (ImportError, RuntimeError) as error:  # mpi4py without an MPI raises RuntimeError
        return f"none ({str(error).splitlines()[0]})"
    library = " ".join(mpi.Get_library_version().strip("\0").splitlines()[0].split())
    return f"{library}, mpi4py {importlib.metadata.version('mpi4py')}"


def _is_loaded_for_ranks() -> bool:
    return "mpi4py.MPI" in sys.modules or any(name in os.environ for name in _SET_BY_STARTERS)


def _loaded_alone() -> Any:
    """mpi4py, which does not start MPI: that may take seconds on a cluster."""
    require("mpi4py").rc.initialize = False
    return require("mpi4py.MPI")


@contextmanager
def first_speaks(comm: Any) -> Iterator[None]:
    """Only the first rank prints to stdout in the body of a `with` statement."""
    if comm is None or comm.rank == 0:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def in_turn(comm: Any, load: Callable[[], Value]) -> Value:
    """What `load` returns, which the first rank calls before the others do: it may download what they find then."""
    if comm is None:
        return load()
    value, error = None, None
    if comm.rank == 0:
        try:
            value = load()
        except (ImportError, OSError, ValueError) as failure:
            error = failure
    told = comm.bcast(error)
    if told is not None:
        raise told
    return load() if value is None else value
