"""A network in the form in which compiled code trains it: a table of its layers over one flat vector of parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from fastbp.checks import Array, DType, parameter, same_shape, same_state, whole_number
from fastbp.engine import steps
from fastbp.engine.table import Table
from fastbp.engine.thread_choice import choice_for
from fastbp.ops import state
from fastbp.ops.contract import LAYERS, OPTIMIZERS, Shape, only_reshapes, settings_of, takes_indices
from fastbp.ops.state import COEFFICIENTS, PENALTY, WEIGHT_DECAY
from fastbp.runtime.gemm.multiply import ROW_GRAIN, address_of_multiply, scratch_for
from fastbp.runtime.gemm.stages import COUNT_STRIDE
from fastbp.runtime.groups import most_groups
from fastbp.runtime.threads import WORTH_A_REGION, most_parts, team
from fastbp.runtime.threads import start as start_threads

_LARGEST_WORD = 2**63 - 1


def unknown(layers: list[Any], loss: Any, optimizer: Any) -> list[str]:
    """Names of the classes that the engine does not know there, or of which an object was altered."""

    def is_known(part: Any) -> bool:
        record = LAYERS.get(type(part))
        return record is not None and (record.map is not None or record.activation is not None)

    losses = LAYERS.get(type(loss))
    parts = [part for part in layers if not is_known(part) or _is_altered(part)]
    if losses is None or losses.loss is None or _is_altered(loss):
        parts.append(loss)
    if type(optimizer) not in OPTIMIZERS or _is_altered(optimizer):
        parts.append(optimizer)
    names = {type(part).__name__ for part in parts}
    behind = [layer for layer in layers if not only_reshapes(layer)][1:]
    return sorted(names | {f"{type(layer).__name__} after another layer" for layer in behind if takes_indices([layer])})


def _is_altered(part: Any) -> bool:
    """Whether an object has a method of a step of its own."""
    return not {"forward", "backward", "backward_parameters", "update"}.isdisjoint(vars(part))


def own_words(layers: Iterable[Any], loss: Any) -> list[Any]:
    """What the plan takes from layers and loss beside arrays, checked. A change of it needs another plan."""
    words: list[Any] = []
    for layer in layers:
        record = LAYERS.get(type(layer))
        if record is None:
            continue
        if record.map is not None:
            words += [record.map.words(layer), record.map.scale(layer)]
        words.append(settings_of(record, layer))
    record = LAYERS.get(type(loss))
    if record is not None and record.loss is not None:
        words.append(record.loss.settings(loss, 0.0))
    return words


class Division(Protocol):
    """How the steps of a network are divided among processes, of which this is one."""

    def own(self, place: int, size: int) -> slice:
        """Which of `size` parameters from `place` on this process updates."""

    def complete(self) -> None:
        """Bring what others updated of the optimizer's state and of running statistics here."""

    def run(self, team: Array, network: state.Network, *arguments: Any) -> int:
        """`fastbp.engine.steps.run_steps`."""


class Alone:
    """One process does all."""

    def own(self, place: int, size: int) -> slice:
        """All."""
        return slice(place, place + size)

    def complete(self) -> None:
        """All is here."""

    def run(self, team: Array, network: state.Network, *arguments: Any) -> int:
        """`fastbp.engine.steps.run_steps`."""
        done: int = steps.run_steps(team.ctypes.data, network, *arguments)
        return done


def alone(network: state.Network) -> Division:
    """The division of a network that one process trains."""
    return Alone()


