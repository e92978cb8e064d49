"""Losses that are sums over numbers, from what they are for one: Huber, the absolute error, quantiles.

A new one is a pair of functions of a number, their twins in NumPy, a class, and a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, DType, as_array, from_kernel, not_run, quotient_dtype, rate, scalar
from fastbp.ops.contract import LayerRecord, Loss, Twins, layer, twin_of
from fastbp.ops.losses import RegressionLoss, dout_of_sum, mean_loss, mean_of, mean_twin, shares_of, weighted
from fastbp.ops.state import end_of, targets_of
from fastbp.ops.targets import number_targets
from fastbp.runtime.elementary import as_like, one, zero
from fastbp.runtime.jit import kernel, named
from fastbp.runtime.pointers import view
from fastbp.runtime.sharing import public_kernel

__all__ = ["AbsoluteErrorWithLoss", "HuberWithLoss", "QuantileWithLoss"]


@dataclass(frozen=True)
class NumberLoss:
    """The twins of such a loss.

    Attributes
    ----------
    forward, of_rows, backward : Twins
        forward(x, t, settings) is the mean over the batch, of_rows(x, t, settings, losses) writes the loss of each row,
        and backward(x, t, settings, factor, dx) the gradient times a factor. `settings` is a float64 array.
    of_targets : kernel
        For the engine, as in `Loss`.
    """

    forward: Twins
    of_rows: Twins
    backward: Twins
    of_targets: Any


def number_loss(
    name: str,
    value: Callable[..., Any],
    slope: Callable[..., Any],
    twin: Callable[..., Any],
    slope_twin: Callable[..., Any],
) -> NumberLoss:
    """The twins of a loss from what it is for one number.

    Parameters
    ----------
    name : str
        They are `name`_forward, `name`_of_rows and `name`_backward.
    value, slope : function
        value(x, t, setting) and slope(x, t, setting) of an output and a target; to be compiled. Outputs in column j
        take setting j, counted around.
    twin, slope_twin : function
        The same for arrays, in NumPy; settings come as a row.
    """
    value, slope = kernel(named(value, name)), kernel(named(slope, name))

    def of_rows(x, t, settings, losses):
        for i in range(len(x)):
            losses[i] = 0
            for j in range(x.shape[1]):
                losses[i] += value(x[i, j], t[i, j], x.dtype.type(settings[j % len(settings)]))

    def forward(x, t, settings):
        losses = np.empty(len(x))
        rows_kernel(x, t, settings, losses)
        return mean_of(losses)

    def backward(x, t, settings, factor, dx):
        scale = x.dtype.type(factor)
        for i in range(len(x)):
            for j in range(x.shape[1]):
                dx[i, j] = scale * slope(x[i, j], t[i, j], x.dtype.type(settings[j % len(settings)]))

    def of_targets(network_at, count, i0, i1):
        h, d, losses = end_of(network_at, i0, i1)
        t, settings = targets_of(network_at, i0, i1), view(network_at).loss_settings
        settings = settings[: len(settings) - 1]
        rows_kernel(h, t, settings, losses)
        backward_kernel(h, t, settings, 1.0 / count, d)

    def of_rows_twin(x: Array, t: Array, settings: Array, losses: Array) -> None:
        np.sum(twin(x, t, _as_row(settings, x)), axis=1, out=losses)

    def forward_twin(x: Array, t: Array, settings: Array) -> float:
        return mean_twin(np.sum(twin(x, t, _as_row(settings, x)), axis=1))

    def backward_twin(x: Array, t: Array, settings: Array, factor: float, dx: Array) -> None:
        dx[...] = slope_twin(x, t, _as_row(settings, x)) * factor

    compiled: list[Any] = [public_kernel(named(function, name)) for function in (forward, of_rows, backward)]
    rows_kernel, backward_kernel = compiled[1].kernel, compiled[2].kernel
    forward_twin.__doc__ = "The mean over the batch of the losses of rows."
    of_rows_twin.__doc__ = "losses = the loss of each row."
    backward_twin.__doc__ = "dx = factor times the slope of each loss."
    plain: list[Callable[..., Any]] = [forward_twin, of_rows_twin, backward_twin]
    for function, way in zip(plain, ("forward", "of_rows", "backward"), strict=True):
        function.__name__ = f"{name}_{way}"
    twins = [twin_of(compiled_one)(function) for compiled_one, function in zip(compiled, plain, strict=True)]
    return NumberLoss(twins[0], twins[1], twins[2], kernel(named(of_targets, name)))


def _as_row(settings: Array, x: Array) -> Array:
    return np.resize(settings, x.shape[1]).astype(x.dtype)


class NumberLossLayer(RegressionLoss):
    """A loss that is a sum over numbers: what such layers share.

    Attributes
    ----------
    x : ndarray
        The predictions, as given.
    t : ndarray
        The targets, as given.
    """

    function: ClassVar[NumberLoss]

    def __init__(self) -> None:
        super().__init__()
        self.x: Array | None = None

    def numbers(self) -> tuple[float, ...]:
        """The settings as the kernels take them: one, or one for each column."""
        return (0.0,)

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        x, t = as_array("x", x), as_array("t", t)
        predictions, targets = self.operands(x, t)
        operands = predictions, targets, np.array(self.numbers())
        shares = shares_of(sample_weight, len(predictions))
        loss = mean_loss(self.function.forward, self.function.of_rows, operands, shares)
        self.x, self.t, self.loss, self._shares = x, t, loss, shares
        return loss

    def backward(self, dout: ArrayLike = 1) -> Array:
        x, t, shares = self.x, self.t, self._shares
        if x is None or t is None:
            not_run(self)
        x = as_array("x", x)
        predictions, targets = self.operands(x, as_array("t", t))
        dx = np.empty_like(predictions)
        factor = dout_of_sum(scalar("dout", dout), shares) / max(1, len(predictions))
        self.function.backward.of(predictions.dtype)(predictions, targets, np.array(self.numbers()), factor, dx)
        return from_kernel(weighted(dx, shares), quotient_dtype(x, targets)).reshape(x.shape)


def number_loss_layer(kind: type[NumberLossLayer], function: NumberLoss, output: str, **more: Any) -> None:
    """Register the layer class of a loss that is a sum over numbers."""
    kind.function = function
    settings, targets = more.get("settings", ()), more.get("targets", number_targets)
    record = Loss(lambda *_: (function.of_targets, None), targets, output, settings=lambda layer, _: layer.numbers())
    layer(LayerRecord(kind, settings=settings, loss=record))


# The Huber loss.


def _huber(x, t, delta):
    size = abs(x - t)
    return size * size / as_like(x, 2.0) if size <= delta else delta * (size - delta / as_like(x, 2.0))


def _huber_slope(x, t, delta):
    difference = x - t
    return -delta if difference < -delta else delta if difference > delta else difference


def _huber_twin(x: Array, t: Array, delta: Array) -> Any:
    size = np.abs(x - t)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


def _huber_slope_twin(x: Array, t: Array, delta: Array) -> Any:
    return np.clip(x - t, -delta, delta)


class HuberWithLoss(NumberLossLayer):
    """Identity output with the Huber loss, for regression with outliers (Huber, Ann. Math. Statist. 35, 1964).

    The loss of one is (x - t)²/2 where |x - t| <= delta, else delta·(|x - t| - delta/2). Its slope is x - t, cut at
    -delta and delta.

    Parameters
    ----------
    delta : float
        At least 0; may be set at any time.

    Examples
    --------
    >>> HuberWithLoss(1.0).forward([[0.5, 3.0]], [[0.0, 0.0]])
    2.625
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = rate("delta", delta)

    def numbers(self) -> tuple[float, ...]:
        """Delta, checked."""
        return (rate("delta", self.delta),)


