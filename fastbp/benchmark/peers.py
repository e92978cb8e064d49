"""fastbp and the libraries beside which it is timed, each training the same network from the same parameters.

A step is forward, softmax cross-entropy, backward and update of a float32 network; an epoch shuffles its samples and
gathers batch after batch. fastbp's steps are those of `Engine.train`, which `fit` calls, and include its gathering of
batches; all others find their batches ready. Its epochs are those of `fit`. PyTorch takes its fused optimizers, JAX
jit one step a call, JAX scan all steps in one call, scikit-learn an epoch by `partial_fit`.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from fastbp import layers, optimizers, reference
from fastbp.benchmark.machine import blas_threads
from fastbp.benchmark.measure import SETTLING, samples
from fastbp.benchmark.tasks import Task
from fastbp.checks import Array
from fastbp.engine.plan import Engine
from fastbp.kernels import get_num_threads
from fastbp.network import Sequential
from fastbp.ops.contract import use_reference

EPOCHS = 3  # in one timed call
RATES = {"SGD": 0.1, "Adam": 0.001}
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7  # the book's Adam: epsilon is added to the root of the biased v


class UnavailableError(Exception):
    """Why a peer cannot run here."""


class Peer:
    """A library that trains on the batches of x and t in order, or for whole epochs in an order of its own."""

    name: ClassVar[str]

    def __init__(self, task: Task, x: Any, t: Any, params: list[Array]) -> None:
        self.task, self.rate, self.rng = task, RATES[task.optimizer], np.random.default_rng(0)
        self.x, self.t = self.array(x), self.array(t)
        slices = [slice(start, start + task.batch) for start in range(0, len(x), task.batch)]
        self.batches = [(self.array(x[part]), self.array(t[part])) for part in slices]
        self.start([param.copy() for param in params])

    @staticmethod
    def takes(task: Task) -> bool:
        """Whether it can do the task. Whole runs are for fastbp alone: the others take minutes."""
        return not task.epochs

    def array(self, values: Array) -> Any:
        """`values` in the library's own kind of array."""
        return values

    def start(self, params: list[Array]) -> None:
        """Build the network with these parameters: W and b of each layer."""
        raise NotImplementedError

    def step(self, x: Any, t: Any) -> Any:
        """Train on one batch."""
        raise NotImplementedError

    def steps(self, count: int) -> None:
        """Train on the first `count` batches, and wait until it is done."""
        for x, t in self.batches[:count]:
            self.step(x, t)

    def epochs(self, count: int) -> None:
        """Train on all samples `count` times, and wait until it is done."""
        for _ in range(count):
            for indices in self.array(self.order()):
                self.step(self.x[indices], self.t[indices])

    def order(self) -> Array:
        """A random order of the samples, a row for each batch."""
        return self.rng.permutation(len(self.x)).reshape(-1, self.task.batch)

    def params(self) -> list[Array]:
        """W and b of each layer as they are now."""
        raise NotImplementedError


class Fastbp(Peer):
    name = "fastbp"

    @staticmethod
    def takes(task: Task) -> bool:  # noqa: ARG004 - it takes all
        return True

    def start(self, params: list[Array]) -> None:
        self.network, self.optimizer = _network(self.task, params), getattr(optimizers, self.task.optimizer)(self.rate)
        self.engine = Engine(
            list(self.network.layers.values()), self.network.last_layer, self.optimizer, self.network.params,
            self.x.dtype, self.x.shape[1:], self.task.batch,
        )  # fmt: skip
        self.engine.read()
        rows = self.x.reshape(len(self.x), -1)
        self.data = rows, self.t, np.empty((0, params[-1].size), self.x.dtype), 1.0
        self.in_order = np.arange(len(self.x))

    def steps(self, count: int) -> None:
        order, losses, hits = self.in_order[: count * self.task.batch], np.zeros(count), np.zeros(count)
        self.engine.train(self.data, order, np.empty(0), 0, count, losses, hits, False)
        self.engine.write()

    def epochs(self, count: int) -> None:
        self.network.fit(
            self.x, self.t, epochs=count, batch_size=self.task.batch, optimizer=self.optimizer, verbose=False
        )

    def params(self) -> list[Array]:
        return list(self.network.params.values())