class Engine:
    """Trains the layers of a network on batches of up to `batch_size` samples of a shape, (D,) or (C, H, W).

    The parameters and the optimizer's state are copies, in one dtype: `read` takes them from their owners, `write`
    gives the parameters back in place, and makes what the engine trains the optimizer's state, without a copy. Where
    it `clips`, probabilities count in the loss as at least the dtype's eps and at most 1 - eps. At each call
    of `train` the engine asks `threads` how many threads may work at most, of those that `set_num_threads` allows; it
    takes fewer where that is faster. `divide` makes the division of the network, among processes.
    """

    def __init__(
        self,
        layers: list[Any],
        loss: Any,
        optimizer: Any,
        params: Mapping[str, Array],
        dtype: DType,
        shape: Shape,
        batch_size: int,
        *,
        clips: bool = False,
        threads: Callable[[], int] = most_parts,
        divide: Callable[[state.Network], Division] = alone,
    ) -> None:
        start_threads()
        self._threads = threads
        self._params, self._optimizer, self._update = params, optimizer, OPTIMIZERS[type(optimizer)]
        self._dtype, self._batch_size, self._layers = dtype, batch_size, layers
        record = LAYERS[type(loss)].loss
        if record is None:
            raise TypeError(f"loss: expected a loss of fastbp.layers, got {type(loss).__name__}; take one of these")
        eps = float(np.finfo(dtype).eps) if clips else 0.0
        self._losses, self._chosen = record.kernels(loss, eps), None
        plan = Table(layers, shape, batch_size, dtype, record.takes_lanes)
        self._places = dict(zip(params, plan.places, strict=True))
        self._counted, self._running = plan.counted, plan.running
        network = state.Network(
            multiply=address_of_multiply(dtype),
            loss=0,  # chosen when there are targets
            update=0,
            subtracts=int(self._update.subtracts),
            layers=plan.rows,
            counters=np.zeros(len(plan.rows), np.intp),
            scales=plan.scales,
            settings=plan.settings,
            params=np.zeros(plan.parameters.size, dtype),
            slots=np.zeros((len(self._update.state), plan.parameters.size), dtype),
            workspace=np.zeros(plan.work.size, dtype),
            **_memory_of_parts(plan, dtype, batch_size),
            labels=np.zeros(batch_size, np.intp),
            targets_at=plan.targets_at,
            sample_losses=np.zeros(batch_size),
            sample_hits=np.zeros(batch_size),
            loss_settings=np.array([*record.settings(loss, eps), 0.0]),
            loss_scratch=np.zeros((3, batch_size), dtype),
            ends_in_lanes=int(plan.ends_in_lanes),
            squares=np.zeros(plan.squares),
            batch=np.zeros(state.BATCH, np.intp),
            gathers=int(plan.gathers),
            takes_indices=int(plan.takes_indices),
            work=plan.work_of_sample,
            regions=plan.regions,
            sums=np.zeros(plan.sums.size, dtype),
            running=np.zeros(plan.statistics.size, dtype),
            counts=np.zeros((most_parts(), COUNT_STRIDE), np.intp),
        )
        plan.link(network)
        self._network = network._replace(update=state.address_of_update(self._update.step, network))
        self._division = divide(self._network)
        self._choice, self._is_compiled = choice_for((plan.key, batch_size, dtype)), False

    @property
    def flat(self) -> Array:
        """All parameters in one vector."""
        flat: Array = self._network.params
        return flat

    @property
    def states(self) -> Array:
        """The optimizer's state, a row like `flat` for each of its kinds."""
        states: Array = self._network.slots
        return states

    def index(self, keys: Iterable[str]) -> Array:
        """Where in `flat` the elements of these parameters lie, one after the other."""
        return np.concatenate([self._places[key] + np.arange(self._params[key].size) for key in keys])

    def read(self) -> None:
        """Take the parameters of the layers, the state of the optimizer and the counters of layers."""
        for key, place in self._places.items():
            value = self._params[key]
            self._network.params[place : place + value.size] = value.reshape(-1)
            for slot, name in zip(self._network.slots, self._update.state, strict=True):
                kept = (getattr(self._optimizer, name) or {}).get(key)
                if kept is not None:
                    same_state(f"params[{key!r}]", value, kept.shape, f"{name}[{key!r}]", self._optimizer)
                own = self._division.own(place, value.size)
                slot[own] = 0 if kept is None else kept.reshape(-1)[own.start - place : own.stop - place]
        for row, layer, name in self._counted:
            given = whole_number(name, getattr(layer, name), 0, "give a number such as 0", _LARGEST_WORD)
            self._network.counters[row] = given
        for part, layer, name in self._running:
            value, statistics = parameter(name, getattr(layer, name), 1), self._network.running[part]
            same_shape(name, value, statistics.shape, "as when the network was taken for training")
            statistics[...] = value

    def write(self) -> None:
        """Give back what `read` took."""
        self.write_parameters()
        self._division.complete()
        for slot, name in zip(self._network.slots, self._update.state, strict=True):
            kept = dict(getattr(self._optimizer, name) or {})
            for key, place in self._places.items():
                value = self._params[key]
                kept[key] = slot[place : place + value.size].reshape(value.shape)
            setattr(self._optimizer, name, kept)
        for row, layer, name in self._counted:
            setattr(layer, name, int(self._network.counters[row]))
        for part, layer, name in self._running:
            setattr(layer, name, self._network.running[part].astype(getattr(layer, name).dtype))

    def write_parameters(self) -> None:
        """Give back the parameters alone."""
        for key, place in self._places.items():
            value = self._params[key]
            value[...] = self._network.params[place : place + value.size].reshape(value.shape)

    def train(
        self,
        data: tuple[Array, Array, Array, float],
        order: Array,
        sample_shares: Array,
        first: int,
        last: int,
        losses: Array,
        hits: Array,
        continue_on_nan: bool,
        l2: tuple[Array, Array] | None = None,
    ) -> int:
        """Do steps `first` to `last` of an epoch over `order`; returns how many are done.

        `data` is x, labels, targets and the scale of x. `sample_shares` is what each sample of the order counts for in
        the mean of its batch, or (0,) where all count alike. Losses and hits are those of every step of the epoch.

        `l2` has a number for each step and an array for penalties: number/2·ΣW², over all parameters that decay and
        before the update, which is small with the loss.
        """
        x, labels, targets, scale = data
        self._choose_loss(self._losses[len(labels) > 0])
        coefficients, penalties = self._coefficients(first, last), np.empty(0)
        if l2 is not None:
            coefficients[:, PENALTY], penalties = l2[0][:last], l2[1]
        given = steps.Data(x, labels, targets, sample_shares, self._dtype.type(scale))

        def run(team: Array, start: int, stop: int) -> int:
            arguments = given, order, self._batch_size, start, stop, coefficients, losses, hits, penalties
            return self._division.run(team, self._network, *arguments, continue_on_nan)

        done = self._run_on_the_faster(run, first, last)
        self._optimizer.iter += done
        return done

    def _run_on_the_faster(self, run: Callable[[Array, int, int], int], first: int, last: int) -> int:
        """Do steps `first` to `last` by `run`, on all threads or on one; returns how many are done."""
        start_threads()
        everyone, alone = team(self._threads()), team(1)
        is_shared = self._batch_size * self._network.work >= WORTH_A_REGION
        if first == last or not is_shared:
            return run(alone, first, last)
        if not self._is_compiled:
            run(alone, first, first)  # steps that also compile would tell nothing of the number of threads
            self._is_compiled = True
        step = first
        while step < last:
            is_all, count = self._choice.next(last - step) if everyone[0] > 1 else (False, last - step)
            began = time.perf_counter()
            done = run(everyone if is_all else alone, step, step + count)
            step += done
            if everyone[0] > 1:
                self._choice.note(time.perf_counter() - began, done)
            if done < count:
                break
        return step - first

    def _choose_loss(self, loss: Any) -> None:
        if loss is not self._chosen:
            self._chosen = loss
            self._network = self._network._replace(loss=state.address_of_loss(loss, self._network))

    def _coefficients(self, first: int, last: int) -> Array:
        """What the update takes at each step, in rows by the number of the step: first for parameters that decay."""
        optimizer, update = self._optimizer, self._update
        given = np.zeros((last, 2, COEFFICIENTS))
        if first < last:
            numbers = optimizer.coefficients(np.arange(optimizer.iter, optimizer.iter + last - first))
            for column, number in enumerate(numbers):
                given[first:, :, column] = number[:, np.newaxis] if isinstance(number, np.ndarray) else number
            if update.decouples:
                given[first:, 1, len(numbers) - 1] = 0
            else:
                given[first:, 0, WEIGHT_DECAY] = optimizer.weight_decay
        return given.reshape(last, 2 * COEFFICIENTS)


def _memory_of_parts(table: Table, dtype: DType, batch_size: int) -> dict[str, Array]:
    """Memory for each part to work in."""
    is_sliced = bool(table.regions[:, steps.IS_SLICED].any())
    parts = max(most_parts(), most_groups(batch_size) if is_sliced else 1)
    rows = table.rows[table.rows[:, state.W_WIDTH] > 0]
    in_rows = rows[rows[:, state.LAYOUT] == state.ROWS]
    longest = max(batch_size, int(in_rows[:, [state.D_IN, state.M_OUT]].max(initial=1)))
    widest = int(rows[:, [state.W_WIDTH, state.B_SIZE]].max(initial=1))
    chunk = max(state.CHUNK, ROW_GRAIN * widest) + widest + 1
    return {
        "scratch": np.zeros((parts, scratch_for(longest, dtype.itemsize)), dtype),
        "gradients": np.zeros((parts, chunk), dtype),
    }