number_loss_layer(
    HuberWithLoss,
    number_loss("huber", _huber, _huber_slope, _huber_twin, _huber_slope_twin),
    "huber",
    settings=("delta",),
)


# The absolute error.


def _absolute_error(x, t, _):
    return abs(x - t)


def _absolute_error_slope(x, t, _):
    difference = x - t
    return one(x) if difference > zero(x) else -one(x) if difference < zero(x) else difference


class AbsoluteErrorWithLoss(NumberLossLayer):
    """Identity output with the absolute error |x - t|, for the median; its slope is the sign of x - t.

    Examples
    --------
    >>> AbsoluteErrorWithLoss().forward([[0.5, 3.0]], [[0.0, 0.0]])
    3.5
    """


number_loss_layer(
    AbsoluteErrorWithLoss,
    number_loss(
        "absolute_error",
        _absolute_error,
        _absolute_error_slope,
        lambda x, t, _: np.abs(x - t),
        lambda x, t, _: np.sign(x - t),
    ),
    "absolute_error",
)


# The quantile loss.


def _quantile(x, t, q):
    difference = t - x
    return q * difference if difference >= zero(x) else (q - one(x)) * difference


def _quantile_slope(x, t, q):
    difference = t - x
    return -q if difference > zero(x) else one(x) - q if difference < zero(x) else difference


