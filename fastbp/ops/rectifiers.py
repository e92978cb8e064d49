"""Rectifiers: ReLU, and functions that are like it.

A new one is a pair of functions of a number, their twins in NumPy, a class, and a record.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, from_kernel, result_dtype
from fastbp.ops.activations import sigmoid_twin
from fastbp.ops.contract import Activation, LayerRecord, layer, twin_of
from fastbp.ops.elementwise import ElementwiseLayer, SameShapeLayer, activation, elementwise
from fastbp.ops.memory import axes_in_memory, empty_in, flat
from fastbp.runtime.elementary import as_like, erf, exp, expm1, log1p, logistic, one, zero
from fastbp.runtime.gemm import epilogue
from fastbp.runtime.jit import kernel
from fastbp.runtime.sharing import shared_kernel

__all__ = ["ELU", "GELU", "LeakyReLU", "ReLU", "Relu", "SiLU", "Softplus"]

_BOOL = np.dtype(np.bool_)

# ReLU. Its kernels leave a mask, as the book's layer does.


@shared_kernel
def _relu_forward(x, out, mask):
    """mask = x <= 0; out = 0 where mask, else x (so NaN stays NaN)."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        mask[i] = x[i] <= zero
        out[i] = zero if x[i] <= zero else x[i]


@twin_of(_relu_forward)
def relu_forward(x: Array, out: Array, mask: Array) -> None:
    np.less_equal(x, 0, out=mask)
    out[...] = x
    out[mask] = 0


@shared_kernel
def _relu_backward(dout, mask, dx):
    """dx = 0 where mask, else dout."""
    zero = dout.dtype.type(0)
    for i in range(dout.size):
        dx[i] = zero if mask[i] else dout[i]


@twin_of(_relu_backward)
def relu_backward(dout: Array, mask: Array, dx: Array) -> None:
    dx[...] = dout
    dx[mask] = 0


@shared_kernel
def _relu_mask(dout, mask):
    """dout = 0 where mask: `relu_backward` in place, for which no loop over two pointers to one array uses vectors."""
    zero = dout.dtype.type(0)
    for i in range(dout.size):
        dout[i] = zero if mask[i] else dout[i]


@twin_of(_relu_mask)
def relu_mask(dout: Array, mask: Array) -> None:
    dout[mask] = 0


@kernel
def _relu(x):
    return zero(x) if x <= zero(x) else x


@kernel
def _relu_slope(dout, y):
    return zero(dout) if y == zero(y) else dout


def _relu_twin(x: Any) -> Any:
    return np.where(x <= 0, 0, x)


def _relu_slope_twin(dout: Any, y: Any) -> Any:
    return np.where(y == 0, 0, dout)


class ReLU(SameShapeLayer):
    """The rectifier: 0 where x <= 0, else x (section 5.5.1).

    Its gradient at x = 0 is 0, as in the book's equation. Unlike the book's, `backward` does not overwrite
    `dout`. NaN stays NaN.

    Attributes
    ----------
    mask : ndarray of bool
        x <= 0, in the shape of x.

    Examples
    --------
    >>> layer = ReLU()
    >>> layer.forward([-2.0, 0.0, 3.0])
    array([0., 0., 3.])
    >>> layer.backward([1.0, 1.0, 1.0])
    array([0., 0., 1.])
    """

    def __init__(self) -> None:
        self.mask: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        x = as_array("x", x)
        dtype = result_dtype(x)
        axes = None if x.flags.c_contiguous else axes_in_memory(x)
        (out, elements), (mask, masks) = empty_in(axes, x.shape, dtype), empty_in(axes, x.shape, _BOOL)
        relu_forward.of(dtype)(flat(x, dtype, axes), elements, masks)
        self.mask = mask
        return from_kernel(out, dtype)

    def backward(self, dout: ArrayLike) -> Array:
        dout, mask = self.checked(dout, "mask")
        dtype = result_dtype(dout)
        axes = None if mask.flags.c_contiguous else axes_in_memory(mask)
        dx, elements = empty_in(axes, dout.shape, dtype)
        relu_backward.of(dtype)(flat(dout, dtype, axes), flat(mask, mask.dtype, axes), elements)
        return from_kernel(dx, dtype)


Relu = ReLU

layer(
    LayerRecord(
        ReLU,
        activation=Activation(
            "relu",
            relu_forward,
            relu_backward,
            _relu,
            _relu_slope,
            _relu_twin,
            _relu_slope_twin,
            in_place=lambda _: epilogue.RECTIFY,
            epilogue=lambda _: epilogue.RECTIFY,
            slope_epilogue=lambda _: epilogue.RECTIFY_SLOPE,
            leaves_mask=True,
        ),
    )
)


# Leaky ReLU.


def _leaky_relu(x, alpha):
    return alpha * x if x <= zero(x) else x


def _leaky_relu_slope(dout, y, alpha):
    return alpha * dout if y <= zero(y) else dout


def _leaky_relu_twin(x: Any, alpha: float) -> Any:
    return np.where(x <= 0, alpha * x, x)


def _leaky_relu_slope_twin(dout: Any, y: Any, alpha: float) -> Any:
    return np.where(y <= 0, alpha * dout, dout)


