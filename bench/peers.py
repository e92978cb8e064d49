"""Steps and epochs of training against other libraries: `python -m bench.peers [--rows TEXT]`.

A step is forward, softmax cross-entropy, backward and update of a float32 network; an epoch shuffles 10,000 images of
MNIST and gathers batch after batch. Every figure of a row is measured in turns in one run, each library on two
threads, after all have reached the same parameters. `--rows` takes the rows whose name contains TEXT.

fastbp's steps are those of `Engine.train`, which `fit` calls, and include its gathering of batches; all others find
their batches ready. Its epochs are those of `fit`. PyTorch takes its fused optimizers, torch.compile the network with
its loss, JAX jit one step a call, JAX scan all steps in one call, scikit-learn an epoch by `partial_fit`.
"""

from __future__ import annotations

import argparse
import math
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from bench import book
from bench.measure import medians
from bench.products import _peak
from fastbp import Sequential, layers, num_threads, optimizers, reference
from fastbp.data import read_idx
from fastbp.engine import Engine

THREADS = 2
CHECKED = 5
IMAGES = 10_000
EPOCHS = 3  # in one timed call
RATES = {"SGD": 0.1, "Adam": 0.001}
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7  # the book's Adam: epsilon is added to the root of the biased v
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


@dataclass(frozen=True)
class Row:
    widths: tuple[int, ...]
    batch: int
    steps: int = 0  # in one timed call; none: epochs
    optimizer: str = "SGD"
    activation: str = "relu"

    @property
    def name(self) -> str:
        kind = "step" if self.steps else "epoch"
        return f"{kind} {'-'.join(map(str, self.widths))}, batch {self.batch}, {self.optimizer}"

    @property
    def flops(self) -> int:
        """Of the products of a step, or of an epoch; the gradient by x is not needed."""
        sizes = [D * M for D, M in zip(self.widths, self.widths[1:], strict=False)]
        samples = self.batch if self.steps else IMAGES
        return 2 * samples * (3 * sum(sizes) - sizes[0])


ROWS = (
    Row((784, 50, 10), 100, steps=50),
    Row((784, 256, 10), 100, steps=25),
    Row((784, 1024, 10), 128, steps=10),
    Row((784, 1024, 10), 1024, steps=5),
    Row((784, 50, 10), 1, steps=1000),
    Row((24, 8, 2), 200, steps=200, activation="tanh"),
    Row((784, 50, 10), 100),
    Row((784, 50, 10), 100, optimizer="Adam"),
    Row((784, 256, 128, 10), 200, optimizer="Adam"),
)


class UnavailableError(Exception):
    """Why a peer cannot run here."""


class Peer:
    """Trains on the batches of x and t in order, or for whole epochs; a subclass has `step` and `params`."""

    name: ClassVar[str]

    def __init__(self, row: Row, x: Any, t: Any, params: list[np.ndarray]) -> None:
        self.row, self.rate, self.rng = row, RATES[row.optimizer], np.random.default_rng(0)
        self.x, self.t = self.array(x), self.array(t)
        slices = [slice(start, start + row.batch) for start in range(0, len(x), row.batch)]
        self.batches = [(self.array(x[part]), self.array(t[part])) for part in slices]
        self.start([param.copy() for param in params])

    @staticmethod
    def takes(row: Row) -> bool:  # noqa: ARG004 - a subclass asks it
        return True

    def array(self, values: np.ndarray) -> Any:
        return values

    def steps(self, count: int) -> None:
        for x, t in self.batches[:count]:
            self.step(x, t)

    def epochs(self, count: int) -> None:
        for _ in range(count):
            for indices in self.array(self.order()):
                self.step(self.x[indices], self.t[indices])

    def order(self) -> np.ndarray:
        return self.rng.permutation(len(self.x)).reshape(-1, self.row.batch)


