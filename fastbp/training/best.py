"""Early stopping: a run keeps the parameters of its best epoch, and ends after too many epochs without a better one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.checks import Array
from fastbp.ops.contract import set_state, state_of
from fastbp.training.given import check_writeable
from fastbp.training.protocol import Network


class Best:
    """The lowest `value` of a column, the number of epochs `since`, and copies of the parameters of that epoch.

    `statistics` are the running means and variances of that epoch.

    Without `patience` it keeps nothing.
    """

    def __init__(self, network: Network, patience: int | None, column: str) -> None:
        self._network, self._patience, self._column = network, patience, column
        self.value, self.since = np.inf, 0
        self.params: dict[str, Array] = {}
        self.statistics: dict[tuple[int, str], Array] = {}

    def note(self, row: dict[str, Any]) -> None:
        """Take note of an epoch."""
        if self._patience is None:
            return
        self.since += 1
        if row[self._column] < self.value:
            self.value, self.since = row[self._column], 0
            self.params = {key: value.copy() for key, value in self._network.params.items()}
            self.statistics = array_state(self._network)

    def is_over(self) -> bool:
        """Whether the run has waited long enough for a better epoch."""
        return self._patience is not None and self.since >= self._patience

    def restore(self) -> None:
        """Put the parameters of the best epoch back into the network."""
        if not self.params:
            return
        best = {key: value.shape for key, value in self.params.items()}
        shapes = {key: value.shape for key, value in self._network.params.items()}
        if shapes != best:
            raise ValueError(
                f"patience: expected the shapes of the best epoch, {best}, to put its parameters back, got {shapes}; "
                f"leave patience out where a callback changes the shapes"
            )
        check_writeable(self._network.params)
        for key, value in self.params.items():
            self._network.params[key][...] = value
        set_state(self._network.layers.values(), self.statistics)


def array_state(network: Network) -> dict[tuple[int, str], Array]:
    """The arrays that training changes in layers beside their parameters, such as running means."""
    state = state_of(network.layers.values())
    return {place: value for place, value in state.items() if isinstance(value, np.ndarray)}