class Reference(Peer):
    """The same layers and optimizer on the kernels' twins in NumPy, `fastbp.use_reference()`."""

    name = "reference"

    @staticmethod
    def takes(task: Task) -> bool:
        return bool(task.widths)  # a convolution's twin takes seconds for a step

    def start(self, params: list[Array]) -> None:
        self.network, self.optimizer = _network(self.task, params), getattr(optimizers, self.task.optimizer)(self.rate)

    def step(self, x: Array, t: Array) -> None:
        with use_reference():
            self.optimizer.update(self.network.params, self.network.gradient(x, t))

    def params(self) -> list[Array]:
        return list(self.network.params.values())


def _network(task: Task, params: list[Array]) -> Sequential:
    stack = task.stack()
    trained = [layer for layer in stack if hasattr(layer, "W")]
    for layer, W, b in zip(trained, params[::2], params[1::2], strict=True):
        layer.W, layer.b = W, b
    return Sequential(stack, layers.SoftmaxWithLoss())


class Lean(Peer):
    """Plain NumPy that forms no gradient by x and updates in place."""

    name = "NumPy"

    @staticmethod
    def takes(task: Task) -> bool:
        return bool(task.widths)

    def start(self, params: list[Array]) -> None:
        self.values, self.done = params, 0
        self.m, self.v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]

    def params(self) -> list[Array]:
        return self.values

    def step(self, x: Array, t: Array) -> None:
        weights, biases, relu = self.values[::2], self.values[1::2], self.task.activation == "relu"
        inputs = [x]
        for number, (W, b) in enumerate(zip(weights, biases, strict=True), 1):
            out = np.dot(inputs[-1], W)
            out += b
            if number < len(weights):
                np.maximum(out, 0, out=out) if relu else np.tanh(out, out=out)
                inputs.append(out)
        out -= out.max(axis=1, keepdims=True)
        np.exp(out, out=out)
        out /= out.sum(axis=1, keepdims=True)
        rows = np.arange(len(t))
        self.loss = -np.log(out[rows, t] + 1e-7).mean()
        out[rows, t] -= 1
        out /= np.float32(len(t))
        gradients: list[Array] = []
        for number in reversed(range(len(weights))):
            gradients[:0] = np.dot(inputs[number].T, out), out.sum(axis=0)
            if number:
                out = np.dot(out, weights[number].T)
                out *= inputs[number] > 0 if relu else 1 - inputs[number] ** 2
        self.update(gradients)

    def update(self, gradients: list[Array]) -> None:
        self.done += 1
        correction = math.sqrt(1 - BETA2**self.done) / (1 - BETA1**self.done)
        for param, gradient, m, v in zip(self.values, gradients, self.m, self.v, strict=True):
            if self.task.optimizer == "SGD":
                np.subtract(param, np.multiply(gradient, self.rate, out=gradient), out=param)
            else:
                reference.adam_update(param, gradient, m, v, self.rate * correction, BETA1, BETA2, EPSILON)


