"""The table of cases that the tests compare with the reference and the benchmarks time.

A kernel case makes the arguments of one kernel and its NumPy twin. A layer case makes a layer, its inputs, and the
gradient that its `backward` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbp import layers
from fastbp.ops.contract import ACTIVATIONS, OPTIMIZERS, settings_of
from fastbp.ops.contract import LOSSES as CONTRACT_LOSSES
from fastbp.ops.number_losses import NumberLossLayer

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


def _matmul_backward(d: Draw) -> tuple[Any, ...]:
    return d.normal(d.N, d.D), d.weights(), d.normal(d.N, d.M), d.empty(d.N, d.D), d.empty(d.D, d.M)


def _of_rows(d: Draw, t: Any) -> tuple[Any, ...]:
    return d.normal(d.N, d.M), t, d.empty(d.N, d.M), d.losses(), d.empty(d.N), d.empty(d.N)


def _flat(d: Draw) -> tuple[Any, Any]:
    return d.normal(d.N * d.M), d.normal(d.N * d.M)


def _activations() -> Iterator[KernelCase]:
    """The kernels of every activation that comes from a function of a number."""
    for record in ACTIVATIONS.values():
        function, settings = record.activation, settings_of(record, record.layer())
        if function.value_twin is None or function.leaves_mask:
            continue
        forward = lambda d, settings=settings: (d.normal(d.N * d.M), d.empty(d.N * d.M), *settings)  # noqa: E731
        backward = lambda d, settings=settings: (*_flat(d), d.empty(d.N * d.M), *settings)  # noqa: E731
        yield KernelCase(function.forward.__name__, forward)
        yield KernelCase(function.backward.__name__, backward)


def _number_losses() -> Iterator[KernelCase]:
    """The kernels of every loss that is a sum over numbers."""
    for record in CONTRACT_LOSSES.values():
        if not issubclass(record.layer, NumberLossLayer):
            continue
        function, settings = record.layer.function, np.array(record.layer().numbers())
        forward = lambda d, given=settings: (d.normal(d.N, d.M), d.normal(d.N, d.M), given)  # noqa: E731
        of_rows = lambda d, forward=forward: (*forward(d), d.losses())  # noqa: E731
        backward = lambda d, forward=forward: (*forward(d), 0.01, d.empty(d.N, d.M))  # noqa: E731
        yield KernelCase(function.forward.__name__, forward, OUTPUT)
        yield KernelCase(function.of_rows.__name__, of_rows, OUTPUT)
        yield KernelCase(function.backward.__name__, backward, OUTPUT)


def _updates() -> Iterator[KernelCase]:
    """The update of every optimizer, at the fourth step with its default settings."""
    for kind, record in OPTIMIZERS.items():
        if record.update is None:
            continue
        given = kind(weight_decay=0.01).coefficients(3)

        def arguments(d: Draw, record: Any = record, given: Any = given) -> tuple[Any, ...]:
            return *_flat(d), *(d.positive(d.N * d.M) for _ in record.state), *given

        yield KernelCase(record.update.__name__, arguments)


def _images(d: Draw) -> Any:
    """Up to 16 × 12 pixels of 3 channels."""
    return d.normal(d.N, 3, 16, 12)


def _filters(d: Draw) -> tuple[Any, Any]:
    return d.normal(min(d.M, 9), 3, 5, 3), d.normal(min(d.M, 9))


def _convolved(d: Draw) -> Any:
    """A gradient for the filters on those images, 2 pixels apart with a border of 1."""
    return d.normal(d.N, min(d.M, 9), 7, 6)


def _lanes_of(images: Any) -> Any:
    """Images whose samples lie side by side in memory."""
    return np.ascontiguousarray(images.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)


def _convolution(d: Draw, stride: int = 2, pad: int = 1) -> tuple[Any, ...]:
    return _images(d), *_filters(d), stride, pad, _lanes_of(0 * _convolved(d))


def _convolution_backward(d: Draw) -> tuple[Any, ...]:
    W, b = _filters(d)
    results = _lanes_of(0 * _images(d)), np.zeros_like(W), np.zeros_like(b)
    return _images(d), W, _convolved(d), 2, 1, *results


# Pool, stride and pad, and images (C, H, W, N) before and after: windows that overlap, and a border.
_POOL = 3, 2, 2, 1


def _pooling(d: Draw) -> tuple[Any, ...]:
    return d.normal(min(d.M, 9), 9, 8, d.N), *_POOL, d.empty(min(d.M, 9), 5, 5, d.N)


def _pooling_backward(d: Draw, *place: Any) -> tuple[Any, ...]:
    return d.normal(min(d.M, 9), 5, 5, d.N), *place, *_POOL, d.empty(min(d.M, 9), 9, 8, d.N)


def _scales(d: Draw, size: int) -> tuple[Any, ...]:
    """gamma and beta."""
    return d.normal(size), d.normal(size)


def _normalized(d: Draw, x: Any, axes: int | tuple[int, ...]) -> tuple[Any, ...]:
    """x, and a mean and a standard deviation for each feature or channel."""
    size = x.shape[1] if axes == 0 else x.shape[0]
    return x, d.normal(size), 0.5 + d.positive(size)


def _normalization(d: Draw, x: Any, axes: int | tuple[int, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The arguments of the four kernels of batch normalization."""
    size = x.shape[1] if axes == 0 else x.shape[0]
    yield "statistics", (x, d.empty(size), d.empty(size))
    yield "normalize", (*_normalized(d, x, axes), *_scales(d, size), 0 * x)
    dout = 0.5 * x[::-1].copy()
    yield "sums", (dout, *_normalized(d, x, axes), d.empty(size), d.empty(size))
    count = x.size // max(size, 1)
    yield "input", (dout, *_normalized(d, x, axes), *(d.normal(size) for _ in range(3)), count, 0 * x)


