"""What `fit` asks of the processes that train together: to agree, to stop together, to divide the steps."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from fastbp.checks import Array
from fastbp.engine import plan
from fastbp.ops import state
from fastbp.ranks.division import Divided
from fastbp.ranks.messages import Messages, failed
from fastbp.runtime.cores import available_cores, cores_of_process

Value = TypeVar("Value")


class Company(Protocol):
    """One process, or several.

    Attributes
    ----------
    rank, size : int
    is_broken : bool
        Whether one of them has failed in the midst of a step, so that nothing is known of the parameters.
    """

    rank: int
    size: int

    @property
    def is_broken(self) -> bool: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: TracebackType | None) -> None: ...

    def divide(self, network: state.Network, edges: Array | None) -> plan.Division:
        """How the steps are divided. `edges` are where the samples of each rank begin; None: all have all."""

    def gather(self, value: Value) -> list[Value]:
        """What each rank gave."""

    def threads(self, count: int) -> int:
        """How many of as many threads as there may be this process should take."""

    def first(self, value: Value) -> Value:
        """What the first rank gave."""

    def any(self, is_so: bool) -> bool:
        """Whether it is so on a rank."""

    def check(self, describe: Callable[[], Mapping[str, object]], remedy: str = ...) -> None:
        """Raise `ValueError` where what `describe` returns by name is not the same on every rank; it names them."""

    def tell(self, error: BaseException) -> None:
        """Tell the others of an error, unless it is one of all."""

    def together(self) -> Any:
        """End the body of a `with` statement on all ranks alike: with an error where there was one on any of them."""


class Alone:
    """A process that trains alone."""

    rank, size, is_broken = 0, 1, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: TracebackType | None) -> None:
        pass

    def divide(self, network: state.Network, edges: Array | None) -> plan.Division:
        return plan.alone(network)

    def gather(self, value: Value) -> list[Value]:
        return [value]

    def threads(self, count: int) -> int:
        return count

    def first(self, value: Value) -> Value:
        return value

    def any(self, is_so: bool) -> bool:
        return is_so

    def check(self, describe: Callable[[], Mapping[str, object]], remedy: str = "") -> None:
        pass

    def tell(self, error: BaseException) -> None:
        pass

    @contextmanager
    def together(self) -> Iterator[None]:
        yield


class Ranks:
    """The ranks of a communicator of mpi4py. An error that leaves the `with` statement of one ends all.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
    requests : tuple of exception classes
        What ends the work of all ranks as it is; of another error of one the others say whose it was.
    """

    def __init__(self, comm: Any, requests: tuple[type[BaseException], ...]) -> None:
        self._messages, self._requests = Messages(comm), requests
        self.rank, self.size = self._messages.rank, self._messages.size
        self._known: BaseException | None = None
        # Those of one machine that may run on the same cores have a share of the threads each, unless their user chose.
        places = self._messages.exchange((platform.node(), cores_of_process()))
        machine, cores = places[self.rank]
        self._sharing = sum(other == machine and not cores.isdisjoint(theirs) for other, theirs in places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            self.tell(error)
        self._messages.free()

    @property
    def is_broken(self) -> bool:
        return self._messages.is_broken

    def divide(self, network: state.Network, edges: Array | None) -> plan.Division:
        return Divided(self._messages, network, edges) if self.size > 1 else plan.alone(network)

    def gather(self, value: Value) -> list[Value]:
        return self._messages.exchange(value)

    def threads(self, count: int) -> int:
        return count if count != available_cores() else max(1, count // self._sharing)

    def first(self, value: Value) -> Value:
        found: Value = self._messages.exchange(value if self.rank == 0 else None)[0]
        return found

    def any(self, is_so: bool) -> bool:
        return any(self._messages.exchange(is_so))

    def tell(self, error: BaseException) -> None:
        if error is not self._known and not isinstance(error, GeneratorExit):
            self._messages.fail(error)

    def check(self, describe: Callable[[], Mapping[str, object]], remedy: str = "give all ranks one") -> None:
        given = self._messages.exchange({name: str(value) for name, value in describe().items()})
        for name in dict.fromkeys(name for each in given for name in each):
            kinds: dict[str, list[int]] = {}
            for rank, each in enumerate(given):
                kinds.setdefault(each.get(name, "nothing"), []).append(rank)
            if len(kinds) > 1:
                got = ", ".join(f"{value} on {_named(ranks)}" for value, ranks in kinds.items())
                self._known = ValueError(f"{name}: expected the same on every rank, got {got}; {remedy}")
                raise self._known

    @contextmanager
    def together(self) -> Iterator[None]:
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        told = None if failure is None else (_request(failure, self._requests), type(failure).__name__, str(failure))
        all_told = self._messages.exchange(told)
        for rank, each in enumerate(all_told):
            if failure is None and each is not None:
                request, kind, message = each
                failure = request() if request else failed(rank, f"{kind}: {message}")
        if failure is not None:
            self._known = failure
            raise failure


def _request(error: BaseException, requests: tuple[type[BaseException], ...]) -> type[BaseException] | None:
    return next((kind for kind in requests if isinstance(error, kind)), None)


def _named(ranks: list[int]) -> str:
    *others, last = map(str, ranks)
    return f"ranks {', '.join(others)} and {last}" if others else f"rank {last}"
