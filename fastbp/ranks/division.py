"""A step of training that is divided among ranks.

A rank takes its rows of the batch through all layers, and its rows of every weight matrix through their gradient and
their update. Between the two, dense layers need inputs and deltas of all samples: a rank gets all deltas, and of the
inputs the columns that its rows of W multiply. Layers that form sums over groups of samples need those sums instead:
a rank has whole groups, and who owns parameters adds the sums of all groups in their order. Nothing is added on the
way, so no bit depends on the number of ranks. After the update every rank gets all parameters. The optimizer's state
and running statistics stay with the owner until somebody looks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastbp.checks import Array
from fastbp.engine import steps
from fastbp.ops import state
from fastbp.ops.state import LANES, PENALTY
from fastbp.ranks.exchange import Block, Exchange, Scattered, Segment, Shared, begin, block, end
from fastbp.ranks.messages import Messages
from fastbp.ranks.shards import Need, Shards
from fastbp.runtime.gemm.multiply import ROW_GRAIN
from fastbp.runtime.groups import group_size


class Divided:
    """The division of a network among the ranks of `messages`.

    `edges` are where the samples of each rank begin, and where those of the last one end; None where each has all.
    """

    def __init__(self, messages: Messages, network: state.Network, edges: Array | None = None) -> None:
        self._messages, self._network = messages, network
        batch_size = len(network.sample_losses)
        self._shards = None if edges is None else Shards(messages, edges, batch_size)
        self._moves: dict[int, _Moves] = {}
        rows = network.layers
        # A small network whose samples lie in lanes is trained whole by each rank: its step takes some 20 µs.
        self.is_whole = bool(np.any((rows[:, state.LAYOUT] == LANES) & _reads_samples(rows)))
        parameters = [] if self.is_whole else [*self._parameters(network.params)]
        large = [] if self.is_whole else [number for number, row in enumerate(rows) if self._is_large(row)]
        # What is large travels while the next layers are computed: 0.96 of a step of 784-1024-10 with batch 1024 on two
        # ranks. With more messages a step of 784-50-10 would take 1.05 times as long.
        self._updates = [(number, self._exchange_of(rows[number])) for number in large]
        ends = [-1, *large, len(rows)]
        self._ranges = [(before + 1, after) for before, after in itertools.pairwise(ends) if before + 1 < after]
        places = {int(rows[number, state.W_AT]) for number in large}
        parameters = [segment for segment in parameters if int(segment.edges[0]) not in places]
        self._parameters_moved = Shared(messages, parameters)
        squares = [] if self.is_whole else [*self._squares()]
        self._penalized_moved = Shared(messages, [*parameters, *squares])
        kept = (piece for slot in network.slots for piece in self._parameters(slot))
        self._kept = Shared(messages, [] if self.is_whole else [*kept, *self._running()])

    def own(self, place: int, size: int) -> slice:
        """Which of `size` parameters from `place` on this rank updates."""
        if self.is_whole:
            return slice(place, place + size)
        rank = self._messages.rank
        all_edges = (edges for _, edges in self._parameters(self._network.params))
        edges = next(edges for edges in all_edges if (edges[0], edges[-1]) == (place, place + size))
        return slice(int(edges[rank]), int(edges[rank + 1]))

    def complete(self) -> None:
        """Bring the optimizer's state and running statistics to all ranks."""
        if not self.is_whole:
            self._move([self._kept])

    def run(
        self, team: Array, network: state.Network, data: steps.Data, order: Array, batch_size: int, first: int,
        last: int, coefficients: Array, losses: Array, hits: Array, penalties: Array, continue_on_nan: bool,
    ) -> int:  # fmt: skip
        """`fastbp.engine.steps.run_steps`, by all ranks."""
        if self.is_whole and (self._shards is None or first == last):
            given = data, order, batch_size, first, last, coefficients, losses, hits, penalties, continue_on_nan
            return int(steps.run_steps(team.ctypes.data, network, *given))
        if first == last:
            self._compile(team, network, data, order[:0])
        for step in range(first, last):
            places = slice(step * batch_size, (step + 1) * batch_size)
            batch, samples = self._brought(data._replace(sample_shares=data.sample_shares[places]), order[places])
            if self.is_whole:
                this = slice(step, step + 1)
                results = losses[this], hits[this], penalties[this], continue_on_nan
                if not steps.run_steps(
                    team.ctypes.data, network, batch, samples, len(samples), 0, 1, coefficients[this], *results
                ):
                    return step - first
                continue
            self._samples(team, network, batch, samples)
            count = 1 if len(batch.sample_shares) else len(samples)
            losses[step], hits[step] = steps.results_of_step(network, count)
            if not continue_on_nan and not np.isfinite(losses[step]):
                network.counters[:] -= 1
                return step - first
            self._weights(team, network, coefficients[step])
            if coefficients[step, PENALTY] != 0:
                penalties[step] = coefficients[step, PENALTY] / 2 * steps.sum_of_squares(network)
        return last - first

    def _brought(self, data: steps.Data, samples: Array) -> tuple[steps.Data, Array]:
        """Data with what this rank needs of these samples, and their numbers there."""
        N = len(samples)
        if self._shards is None:
            return data, samples
        needs = [Need(0, N, 0, 0)] * self._messages.size if self.is_whole else self._moves_of(N).needs
        return self._shards.fetch(data, samples, needs), np.arange(N)

    def _moves_of(self, N: int) -> _Moves:
        if N not in self._moves:
            self._moves[N] = _Moves(self._messages, self._network, N)
        return self._moves[N]

    def _samples(self, team: Array, network: state.Network, data: steps.Data, samples: Array) -> None:
        """The regions of samples, and what the weights need of them."""
        moves, threads = self._moves_of(len(samples)), team.ctypes.data
        i0, i1 = moves.rows
        steps.begin_step(network, data, samples)
        for region in range(len(network.regions)):
            steps.samples_of_rank(threads, network, data, samples, data.sample_shares, region, i0, i1)
            self._move(moves.after(region))
        exchanges = moves.before_weights
        requests = begin(exchanges)
        if moves.inputs is not None:
            steps.inputs_of_others(threads, network, data, samples, i0, i1, *moves.inputs)
        end(self._messages, exchanges, requests)

    def _weights(self, team: Array, network: state.Network, coefficients: Array) -> None:
        rank, ranks, requests = self._messages.rank, self._messages.size, []
        for number, exchange in self._updates:
            steps.weights_of_rank(team.ctypes.data, network, number, number + 1, rank, ranks, coefficients)
            requests += exchange.begin()
        for first, last in self._ranges:
            steps.weights_of_rank(team.ctypes.data, network, first, last, rank, ranks, coefficients)
        others = self._penalized_moved if coefficients[PENALTY] != 0 else self._parameters_moved
        requests += others.begin()
        end(self._messages, [*(exchange for _, exchange in self._updates), others], requests)

    def _move(self, exchanges: list[Exchange]) -> None:
        end(self._messages, exchanges, begin(exchanges))

    def _compile(self, team: Array, network: state.Network, data: steps.Data, samples: Array) -> None:
        """Compile what steps need."""
        threads, shares = team.ctypes.data, data.sample_shares[:0]
        steps.begin_step(network, data, samples)
        network.counters[:] -= 1
        steps.samples_of_rank(threads, network, data, samples, shares, 0, 0, 0)
        if _gathers_inputs(network):
            steps.inputs_of_others(threads, network, data, samples, 0, 0, 0, 0)
        steps.weights_of_rank(threads, network, 0, 0, 0, 1, np.zeros(2 * state.COEFFICIENTS))
        steps.results_of_step(network, 1)
        steps.sum_of_squares(network)

    def traffic(self, N: int) -> list[tuple[int, int]]:
        """Of a step with N samples: the messages and the bytes that come to this rank, each time that it waits."""
        if self.is_whole:
            return []
        moves = self._moves_of(N)
        waits = [*(moves.after(region) for region in range(len(self._network.regions))), moves.before_weights]
        updates: list[Exchange] = [*(exchange for _, exchange in self._updates), self._parameters_moved]
        waits = [*(wait for wait in waits if wait), updates]
        return [(sum(each.messages for each in wait), sum(each.received for each in wait)) for wait in waits]

    # Who has what. All of it lies rank by rank.

    def _parameters(self, flat: Array) -> Iterator[Segment]:
        """The slices of parameters, in one of the vectors that have a number for each."""
        for row in self._network.layers:
            if row[state.GRADIENT]:
                edges = slices_of(row, self._messages.size)
                yield self._weights_of(row, flat)
                if row[state.B_SIZE]:
                    yield Segment(flat, row[state.B_AT] + _of_first(edges) * row[state.B_SIZE])

    def _weights_of(self, row: Array, flat: Array) -> Segment:
        return Segment(flat, row[state.W_AT] + slices_of(row, self._messages.size) * row[state.W_WIDTH])

    def _exchange_of(self, row: Array) -> Shared:
        return Shared(self._messages, [self._weights_of(row, self._network.params)])

    def _is_large(self, row: Array) -> bool:
        """Whether W of a row of the table is large enough to travel alone."""
        return bool(row[state.GRADIENT]) and self._weights_of(row, self._network.params).is_large

    def _squares(self) -> Iterator[Segment]:
        for row in self._network.layers:
            if row[state.GRADIENT]:
                edges = slices_of(row, self._messages.size)
                grains = -(-edges // ROW_GRAIN)
                yield Segment(self._network.squares, row[state.SQUARES_AT] + grains)
                if row[state.B_SIZE] and row[state.B_GIVEN_AT] == 0:
                    yield Segment(self._network.squares, row[state.SQUARES_AT] + grains[-1] + _of_first(edges))

    def _running(self) -> Iterator[Segment]:
        for row in self._network.layers:
            if row[state.STATISTICS]:
                edges = _of_first(slices_of(row, self._messages.size))
                yield Segment(self._network.running, row[state.RUNNING_AT] + edges * 2 * row[state.W_ROWS])


class _Moves:
    """What moves in a step with N samples.

    Attributes
    ----------
    rows : (int, int)
        The rows of the batch that are this rank's.
    inputs : (int, int) or None
        The columns of the inputs of the first layer that it gathers for the samples of others.
    before_weights : list of exchanges
    needs : list of Need
        What each rank needs of the samples, where it does not hold all.
    """

    def __init__(self, messages: Messages, network: state.Network, N: int) -> None:
        self._messages, self._network = messages, network
        self._size, self._rows = group_size(N), rows_of(network, N, messages.size)
        self.rows = self._of_rank(self._rows)
        self.needs = [self._need(rank) for rank in range(messages.size)]
        self._backward = self._ends_backward()
        whole = {**self._ends_forward(), **self._backward}
        self._after: dict[int, list[Exchange]] = {k: [Shared(messages, [self._sums(row)])] for k, row in whole.items()}
        layers = range(len(network.layers))
        self.inputs = self._columns(messages.rank) if _gathers_inputs(network) else None
        results = [Segment(each, self._rows) for each in (network.sample_losses, network.sample_hits)]
        deltas = [self._deltas(row) for row in layers if _reads_samples(network.layers[row : row + 1])[0]]
        scattered = [[[*self._needed(of, to)] for of, to in pairs] for pairs in self._pairs()]
        self.before_weights: list[Exchange] = [Shared(messages, [*results, *deltas])]
        if any(_reads_samples(network.layers[1:])) or self._unknown_sums():
            self.before_weights.append(Scattered(messages, *scattered))

    def after(self, region: int) -> list[Exchange]:
        """What moves after a region."""
        return self._after.get(region, [])

    def _need(self, rank: int) -> Need:
        (first, last), (begin, end) = self._rows[rank : rank + 2], self._columns(rank)
        return Need(int(first), int(last), begin, end)

    def _columns(self, rank: int) -> tuple[int, int]:
        """Which columns of x a rank reads of the rows of others."""
        row = self._network.layers[0]
        if self._network.takes_indices:
            return 0, int(row[state.D_IN])
        first, last = slices_of(row, self._messages.size)[rank : rank + 2]
        return (int(first), int(last)) if _gathers_inputs(self._network) else (0, 0)

    def _of_rank(self, edges: Array) -> tuple[int, int]:
        return int(edges[self._messages.rank]), int(edges[self._messages.rank + 1])

    def _pairs(self) -> Iterator[list[tuple[int, int]]]:
        """Who gives to whom: this rank to each other one, and each other one to this rank."""
        rank, ranks = self._messages.rank, range(self._messages.size)
        yield [(rank, other) for other in ranks]
        yield [(other, rank) for other in ranks]

    def _ends_forward(self) -> dict[int, int]:
        """The rows that need statistics of the whole batch, by the region that ends with those of slices."""
        layers, regions = self._network.layers, self._network.regions
        rows = {region: int(row) for region, row in enumerate(regions[:, steps.FORWARD_TO]) if row < len(layers)}
        return {region: row for region, row in rows.items() if layers[row, state.STATISTICS]}

    def _ends_backward(self) -> dict[int, int]:
        """The same for the sums of their gradients."""
        found, layers = {}, self._network.layers
        for region, given in enumerate(self._network.regions):
            rows = range(given[steps.BACKWARD_FROM], given[steps.BACKWARD_TO] - 1, -1)
            ends = [row for row in rows if layers[row, state.STATISTICS] and row <= given[steps.SUMS_FROM]]
            if ends:
                found[region] = ends[0]
        return found

    def _sums(self, number: int) -> Segment:
        """The sums of slices of a row of the table."""
        row = self._network.layers[number]
        return Segment(self._network.sums, row[state.SUMS_AT] + self._groups() * row[state.SUMS_SIZE])

    def _groups(self) -> Array:
        """Which groups of samples are whose."""
        edges: Array = -(-self._rows // self._size)
        return edges

    def _deltas(self, number: int) -> Segment:
        row = self._network.layers[number]
        return Segment(self._network.workspace, row[state.DELTA] + self._rows * row[state.M_OUT])

    def _unknown_sums(self) -> list[int]:
        """The rows with sums that no exchange between regions has brought to all."""
        known, layers = self._backward.values(), self._network.layers
        return [row for row in range(len(layers)) if layers[row, state.SUMS] and row not in known]

    def _needed(self, of: int, to: int) -> Iterator[Block]:
        """What one rank needs of another one for its parameters."""
        if of == to:
            return
        network, (i0, i1) = self._network, self._rows[of : of + 2]
        for number, row in enumerate(network.layers):
            edges = slices_of(row, self._messages.size)
            c0, c1 = edges[to : to + 2]
            if number and _reads_samples(row[np.newaxis])[0] and c0 < c1 and i0 < i1:
                D = row[state.D_IN]
                yield block(network.workspace, row[state.H_IN] + i0 * D + c0, c1 - c0, i1 - i0, D)
        for number in self._unknown_sums():
            row = network.layers[number]
            g0, g1 = self._groups()[of : of + 2]
            edges, size = slices_of(row, self._messages.size), row[state.SUMS_SIZE]
            (c0, c1), begin = edges[to : to + 2] * row[state.W_WIDTH], row[state.SUMS_AT] + g0 * size
            weights = row[state.W_ROWS] * row[state.W_WIDTH]
            if g0 < g1 and c0 < c1:
                yield block(network.sums, begin + c0, c1 - c0, g1 - g0, size)
            if g0 < g1 and np.diff(_of_first(edges))[to]:
                yield block(network.sums, begin + weights, row[state.B_SIZE], g1 - g0, size)


def edges_of(size: int, grain: int, ranks: int) -> Array:
    """Where the share of each rank of `size` begins, at multiples of `grain`, and where the last one ends.

    They are the `fastbp.runtime.gemm.multiply.boundary` of a rank's first thread, however many threads it has.
    """
    edges = np.minimum(size, (size * np.arange(ranks + 1) // ranks + grain // 2) // grain * grain)
    edges[-1] = size
    return edges


def rows_of(network: state.Network, N: int, ranks: int) -> Array:
    """Which rows of a batch of N are whose: whole groups where a layer forms sums over them."""
    is_sliced = bool(network.regions[:, steps.IS_SLICED].any())
    return edges_of(N, group_size(N) if is_sliced else ROW_GRAIN, ranks)


def slices_of(row: Array, ranks: int) -> Array:
    """Which rows of W are whose."""
    return edges_of(int(row[state.W_ROWS]), ROW_GRAIN, ranks)


def _of_first(edges: Array) -> Array:
    """The edges of something single that the owner of the first row has: the first rank where there is no row."""
    owner = int(np.flatnonzero(np.diff(edges))[0]) if edges[-1] else 0
    return (np.arange(len(edges)) > owner).astype(np.intp)


def _reads_samples(rows: Array) -> Any:
    """Whether a row of the table reads inputs and deltas of all samples for its gradient."""
    return (rows[:, state.GRADIENT] != 0) & (rows[:, state.SUMS] == 0)


def _gathers_inputs(network: state.Network) -> bool:
    """Whether the first row of the table does, of inputs that every rank can take from x."""
    return bool(_reads_samples(network.layers[:1])[0]) and not network.takes_indices