class Torch(Peer):
    name = "PyTorch"

    def array(self, values: Array) -> Any:
        torch = importlib.import_module("torch")
        torch.set_num_threads(get_num_threads())
        return torch.from_numpy(values)

    def start(self, params: list[Array]) -> None:
        nn, optim = importlib.import_module("torch.nn"), importlib.import_module("torch.optim")
        values, modules = iter(params), []
        for layer in self.task.stack():
            if isinstance(layer, layers.Affine):
                module = nn.utils.skip_init(nn.Linear, *layer.W.shape)
                module.weight.data.copy_(self.array(next(values).T))
                module.bias.data.copy_(self.array(next(values)))
                modules += [nn.Flatten(), module]
            elif isinstance(layer, layers.Convolution):
                F, C, FH, FW = layer.W.shape
                module = nn.utils.skip_init(nn.Conv2d, C, F, (FH, FW), layer.stride, layer.pad)
                module.weight.data.copy_(self.array(next(values)))
                module.bias.data.copy_(self.array(next(values)))
                modules.append(module)
            elif isinstance(layer, layers.Pooling):
                modules.append(nn.MaxPool2d((layer.pool_h, layer.pool_w), layer.stride, layer.pad))
            else:
                modules.append(nn.ReLU() if isinstance(layer, layers.ReLU) else nn.Tanh())
        self.network = self.arranged(nn.Sequential(*modules))
        self.optimizer = getattr(optim, self.task.optimizer)(self.network.parameters(), self.rate, fused=True)
        self.done = 0
        cross_entropy = nn.functional.cross_entropy
        self.loss = self.compiled(lambda x, t: cross_entropy(self.network(x), t))

    def arranged(self, network: Any) -> Any:
        return network

    def compiled(self, loss: Any) -> Any:
        return loss

    def step(self, x: Any, t: Any) -> None:
        self.done += 1
        if self.task.optimizer == "Adam":  # which adds epsilon to the root of the unbiased v
            self.optimizer.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - BETA2**self.done)
        self.optimizer.zero_grad()
        self.loss(x, t).backward()
        self.optimizer.step()

    def params(self) -> list[Array]:
        values = [param.detach().numpy() for param in self.network.parameters()]
        return [value.T if value.ndim == 2 else value for value in values]


class TorchChannelsLast(Torch):
    """With the channels of a pixel beside each other in memory, (N, H, W, C)."""

    name = "PyTorch NHWC"

    @staticmethod
    def takes(task: Task) -> bool:
        return not (task.widths or task.epochs)

    def array(self, values: Array) -> Any:
        torch, made = importlib.import_module("torch"), super().array(values)
        return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made

    def arranged(self, network: Any) -> Any:
        return network.to(memory_format=importlib.import_module("torch").channels_last)