class Fastbp(Peer):
    name = "fastbp"

    def start(self, params: list[np.ndarray]) -> None:
        stack: list[Any] = []
        for W, b in zip(params[::2], params[1::2], strict=True):
            stack += [layers.Affine(W, b), layers.ReLU() if self.row.activation == "relu" else layers.Tanh()]
        self.network = Sequential(stack[:-1], layers.SoftmaxWithLoss())
        self.optimizer = getattr(optimizers, self.row.optimizer)(self.rate)
        self.engine = Engine(
            stack[:-1], self.network.last_layer, self.optimizer, self.network.params,
            self.x.dtype, self.x.shape[1], self.row.batch,
        )  # fmt: skip
        self.engine.read()
        self.data = self.x, self.t, np.empty((0, self.row.widths[-1]), self.x.dtype), 1.0
        self.in_order = np.arange(len(self.x))

    def steps(self, count: int) -> None:
        order, losses, hits = self.in_order[: count * self.row.batch], np.zeros(count), np.zeros(count)
        self.engine.train(self.data, order, 0, count, losses, hits, False)
        self.engine.write()

    def epochs(self, count: int) -> None:
        self.network.fit(
            self.x, self.t, epochs=count, batch_size=self.row.batch, optimizer=self.optimizer, verbose=False
        )

    def params(self) -> list[np.ndarray]:
        return list(self.network.params.values())


class Lean(Peer):
    """Plain NumPy that forms no gradient by x and updates in place."""

    name = "NumPy"

    def start(self, params: list[np.ndarray]) -> None:
        self.values, self.done = params, 0
        self.m, self.v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]

    def params(self) -> list[np.ndarray]:
        return self.values

    def step(self, x: np.ndarray, t: np.ndarray) -> float:
        weights, biases, relu = self.values[::2], self.values[1::2], self.row.activation == "relu"
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
        loss = -np.log(out[rows, t] + 1e-7).mean()
        out[rows, t] -= 1
        out /= np.float32(len(t))
        gradients: list[np.ndarray] = []
        for number in reversed(range(len(weights))):
            gradients[:0] = np.dot(inputs[number].T, out), out.sum(axis=0)
            if number:
                out = np.dot(out, weights[number].T)
                out *= inputs[number] > 0 if relu else 1 - inputs[number] ** 2
        self.update(gradients)
        return loss

    def update(self, gradients: list[np.ndarray]) -> None:
        self.done += 1
        correction = math.sqrt(1 - BETA2**self.done) / (1 - BETA1**self.done)
        for param, gradient, m, v in zip(self.values, gradients, self.m, self.v, strict=True):
            if self.row.optimizer == "SGD":
                np.subtract(param, np.multiply(gradient, self.rate, out=gradient), out=param)
            else:
                reference.adam_update(param, gradient, m, v, self.rate * correction, BETA1, BETA2)


class BookTanh:
    def forward(self, x: np.ndarray) -> np.ndarray:
        self.out = np.tanh(x)
        return self.out

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout * (1 - self.out**2)


class Book(Peer):
    name = "book"

    @staticmethod
    def takes(row: Row) -> bool:
        return len(row.widths) == 3 and row.optimizer == "SGD"

    def start(self, params: list[np.ndarray]) -> None:
        relu = book.Relu if self.row.activation == "relu" else BookTanh
        kinds = types.SimpleNamespace(Affine=book.Affine, Relu=relu, SoftmaxWithLoss=book.SoftmaxWithLoss)
        self.network = book.TwoLayerNet(dict(zip(("W1", "b1", "W2", "b2"), params, strict=True)), kinds)
        self.step = self.network.step

    def params(self) -> list[np.ndarray]:
        return list(self.network.params.values())