def _row_normalization_backward(d: Draw) -> tuple[Any, ...]:
    dout, xn, std = d.normal(d.N, d.M), d.normal(d.N, d.M), 0.5 + d.positive(d.N)
    return dout, xn, std, (d.normal(d.M),), d.empty(d.N, d.M)


def _of_features(d: Draw) -> dict[str, tuple[Any, ...]]:
    return dict(_normalization(d, d.normal(d.N, d.M), 0))


def _of_channels(d: Draw) -> dict[str, tuple[Any, ...]]:
    return dict(_normalization(d, d.normal(min(d.M, 9), 5, 4, d.N), (1, 2, 3)))


KERNELS = (
    KernelCase("matmul_forward", lambda d: (d.normal(d.N, d.D), d.weights(), d.empty(d.N, d.M))),
    KernelCase("matmul_backward", _matmul_backward),
    KernelCase(
        "normalize_rows",
        lambda d: (d.normal(d.N, d.M), _scales(d, d.M), 1e-5, d.empty(d.N, d.M), d.empty(d.N), d.empty(d.N, d.M)),
    ),
    KernelCase("row_normalization_backward", _row_normalization_backward),
    KernelCase(
        "row_normalization_parameters",
        lambda d: (d.normal(d.N, d.M), d.normal(d.N, d.M), d.empty(d.M), d.empty(d.M)),
    ),
    KernelCase("embedding_forward", lambda d: (d.labels(), d.normal(d.M, 8), d.empty(d.N, 8))),
    KernelCase("embedding_backward", lambda d: (d.normal(d.N, 8), d.labels(), d.empty(d.M, 8))),
    KernelCase("feature_statistics", lambda d: _of_features(d)["statistics"]),
    KernelCase("normalize_features", lambda d: _of_features(d)["normalize"]),
    KernelCase("feature_normalization_sums", lambda d: _of_features(d)["sums"]),
    KernelCase("feature_normalization_input", lambda d: _of_features(d)["input"]),
    KernelCase("channel_statistics", lambda d: _of_channels(d)["statistics"]),
    KernelCase("normalize_channels", lambda d: _of_channels(d)["normalize"]),
    KernelCase("channel_normalization_sums", lambda d: _of_channels(d)["sums"]),
    KernelCase("channel_normalization_input", lambda d: _of_channels(d)["input"]),
    KernelCase("convolution_forward", _convolution),
    KernelCase("convolution_backward", _convolution_backward),
    KernelCase(
        "convolution_backward_parameters",
        lambda d: (_images(d), _convolved(d), 2, 1, *(np.zeros_like(array) for array in _filters(d))),
    ),
    KernelCase("max_pooling_forward", lambda d: (*_pooling(d), np.zeros((min(d.M, 9), 5, 5, d.N), np.uint8))),
    KernelCase(
        "max_pooling_backward",
        lambda d: _pooling_backward(
            d, np.arange(min(d.M, 9) * 25 * d.N).reshape(min(d.M, 9), 5, 5, d.N).astype(np.uint8) % 6
        ),
    ),
    KernelCase("average_pooling_forward", _pooling),
    KernelCase("average_pooling_backward", _pooling_backward),
    KernelCase("affine_forward", lambda d: (d.normal(d.N, d.D), d.normal(d.D, d.M), d.normal(d.M), d.empty(d.N, d.M))),
    KernelCase("affine_backward", _affine_backward),
    KernelCase(
        "affine_backward_parameters",
        lambda d: (d.normal(d.N, d.D), d.normal(d.N, d.M), d.empty(d.D, d.M), d.empty(d.M)),
    ),
    KernelCase("relu_forward", lambda d: (d.normal(d.N * d.M), d.empty(d.N * d.M), d.mask(d.N * d.M))),
    KernelCase("relu_backward", lambda d: (d.normal(d.N * d.M), d.mask(d.N * d.M), d.empty(d.N * d.M))),
    KernelCase("relu_mask", lambda d: (d.normal(d.N * d.M), d.mask(d.N * d.M))),
    KernelCase("exp_forward", _flat),
    KernelCase("sin_forward", _flat),
    KernelCase("cos_forward", _flat),
    KernelCase("log_forward", lambda d: (d.positive(d.N * d.M), d.empty(d.N * d.M))),
    KernelCase("power_forward", lambda d: (d.positive(d.N * d.M), *_flat(d))),
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
    *_updates(),
    *_activations(),
    *_number_losses(),
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


def _activation_layers() -> Iterator[LayerCase]:
    for record in ACTIVATIONS.values():
        if record.activation.value_twin is not None:
            yield LayerCase(record.layer.__name__, lambda d, kind=record.layer: kind(), _one, _one)


def _losses() -> Iterator[LayerCase]:
    """The losses of numbers; those of classes are below."""
    for record in CONTRACT_LOSSES.values():
        if not record.loss.classifies:
            yield LayerCase(
                record.layer.__name__,
                lambda d, kind=record.layer: kind(),
                lambda d: (d.normal(d.N, d.M), d.positive(d.N, d.M)),
                lambda d: (),
                OUTPUT,
            )


LAYERS = (
    LayerCase("AddLayer", lambda d: layers.AddLayer(), lambda d: (d.normal(d.N, d.M), d.normal(d.M)), _one),
    LayerCase("MulLayer", lambda d: layers.MulLayer(), lambda d: (d.normal(d.N, d.M), d.normal(d.M)), _one),
    LayerCase("Identity", lambda d: layers.Identity(), _one, _one),
    *_activation_layers(),
    LayerCase("Dropout", lambda d: layers.Dropout(0.5, seed=0), _one, _one),
    LayerCase(
        "Affine",
        lambda d: layers.Affine(d.normal(d.D, d.M), d.normal(d.M)),
        lambda d: (d.normal(d.N, d.D),),
        _one,
    ),
    LayerCase("MatMul", lambda d: layers.MatMul(d.normal(d.D, d.M)), lambda d: (d.normal(d.N, d.D),), _one),
    LayerCase("Reshape", lambda d: layers.Reshape((-1, 1)), _one, lambda d: (d.normal(d.N, d.M, 1),)),
    LayerCase(
        "Flatten", lambda d: layers.Flatten(), lambda d: (d.normal(d.N, 2, d.M),), lambda d: (d.normal(d.N, 2 * d.M),)
    ),
    LayerCase(
        "Convolution",
        lambda d: layers.Convolution(*_filters(d), stride=2, pad=1),
        lambda d: (_images(d),),
        lambda d: (_convolved(d),),
    ),
    LayerCase(
        "Pooling",
        lambda d: layers.Pooling(2, 3),
        lambda d: (_images(d),),
        lambda d: (d.normal(d.N, 3, 8, 5),),
    ),
    LayerCase("BatchNormalization", lambda d: layers.BatchNormalization(*_scales(d, d.M)), _one, _one),
    LayerCase("LayerNormalization", lambda d: layers.LayerNormalization(*_scales(d, d.M)), _one, _one),
    LayerCase(
        "Embedding",
        lambda d: layers.Embedding(d.normal(d.M, 8)),
        lambda d: (d.labels(),),
        lambda d: (d.normal(d.N, 8),),
    ),
    LayerCase("Softmax", lambda d: layers.Softmax(), _one, _one, OUTPUT),
    LayerCase(
        "CrossEntropyError",
        lambda d: layers.CrossEntropyError(),
        lambda d: (d.probabilities(d.N, d.M), d.labels()),
        lambda d: (),
        OUTPUT,
    ),
    *_losses(),
    LayerCase(
        "SoftmaxWithLoss",
        lambda d: layers.SoftmaxWithLoss(),
        lambda d: (d.normal(d.N, d.M), d.labels()),
        lambda d: (),
        OUTPUT,
    ),
)