def _quantile_twin(x: Array, t: Array, q: Array) -> Any:
    return np.where(t >= x, q * (t - x), (q - 1) * (t - x))


def _quantile_slope_twin(x: Array, t: Array, q: Array) -> Any:
    return np.where(t > x, -q, np.where(t < x, 1 - q, t - x))


def _repeated_targets(t: object, shape: tuple[int, int], dtype: DType) -> Array:
    """Targets in the shape of the outputs, or one for each sample, which every quantile gets."""
    values = as_array("t", t)
    if values.shape in (shape[:1], (shape[0], 1)) and shape[1] > 1:
        values = np.repeat(values.reshape(-1, 1), shape[1], axis=1)
    return number_targets(values, shape, dtype)


class QuantileWithLoss(NumberLossLayer):
    """Identity output with the pinball loss, for quantiles (Koenker and Bassett, Econometrica 46, 1978).

    The loss of one is q·(t - x) where t >= x, else (1 - q)·(x - t). Its slope is -q where t > x, and 1 - q where
    t < x.

    Parameters
    ----------
    quantiles : sequence of float
        From 0 to 1. Column j of the outputs is for quantile j, counted around. With several, t may have one target for
        each sample, (N,) or (N, 1).

    Examples
    --------
    >>> QuantileWithLoss([0.25, 0.5, 0.75]).forward([[0.0, 1.0, 2.0]], [[1.0]])
    0.5
    """

    def __init__(self, quantiles: Sequence[float] = (0.5,)) -> None:
        super().__init__()
        if not isinstance(quantiles, Iterable):
            raise TypeError(
                f"quantiles: expected a sequence of numbers, got {type(quantiles).__name__}; pass (0.1, 0.9)"
            )
        self.quantiles = tuple(quantiles)
        self.numbers()

    def numbers(self) -> tuple[float, ...]:
        """The quantiles, checked."""
        if not self.quantiles:
            raise ValueError("quantiles: expected at least one, got none; give some such as (0.1, 0.5, 0.9)")
        return tuple(rate(f"quantiles[{place}]", q, most=1) for place, q in enumerate(self.quantiles))

    def targets(self, t: Array, shape: tuple[int, ...]) -> Array:
        """Those given, or one target of each sample for every quantile."""
        if len(shape) == 2 and t.shape in (shape[:1], (shape[0], 1)):
            return np.repeat(t.reshape(-1, 1), shape[1], axis=1)
        return super().targets(t, shape)


number_loss_layer(
    QuantileWithLoss,
    number_loss("quantile", _quantile, _quantile_slope, _quantile_twin, _quantile_slope_twin),
    "quantile",
    settings=("quantiles",),
    targets=_repeated_targets,
)