class Torch(Peer):
    name = "PyTorch"

    def array(self, values: np.ndarray) -> Any:
        import torch  # noqa: PLC0415 - a peer, not a requirement

        torch.set_num_threads(THREADS)
        return torch.from_numpy(values)

    def start(self, params: list[np.ndarray]) -> None:
        from torch import nn, optim  # noqa: PLC0415

        stack: list[Any] = []
        for W, b in zip(params[::2], params[1::2], strict=True):
            linear = nn.utils.skip_init(nn.Linear, *W.shape)
            linear.weight.data.copy_(self.array(W.T))
            linear.bias.data.copy_(self.array(b))
            stack += [linear, nn.ReLU() if self.row.activation == "relu" else nn.Tanh()]
        self.network = nn.Sequential(*stack[:-1])
        self.optimizer = getattr(optim, self.row.optimizer)(self.network.parameters(), self.rate, fused=True)
        self.done = 0
        cross_entropy = nn.functional.cross_entropy
        self.loss = self.compiled(lambda x, t: cross_entropy(self.network(x), t))

    def compiled(self, loss: Any) -> Any:
        return loss

    def step(self, x: Any, t: Any) -> None:
        self.done += 1
        if self.row.optimizer == "Adam":  # which adds epsilon to the root of the unbiased v
            self.optimizer.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - BETA2**self.done)
        self.optimizer.zero_grad()
        self.loss(x, t).backward()
        self.optimizer.step()

    def params(self) -> list[np.ndarray]:
        return [param.detach().numpy().T for param in self.network.parameters()]


class TorchCompile(Torch):
    name = "t.compile"

    def compiled(self, loss: Any) -> Any:
        import torch  # noqa: PLC0415

        torch._dynamo.reset()
        compiled = torch.compile(loss)
        try:
            compiled(*self.batches[0])
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UnavailableError(str(error).strip().splitlines()[0]) from None
        return compiled