class LeakyReLU(ElementwiseLayer):
    """alpha·x where x <= 0, else x (Maas, Hannun and Ng, "Rectifier Nonlinearities", ICML 2013).

    dx = alpha·dout where x <= 0, else dout.

    Parameters
    ----------
    alpha : float
        At least 0; may be set at any time.

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.

    Examples
    --------
    >>> LeakyReLU(0.1).forward([-2.0, 3.0])
    array([-0.2,  3. ])
    """

    def __init__(self, alpha: float = 0.01) -> None:
        super().__init__()
        self.alpha = alpha


activation(
    LeakyReLU,
    elementwise(
        "leaky_relu", _leaky_relu, _leaky_relu_slope, _leaky_relu_twin, _leaky_relu_slope_twin, settings=("alpha",)
    ),
)


# ELU.


def _elu(x, alpha):
    return alpha * expm1(x) if x <= zero(x) else x


def _elu_slope(dout, y, alpha):
    return dout * (y + alpha) if y <= zero(y) else dout


def _elu_twin(x: Any, alpha: float) -> Any:
    return np.where(x <= 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _elu_slope_twin(dout: Any, y: Any, alpha: float) -> Any:
    return np.where(y <= 0, dout * (y + alpha), dout)


class ELU(ElementwiseLayer):
    """The exponential linear unit, alpha·(exp(x) - 1) where x <= 0, else x (Clevert et al., arXiv:1511.07289).

    dx = dout·(y + alpha) where x <= 0, else dout.

    Parameters
    ----------
    alpha : float
        At least 0; may be set at any time.

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.

    Examples
    --------
    >>> ELU().forward([-1.0, 3.0]).round(4)
    array([-0.6321,  3.    ])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha


activation(ELU, elementwise("elu", _elu, _elu_slope, _elu_twin, _elu_slope_twin, settings=("alpha",)))


# Softplus.


def _softplus(x):
    return (x if x > zero(x) else zero(x)) + log1p(exp(-abs(x)))


def _softplus_slope(dout, y):
    return dout * -expm1(-y)


def _softplus_twin(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _softplus_slope_twin(dout: Any, y: Any) -> Any:
    return dout * -np.expm1(-y)


class Softplus(ElementwiseLayer):
    """y = log(1 + exp(x)), a smooth ReLU, exact in both tails; dx = dout·(1 - exp(-y)).

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.

    Examples
    --------
    >>> Softplus().forward([-50.0, 0.0, 50.0])
    array([1.92874985e-22, 6.93147181e-01, 5.00000000e+01])
    """


activation(
    Softplus,
    elementwise("softplus", _softplus, _softplus_slope, _softplus_twin, _softplus_slope_twin, symbol="softplus"),
)


# SiLU.


def _silu(x):
    return x * logistic(x)


def _silu_slope(dout, x):
    s = logistic(x)
    return dout * (s + x * s * (one(x) - s))


def _silu_twin(x: Any) -> Any:
    return x * sigmoid_twin(x)


def _silu_slope_twin(dout: Any, x: Any) -> Any:
    s = sigmoid_twin(x)
    return dout * (s + x * s * (1 - s))


class SiLU(ElementwiseLayer):
    """y = x·sigmoid(x), also called swish (Ramachandran et al., arXiv:1710.05941).

    dx = dout·(s + x·s·(1 - s)) with s = sigmoid(x).

    Attributes
    ----------
    x : ndarray
        The input of the last `forward`, not copied.

    Examples
    --------
    >>> SiLU().forward([-1.0, 0.0, 2.0]).round(4)
    array([-0.2689,  0.    ,  1.7616])
    """


activation(SiLU, elementwise("silu", _silu, _silu_slope, _silu_twin, _silu_slope_twin, reads_input=True))


# GELU.


def _gelu(x):
    return as_like(x, 0.5) * x * (one(x) + erf(x * as_like(x, _ROOT_HALF)))


def _gelu_slope(dout, x):
    share = as_like(x, 0.5) * (one(x) + erf(x * as_like(x, _ROOT_HALF)))
    return dout * (share + x * as_like(x, _NORMAL_DENSITY_AT_0) * exp(as_like(x, -0.5) * x * x))


def _gelu_twin(x: Any) -> Any:
    return 0.5 * x * (1 + _erf_twin(x * _ROOT_HALF))


def _gelu_slope_twin(dout: Any, x: Any) -> Any:
    return dout * (0.5 * (1 + _erf_twin(x * _ROOT_HALF)) + x * _NORMAL_DENSITY_AT_0 * np.exp(-0.5 * x * x))


_erf_of_objects = np.frompyfunc(math.erf, 1, 1)


def _erf_twin(x: Any) -> Any:
    return np.positive(_erf_of_objects(x), dtype=np.float64, casting="unsafe")


_ROOT_HALF, _NORMAL_DENSITY_AT_0 = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


class GELU(ElementwiseLayer):
    """y = x·Φ(x) with the normal distribution Φ(x) = (1 + erf(x/√2))/2 (Hendrycks and Gimpel, arXiv:1606.08415).

    The exact form, not that by tanh. dx = dout·(Φ(x) + x·φ(x)) with the normal density φ.

    Attributes
    ----------
    x : ndarray
        The input of the last `forward`, not copied.

    Examples
    --------
    >>> GELU().forward([-1.0, 0.0, 2.0]).round(4)
    array([-0.1587,  0.    ,  1.9545])
    """


activation(GELU, elementwise("gelu", _gelu, _gelu_slope, _gelu_twin, _gelu_slope_twin, reads_input=True))