class Jax(Peer):
    """A jitted step whose parameters are donated; `run` and `run_at` take batches and their indices."""

    name = "JAX jit"

    def array(self, values: Array) -> Any:
        return importlib.import_module("jax").numpy.asarray(values)

    def order(self) -> Array:
        return super().order().astype(np.int32)

    def start(self, params: list[Array]) -> None:
        jax = importlib.import_module("jax")
        self.layers, values = self.task.stack(), [self.array(param) for param in params]
        self.state = values, [0 * p for p in values], [0 * p for p in values], jax.numpy.zeros(())
        self.jit(jax, jax.value_and_grad(self.loss))

    def jit(self, jax: Any, gradient: Any) -> None:
        self.run = jax.jit(lambda state, x, t: self.next(gradient, state, x, t), donate_argnums=0)
        self.run_at = jax.jit(lambda state, x, t, i: self.next(gradient, state, x[i], t[i]), donate_argnums=0)

    def loss(self, params: list[Any], x: Any, t: Any) -> Any:
        jax = importlib.import_module("jax")
        values, lax = iter(params), jax.lax
        for layer in self.layers:
            if isinstance(layer, layers.Affine):
                x = x.reshape(len(x), -1) @ next(values) + next(values)
            elif isinstance(layer, layers.Convolution):
                strides, pads = 2 * (layer.stride,), 2 * [(layer.pad, layer.pad)]
                x = lax.conv_general_dilated(x, next(values), strides, pads) + next(values)[:, None, None]
            elif isinstance(layer, layers.Pooling):
                window, steps = (1, 1, layer.pool_h, layer.pool_w), (1, 1, layer.stride, layer.stride)
                x = lax.reduce_window(x, -math.inf, lax.max, window, steps, "VALID")
            else:
                x = jax.nn.relu(x) if isinstance(layer, layers.ReLU) else jax.numpy.tanh(x)
        logs = jax.nn.log_softmax(x)
        return -jax.numpy.take_along_axis(logs, t[:, None], 1).mean()

    def next(self, gradient: Any, state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        """The state after a step, and its loss."""
        params, m, v, step = state
        loss, gradients = gradient(params, x, t)
        if self.task.optimizer == "SGD":
            return ([p - self.rate * g for p, g in zip(params, gradients, strict=True)], m, v, step), loss
        step += 1
        rate = self.rate * (1 - BETA2**step) ** 0.5 / (1 - BETA1**step)
        m = [BETA1 * old + (1 - BETA1) * g for old, g in zip(m, gradients, strict=True)]
        v = [BETA2 * old + (1 - BETA2) * g * g for old, g in zip(v, gradients, strict=True)]
        params = [p - rate * a / (b**0.5 + EPSILON) for p, a, b in zip(params, m, v, strict=True)]
        return (params, m, v, step), loss

    def steps(self, count: int) -> None:
        for x, t in self.batches[:count]:
            self.state, loss = self.run(self.state, x, t)
        loss.block_until_ready()

    def epochs(self, count: int) -> None:
        for _ in range(count):
            for indices in self.order():
                self.state, loss = self.run_at(self.state, self.x, self.t, indices)
        loss.block_until_ready()

    def params(self) -> list[Array]:
        return [np.asarray(param) for param in self.state[0]]


class JaxScan(Jax):
    name = "JAX scan"

    def jit(self, jax: Any, gradient: Any) -> None:
        def run(state: Any, x: Any, t: Any) -> Any:
            return jax.lax.scan(lambda s, batch: self.next(gradient, s, *batch), state, (x, t))

        def run_at(state: Any, x: Any, t: Any, order: Any) -> Any:
            return jax.lax.scan(lambda s, i: self.next(gradient, s, x[i], t[i]), state, order)

        self.run, self.run_at = (jax.jit(function, donate_argnums=0) for function in (run, run_at))
        self.stacked: Any = None

    def steps(self, count: int) -> None:
        shape = count, self.task.batch
        if self.stacked is None or len(self.stacked[0]) != count:
            samples = count * self.task.batch
            self.stacked = self.x[:samples].reshape(*shape, *self.task.shape), self.t[:samples].reshape(shape)
        self.state, losses = self.run(self.state, *self.stacked)
        losses.block_until_ready()

    def epochs(self, count: int) -> None:
        for _ in range(count):
            self.state, losses = self.run_at(self.state, self.x, self.t, self.order())
        losses.block_until_ready()


class ScikitLearn(Peer):
    name = "sklearn"

    @staticmethod
    def takes(task: Task) -> bool:
        return bool(task.widths) and not (task.steps or task.epochs)

    def start(self, params: list[Array]) -> None:
        network = importlib.import_module("sklearn.neural_network")
        self.model = network.MLPClassifier(
            self.task.widths[1:-1], solver=self.task.optimizer.lower(), batch_size=self.task.batch, alpha=0,
            learning_rate_init=self.rate, momentum=0, nesterovs_momentum=False, epsilon=EPSILON, shuffle=False,
        )  # fmt: skip
        batch, classes = slice(self.task.batch), np.arange(self.task.widths[-1])
        self.model.partial_fit(self.x[batch], self.t[batch], classes=classes)
        for own, param in zip(self.params(), params, strict=True):
            own[...] = param
        del self.model._optimizer  # made anew by the next call, without the state of the first

    def steps(self, count: int) -> None:
        self.model.partial_fit(self.x[: count * self.task.batch], self.t[: count * self.task.batch])

    def epochs(self, count: int) -> None:
        self.model.shuffle = True
        for _ in range(count):
            self.model.partial_fit(self.x, self.t)

    def params(self) -> list[Array]:
        return [param for pair in zip(self.model.coefs_, self.model.intercepts_, strict=True) for param in pair]


def seconds_in_turns(
    task: Task,
    kinds: Sequence[type[Peer]],
    data: tuple[Array, Array, list[Array]],
    reasons: dict[str, str],
    rounds: int,
    at_most: float = math.inf,
    as_users: bool = False,
) -> dict[str, list[float]]:
    """Seconds of one step or epoch by peer, one figure for each of `rounds` turns.

    Parameters
    ----------
    task : Task
    kinds : sequence of classes
        Of the peers; the first is held to be right.
    data : tuple
        x, t and parameters, as of `noise`.
    reasons : dict
        By the name of a peer why it cannot run. It is left out, and others that cannot are entered.
    rounds : int
    at_most : float
        Seconds after which no round begins, but for two that are always there. Where two would take longer, the
        calls have fewer steps or epochs, and a peer that alone takes longer is left out; without the first there is
        nothing to compare, and the result is empty.
    as_users : bool
        As in a program that uses all of them: nobody waits until the threads of the peer before have gone to sleep,
        every call counts, and each library takes as many threads as it likes.

    Raises
    ------
    ValueError
        If a peer does not come to the same parameters.
    FloatingPointError
        If training came to numbers that are not finite.
    """
    begun = time.perf_counter()
    peers = list(available(task, kinds, data, reasons))
    for peer in peers:
        peer.steps(task.checked)
        for own, expected in zip(peer.params(), peers[0].params(), strict=True):
            # Rounding may move a unit across ReLU's kink for one sample, and its weights with it.
            apart = float(np.mean(~(np.abs(own - expected) <= 1e-4)))
            if apart > 0.01:
                raise ValueError(f"{peer.name}, {task.name}: expected fastbp's parameters, got {apart:.0%} others")
    at_most = max(1.0, at_most - (time.perf_counter() - begun))  # building and checking took some of it
    counts = _counts(peers, at_most)
    if peers[0] not in counts:
        return {}
    functions = {peer.name: _training(peer, count) for peer, count in counts.items()}
    if as_users:
        for function in functions.values():
            function()  # compiles
        found = samples(functions, rounds=rounds, at_most=at_most, pause=0, settling=0)
    else:
        with blas_threads(get_num_threads()):  # also of libraries that came with a peer
            settling = 0 if task.epochs else SETTLING
            found = samples(functions, rounds=rounds, at_most=at_most, settling=settling)
    for peer in counts:
        if not all(np.isfinite(param).all() for param in peer.params()):
            raise FloatingPointError(
                f"{peer.name}, {task.name}: expected finite parameters, got others; lower the rate"
            )
    return {peer.name: [value / count for value in found[peer.name]] for peer, count in counts.items()}


def available(
    task: Task, kinds: Iterable[type[Peer]], data: tuple[Array, Array, list[Array]], reasons: dict[str, str]
) -> Iterator[Peer]:
    """A peer of each kind that takes the task and can run here; why others cannot is entered in `reasons`."""
    for kind in kinds:
        if kind.takes(task) and kind.name not in reasons:
            try:
                yield kind(task, *data)
            except (ImportError, UnavailableError) as error:
                reasons[kind.name] = str(error)


def _counts(peers: list[Peer], at_most: float) -> dict[Peer, int]:
    """How many steps or epochs a timed call of each peer has: as many as the task says, or as `at_most` seconds allow.

    A peer that two rounds alone would take longer than that is not among them.
    """
    task = peers[0].task
    most = task.steps or (1 if task.epochs else EPOCHS)
    if math.isinf(at_most) or task.epochs:
        return dict.fromkeys(peers, most)
    counts = {}
    for peer in peers:
        start = time.perf_counter()
        peer.steps(task.checked)
        step = (time.perf_counter() - start) / task.checked
        one = step if task.steps else step * len(peer.batches)
        least = 4 * one  # two rounds, in each of which a call goes before, to settle
        if least <= at_most:
            counts[peer] = max(1, min(most, int(at_most / len(peers) / least)))
    return counts


def _training(peer: Peer, count: int) -> Callable[[], None]:
    task = peer.task
    return lambda: peer.steps(count) if task.steps else peer.epochs(count * (task.epochs or 1))