class Jax(Peer):
    """A jitted step whose parameters are donated; `run` and `run_at` take batches and their indices."""

    name = "JAX jit"

    def array(self, values: np.ndarray) -> Any:
        import jax  # noqa: PLC0415 - a peer, not a requirement

        return jax.numpy.asarray(values)

    def order(self) -> np.ndarray:
        return super().order().astype(np.int32)

    def start(self, params: list[np.ndarray]) -> None:
        import jax  # noqa: PLC0415

        values = [self.array(param) for param in params]
        self.state = values, [0 * p for p in values], [0 * p for p in values], jax.numpy.zeros(())
        self.jit(jax, jax.value_and_grad(self.loss))

    def jit(self, jax: Any, gradient: Any) -> None:
        self.run = jax.jit(lambda state, x, t: self.next(gradient, state, x, t), donate_argnums=0)
        self.run_at = jax.jit(lambda state, x, t, i: self.next(gradient, state, x[i], t[i]), donate_argnums=0)

    def loss(self, params: list[Any], x: Any, t: Any) -> Any:
        import jax  # noqa: PLC0415

        *hidden, last = zip(params[::2], params[1::2], strict=True)
        for W, b in hidden:
            x = (jax.nn.relu if self.row.activation == "relu" else jax.numpy.tanh)(x @ W + b)
        logs = jax.nn.log_softmax(x @ last[0] + last[1])
        return -jax.numpy.take_along_axis(logs, t[:, None], 1).mean()

    def next(self, gradient: Any, state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        """The state after a step, and its loss."""
        params, m, v, step = state
        loss, gradients = gradient(params, x, t)
        if self.row.optimizer == "SGD":
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

    def params(self) -> list[np.ndarray]:
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
        shape = count, self.row.batch
        if self.stacked is None or len(self.stacked[0]) != count:
            samples = count * self.row.batch
            self.stacked = self.x[:samples].reshape(*shape, -1), self.t[:samples].reshape(shape)
        self.state, losses = self.run(self.state, *self.stacked)
        losses.block_until_ready()

    def epochs(self, count: int) -> None:
        for _ in range(count):
            self.state, losses = self.run_at(self.state, self.x, self.t, self.order())
        losses.block_until_ready()


class ScikitLearn(Peer):
    name = "sklearn"

    @staticmethod
    def takes(row: Row) -> bool:
        return not row.steps

    def start(self, params: list[np.ndarray]) -> None:
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - a peer, not a requirement

        self.model = MLPClassifier(
            self.row.widths[1:-1], solver=self.row.optimizer.lower(), batch_size=self.row.batch, alpha=0,
            learning_rate_init=self.rate, momentum=0, nesterovs_momentum=False, epsilon=EPSILON, shuffle=False,
        )  # fmt: skip
        batch, classes = slice(self.row.batch), np.arange(self.row.widths[-1])
        self.model.partial_fit(self.x[batch], self.t[batch], classes=classes)
        for own, param in zip(self.params(), params, strict=True):
            own[...] = param
        del self.model._optimizer  # made anew by the next call, without the state of the first

    def steps(self, count: int) -> None:
        self.model.partial_fit(self.x[: count * self.row.batch], self.t[: count * self.row.batch])

    def epochs(self, count: int) -> None:
        self.model.shuffle = True
        for _ in range(count):
            self.model.partial_fit(self.x, self.t)

    def params(self) -> list[np.ndarray]:
        return [param for pair in zip(self.model.coefs_, self.model.intercepts_, strict=True) for param in pair]


PEERS = (Fastbp, Lean, Book, Torch, TorchCompile, Jax, JaxScan, ScikitLearn)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time training against other libraries.")
    parser.add_argument("--rows", metavar="TEXT", default="", help="only rows whose name contains TEXT")
    chosen = [row for row in ROWS if parser.parse_args().rows in row.name]
    with num_threads(THREADS), threadpool_limits(THREADS, user_api="blas"):
        peak = THREADS * _peak("float32")
        print(f"float32, {THREADS} threads, multiply-add peak {peak:.0f} GFLOP/s; a step in µs, an epoch in ms")
        print(f"{'':<38}{''.join(f'{peer.name:>10}' for peer in PEERS)}{'ratio':>8}{'of peak':>9}", flush=True)
        reasons: dict[str, str] = {}
        for row in chosen:
            _print(row, _seconds(row, reasons), peak)
    for name, reason in reasons.items():
        print(f"{name}: {reason}")


def _seconds(row: Row, reasons: dict[str, str]) -> dict[str, float]:
    """Of a step or an epoch, by peer; reasons take those of peers that cannot run."""
    x, t, params = _data(row)
    peers = []
    for kind in PEERS:
        if kind.takes(row) and kind.name not in reasons:
            try:
                peers.append(kind(row, x, t, params))
            except (ImportError, UnavailableError) as error:
                reasons[kind.name] = str(error)
    for peer in peers:
        peer.steps(CHECKED)
        for own, expected in zip(peer.params(), peers[0].params(), strict=True):
            np.testing.assert_allclose(own, expected, rtol=0, atol=1e-4, err_msg=f"{peer.name}, {row.name}")
    count = row.steps or EPOCHS
    calls = {peer.name: lambda call=peer.steps if row.steps else peer.epochs: call(count) for peer in peers}
    with threadpool_limits(THREADS, user_api="blas"):  # of libraries loaded by now
        seconds = medians(calls, rounds=11 if row.steps else 5)
    for peer in peers:
        if not all(np.isfinite(param).all() for param in peer.params()):
            raise FloatingPointError(f"{peer.name}, {row.name}: expected finite parameters; take a lower rate")
    return {name: value / count for name, value in seconds.items()}


def _data(row: Row) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Images or noise, their labels, and parameters to start with."""
    rng = np.random.default_rng(0)
    samples = row.steps * row.batch if row.steps else IMAGES
    if row.widths[0] == 784 and MNIST.is_dir():
        images, labels = (read_idx(MNIST / f"t10k-{file}-ubyte.gz") for file in ("images-idx3", "labels-idx1"))
        x, t = images[:samples].reshape(samples, -1) / np.float32(255), labels[:samples].astype(np.intp)
    else:
        x = rng.random((samples, row.widths[0]), np.float32)
        t = np.argmax(x[:, : row.widths[-1]], axis=1)
    params = []
    for D, M in zip(row.widths, row.widths[1:], strict=False):
        params += [rng.standard_normal((D, M), np.float32) / np.float32(math.sqrt(D)), np.zeros(M, np.float32)]
    return x, t, params


def _print(row: Row, seconds: dict[str, float], peak: float) -> None:
    unit = 1e6 if row.steps else 1e3
    columns = "".join(f"{seconds[peer.name] * unit:>10.1f}" if peer.name in seconds else f"{'-':>10}" for peer in PEERS)
    own, *others = seconds.values()
    print(f"{row.name:<38}{columns}{min(others) / own:>8.2f}{row.flops / own / 1e9 / peak:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
