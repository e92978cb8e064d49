"""The table of cases that the tests compare with the reference and the benchmarks time.

A kernel case makes the arguments of one kernel and its NumPy twin. A layer case makes a layer, its inputs, and the
gradient that its `backward` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbp import layers
from fastbp.kernels import activations

DTYPES = ("float32", "float64")

# (N, D, M): a batch of N samples, D features in and M out (or C classes). The book's sizes.
HIDDEN = (100, 784, 50)
OUTPUT = (100, 50, 10)


class Draw:
    """Draws the arrays of one case from one seed, in one dtype."""

    def __init__(self, dtype: str, size: tuple[int, int, int], seed: int = 0) -> None:
        self.N, self.D, self.M = size
        self._dtype = np.dtype(dtype)
        self._rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Any:
        return self._rng.standard_normal(shape).astype(self._dtype)

    def weights(self) -> Any:
        """(D, M); the elements of x·W are about as large as those of x."""
        return self.normal(self.D, self.M) / float(max(1, self.D)) ** 0.5

    def positive(self, *shape: int) -> Any:
        return self._rng.random(shape).astype(self._dtype)

    def empty(self, *shape: int) -> Any:
        return np.full(shape, 7, self._dtype)

    def mask(self, *shape: int) -> Any:
        return self._rng.random(shape) < 0.5

    def probabilities(self, *shape: int) -> Any:
        return self._rng.dirichlet(np.ones(shape[-1]), shape[:-1]).reshape(shape).astype(self._dtype)

    def losses(self) -> Any:
        """An array for the loss of each sample, which is float64 for any dtype."""
        return np.full(self.N, 7.0)

    def labels(self) -> Any:
        return self._rng.integers(0, self.M, self.N)


@dataclass(frozen=True)
class KernelCase:
    """The name of a kernel and its arguments, with the arrays that take the results."""

    kernel: str
    arguments: Callable[[Draw], tuple[Any, ...]]
    size: tuple[int, int, int] = HIDDEN
    variant: str = ""

    @property
    def name(self) -> str:
        return f"{self.kernel}[{self.variant}]" if self.variant else self.kernel


def _affine_backward(d: Draw) -> tuple[Any, ...]:
    inputs = d.normal(d.N, d.D), d.normal(d.D, d.M), d.normal(d.N, d.M)
    return *inputs, d.empty(d.N, d.D), d.empty(d.D, d.M), d.empty(d.M)


def _activated(name: str) -> tuple[KernelCase, KernelCase]:
    """Forward of an affine layer with an activation after it, and backward with an activation before it."""
    number = lambda: getattr(activations, name.upper())  # noqa: E731
    forward = lambda d: (d.normal(d.N, d.D), d.weights(), d.normal(d.M), d.empty(d.N, d.M), number())  # noqa: E731
    backward = lambda d: (  # noqa: E731
        d.normal(d.D, d.M), d.normal(d.N, d.M), d.positive(d.N, d.D) * d.mask(d.N, d.D), d.empty(d.N, d.D), number(),
    )  # fmt: skip
    return (
        KernelCase("affine_activation_forward", forward, variant=name),
        KernelCase("affine_activation_backward", backward, variant=name),
    )


def _of_rows(d: Draw, t: Any) -> tuple[Any, ...]:
    return d.normal(d.N, d.M), t, d.empty(d.N, d.M), d.losses(), d.empty(d.N), d.empty(d.N)


def _flat(d: Draw) -> tuple[Any, Any]:
    return d.normal(d.N * d.M), d.normal(d.N * d.M)


KERNELS = (
    KernelCase("affine_forward", lambda d: (d.normal(d.N, d.D), d.normal(d.D, d.M), d.normal(d.M), d.empty(d.N, d.M))),
    KernelCase("affine_backward", _affine_backward),
    KernelCase(
        "affine_backward_parameters",
        lambda d: (d.normal(d.N, d.D), d.normal(d.N, d.M), d.empty(d.D, d.M), d.empty(d.M)),
    ),
    *(case for name in ("identity", "ReLU", "sigmoid", "tanh") for case in _activated(name)),
    KernelCase("relu_forward", lambda d: (d.normal(d.N * d.M), d.empty(d.N * d.M), d.mask(d.N * d.M))),
    KernelCase("relu_backward", lambda d: (d.normal(d.N * d.M), d.mask(d.N * d.M), d.empty(d.N * d.M))),
    KernelCase("sigmoid_forward", lambda d: (d.normal(d.N * d.M), d.empty(d.N * d.M))),
    KernelCase("sigmoid_backward", lambda d: (*_flat(d), d.empty(d.N * d.M))),
    KernelCase("exp_forward", _flat),
    KernelCase("log_forward", lambda d: (d.positive(d.N * d.M), d.empty(d.N * d.M))),
    KernelCase("power_forward", lambda d: (d.positive(d.N * d.M), *_flat(d))),
    KernelCase("tanh_forward", lambda d: (d.normal(d.N * d.M), d.empty(d.N * d.M))),
    KernelCase("tanh_backward", lambda d: (*_flat(d), d.empty(d.N * d.M))),
    KernelCase(
        "dropout_forward",
        lambda d: (d.normal(d.N * d.M), 2**62 + 3, 5, 0.3, d.empty(d.N * d.M), d.mask(d.N * d.M)),
    ),
    KernelCase(
        "dropout_backward",
        lambda d: (d.normal(d.N * d.M), d.mask(d.N * d.M), 0.3, d.empty(d.N * d.M)),
    ),
    KernelCase("softmax_forward", lambda d: (d.normal(d.N, d.M), d.empty(d.N, d.M)), OUTPUT),
    KernelCase(
        "softmax_backward",
        lambda d: (d.normal(d.N, d.M), d.probabilities(d.N, d.M), d.empty(d.N, d.M)),
        OUTPUT,
    ),
    KernelCase(
        "softmax_cross_entropy_forward",
        lambda d: (d.normal(d.N, d.M), d.labels(), d.empty(d.N, d.M)),
        OUTPUT,
        "labels",
    ),
    KernelCase(
        "softmax_cross_entropy_forward",
        lambda d: (d.normal(d.N, d.M), d.probabilities(d.N, d.M), d.empty(d.N, d.M)),
        OUTPUT,
        "distributions",
    ),
    KernelCase("softmax_cross_entropy_of_rows", lambda d: _of_rows(d, d.labels()), OUTPUT, "labels"),
    KernelCase(
        "softmax_cross_entropy_of_rows", lambda d: _of_rows(d, d.probabilities(d.N, d.M)), OUTPUT, "distributions"
    ),
    KernelCase(
        "softmax_cross_entropy_backward",
        lambda d: (d.probabilities(d.N, d.M), d.labels(), 1.5, d.empty(d.N, d.M)),
        OUTPUT,
        "labels",
    ),
    KernelCase(
        "softmax_cross_entropy_backward",
        lambda d: (d.probabilities(d.N, d.M), d.probabilities(d.N, d.M), 1.5, d.empty(d.N, d.M)),
        OUTPUT,
        "distributions",
    ),
    KernelCase("cross_entropy_forward", lambda d: (d.probabilities(d.N, d.M), d.labels()), OUTPUT, "labels"),
    KernelCase(
        "cross_entropy_forward",
        lambda d: (d.probabilities(d.N, d.M), d.probabilities(d.N, d.M)),
        OUTPUT,
        "distributions",
    ),
    KernelCase(
        "cross_entropy_backward",
        lambda d: (d.probabilities(d.N, d.M), d.labels(), 1.5, d.empty(d.N, d.M)),
        OUTPUT,
        "labels",
    ),
    KernelCase(
        "cross_entropy_backward",
        lambda d: (d.probabilities(d.N, d.M), d.probabilities(d.N, d.M), 1.5, d.empty(d.N, d.M)),
        OUTPUT,
        "distributions",
    ),
    KernelCase(
        "sigmoid_cross_entropy_forward",
        lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M), d.empty(d.N, d.M)),
        OUTPUT,
    ),
    KernelCase(
        "poisson_deviance_forward",
        lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M) * d.mask(d.N, d.M), d.empty(d.N, d.M)),
        OUTPUT,
    ),
    KernelCase(
        "poisson_deviance_of_rows",
        lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M) * d.mask(d.N, d.M), d.empty(d.N, d.M), d.losses()),
        OUTPUT,
    ),
    KernelCase(
        "sigmoid_cross_entropy_of_rows",
        lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M), d.empty(d.N, d.M), d.losses()),
        OUTPUT,
    ),
    KernelCase("squared_error_forward", lambda d: (d.normal(d.N, d.M), d.normal(d.N, d.M)), OUTPUT),
    KernelCase("squared_error_of_rows", lambda d: (d.normal(d.N, d.M), d.normal(d.N, d.M), d.losses()), OUTPUT),
    KernelCase(
        "squared_error_backward",
        lambda d: (d.normal(d.N, d.M), d.normal(d.N, d.M), 1.5, d.empty(d.N, d.M)),
        OUTPUT,
    ),
    KernelCase("first_bad_label", lambda d: (d.labels(), d.M), OUTPUT),
    KernelCase("first_bad_distribution", lambda d: (d.probabilities(d.N, d.M),), OUTPUT),
    KernelCase("first_bad_probability", lambda d: (d.positive(d.N * d.M),), OUTPUT),
    KernelCase("decayed_gradient", lambda d: (*_flat(d), 0.1, d.empty(d.N * d.M))),
    KernelCase("sgd_update", lambda d: (*_flat(d), 0.1)),
    KernelCase("momentum_update", lambda d: (*_flat(d), d.normal(d.N * d.M), 0.1, 0.9)),
    KernelCase("nesterov_update", lambda d: (*_flat(d), d.normal(d.N * d.M), 0.1, 0.9)),
    KernelCase("adagrad_update", lambda d: (*_flat(d), d.positive(d.N * d.M), 0.1, 1e-7)),
    KernelCase("rmsprop_update", lambda d: (*_flat(d), d.positive(d.N * d.M), 0.1, 0.9, 1e-7)),
    KernelCase("adam_update", lambda d: (*_flat(d), d.normal(d.N * d.M), d.positive(d.N * d.M), 0.1, 0.9, 0.999, 1e-7)),
)


@dataclass(frozen=True)
class LayerCase:
    """A layer, its inputs, and the gradient for its `backward` (none for a loss)."""

    name: str
    layer: Callable[[Draw], Any]
    inputs: Callable[[Draw], tuple[Any, ...]]
    dout: Callable[[Draw], tuple[Any, ...]]
    size: tuple[int, int, int] = HIDDEN


def _one(d: Draw) -> tuple[Any]:
    return (d.normal(d.N, d.M),)


LAYERS = (
    LayerCase("AddLayer", lambda d: layers.AddLayer(), lambda d: (d.normal(d.N, d.M), d.normal(d.M)), _one),
    LayerCase("MulLayer", lambda d: layers.MulLayer(), lambda d: (d.normal(d.N, d.M), d.normal(d.M)), _one),
    LayerCase("ReLU", lambda d: layers.ReLU(), _one, _one),
    LayerCase("Sigmoid", lambda d: layers.Sigmoid(), _one, _one),
    LayerCase("Tanh", lambda d: layers.Tanh(), _one, _one),
    LayerCase("Identity", lambda d: layers.Identity(), _one, _one),
    LayerCase("Dropout", lambda d: layers.Dropout(0.5, seed=0), _one, _one),
    LayerCase(
        "Affine",
        lambda d: layers.Affine(d.normal(d.D, d.M), d.normal(d.M)),
        lambda d: (d.normal(d.N, d.D),),
        _one,
    ),
    LayerCase("Softmax", lambda d: layers.Softmax(), _one, _one, OUTPUT),
    LayerCase(
        "CrossEntropyError",
        lambda d: layers.CrossEntropyError(),
        lambda d: (d.probabilities(d.N, d.M), d.labels()),
        lambda d: (),
        OUTPUT,
    ),
    LayerCase(
        "SoftmaxWithLoss",
        lambda d: layers.SoftmaxWithLoss(),
        lambda d: (d.normal(d.N, d.M), d.labels()),
        lambda d: (),
        OUTPUT,
    ),
    LayerCase(
        "SigmoidWithLoss",
        lambda d: layers.SigmoidWithLoss(),
        lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M)),
        lambda d: (),
        OUTPUT,
    ),
    LayerCase(
        "ExpWithLoss",
        lambda d: layers.ExpWithLoss(),
        lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M)),
        lambda d: (),
        OUTPUT,
    ),
    LayerCase(
        "IdentityWithLoss",
        lambda d: layers.IdentityWithLoss(),
        lambda d: (d.normal(d.N, d.M), d.normal(d.N, d.M)),
        lambda d: (),
        OUTPUT,
    ),
)
