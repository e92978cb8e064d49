"""The book's layers (`common/layers.py`): those of `fastbp.layers` with the numbers of the book's code.

What each class has of the book's, beside its base: `Relu` overwrites `dout`; `SoftmaxWithLoss` has the 1e-7 in its loss
and ignores `dout`; `Dropout` draws its mask from NumPy's global generator and scales at prediction;
`BatchNormalization` treats every pixel for itself; `Pooling` ignores its border in the size of its output.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fastbp import layers
from fastbp.book.functions import (
    cross_entropy_error,
    identity_function,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from fastbp.book.util import col2im, im2col
from fastbp.checks import Array, as_array, not_run, result_dtype, same_shape
from fastbp.layers import Affine, Sigmoid
from fastbp.ops.memory import axes_in_memory, flat
from fastbp.ops.rectifiers import relu_mask

__all__ = [
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "col2im",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


class Relu(layers.ReLU):
    """The rectifier (section 5.5.1), whose `backward` overwrites `dout` with dx and returns it."""

    def backward(self, dout: ArrayLike) -> Array:
        """Put 0 into dout where x <= 0, and return dout.

        Parameters
        ----------
        dout : ndarray
            In the shape of x; of what is not an array yet one is made.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x, or is read-only.
        """
        dout, mask = self.checked(dout, "mask")
        if not dout.flags.writeable:
            raise ValueError("dout: expected an array that can be written to, got a read-only one; pass a copy")
        dtype, axes = result_dtype(dout), axes_in_memory(dout)
        values = flat(dout, dtype, axes)
        relu_mask.of(dtype)(values, flat(mask, mask.dtype, axes))
        if not np.may_share_memory(values, dout):
            order = dout if axes is None else dout.transpose(axes)
            order[...] = values.reshape(order.shape)
        return dout


class SoftmaxWithLoss:
    """Softmax and the cross-entropy error in one (section 5.6.3), with the 1e-7 of the book's code in the logarithm.

    Attributes
    ----------
    loss : number of NumPy's
    y : ndarray
        softmax(x).
    t : ndarray
        The targets, as given: labels, or as many numbers as y has.
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Array | None = None
        self.t: Array | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def forward(self, x: ArrayLike, t: ArrayLike) -> Any:
        """Return the `cross_entropy_error` of softmax(x).

        Parameters
        ----------
        x : array_like
            (N, C), or one sample (C,).
        t : array_like
            As `cross_entropy_error` takes them.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `cross_entropy_error`.
        """
        t = as_array("t", t)
        y = softmax(x)
        self.loss = cross_entropy_error(y, t)
        self.y, self.t = y, t
        return self.loss

    def backward(self, dout: ArrayLike = 1) -> Array:  # noqa: ARG002 - the book's takes it
        """Return (y - t)/N, the gradient of the exact error, whatever dout is. N is the length of t.

        Raises
        ------
        RuntimeError
            Before `forward`.
        """
        y, t = self.y, self.t
        if y is None or t is None:
            not_run(self)
        N = len(t)
        if t.size == y.size:
            return cast(Array, (y - t) / N)
        dx = y.copy()
        dx[np.arange(N), t] -= 1
        dx /= N
        return dx


class Dropout:
    """Dropout that is not inverted (section 6.4.3): in training x·mask, at prediction x·(1 - dropout_ratio).

    Parameters
    ----------
    dropout_ratio : float

    Attributes
    ----------
    mask : ndarray of bool
        Where the last `forward` in training kept a value: ``np.random.rand(*x.shape) > dropout_ratio``, from NumPy's
        global generator.
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.mask: Array | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dropout_ratio={self.dropout_ratio!r})"

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """Return x·mask, with a new mask, or for prediction x·(1 - dropout_ratio).

        Parameters
        ----------
        x : array_like
            Any shape.
        train_flg : bool

        Raises
        ------
        TypeError
            If x is not real numbers.
        """
        x = as_array("x", x)
        if not train_flg:
            return cast(Array, x * (1.0 - self.dropout_ratio))
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout: ArrayLike) -> Array:
        """Return dout·mask.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Raises
        ------
        RuntimeError
            Before a `forward` in training.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        if self.mask is None:
            not_run(self)
        dout = as_array("dout", dout)
        same_shape("dout", dout, self.mask.shape, "as the input")
        return dout * self.mask


class Convolution(layers.Convolution):
    """The convolution of images with filters (section 7.4.3); b may be a number, which is taken for every filter."""

    def __init__(self, W: Array, b: Any, stride: int = 1, pad: int = 0) -> None:
        super().__init__(W, b if isinstance(b, np.ndarray) else np.full(len(W), b, W.dtype), stride, pad)


class Pooling(layers.Pooling):
    """The largest pixel of each window (section 7.4.4).

    The size of the output is int((H - pool_h)/stride) + 1, whatever the border. So a border is an error, but where the
    stride leaves as many windows with it. Its pixels are 0, and may be the largest of their window.

    Parameters
    ----------
    pool_h, pool_w, stride, pad : int

    Attributes
    ----------
    x : ndarray (N, C, H, W)
        The input of the last `forward`, with the border.
    arg_max : ndarray of int (N, C, OH, OW)
        The place of the largest pixel in its window. The book's has one axis.
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 2, pad: int = 0) -> None:
        super().__init__(pool_h, pool_w, stride)
        self.border = pad

    def forward(self, x: ArrayLike) -> Array:
        """Return the largest pixel of each window.

        Parameters
        ----------
        x : array_like (N, C, H, W)

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape; or images smaller than the window, or of a size for which the
            border makes more windows.
        """
        pad = self.border
        if pad == 0:
            return super().forward(x)
        images = as_array("x", x)
        padded = np.pad(images, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        out = super().forward(padded)
        sizes = tuple(
            int((images.shape[k] - pool) / self.stride) + 1 for k, pool in ((2, self.pool_h), (3, self.pool_w))
        )
        if out.shape[2:] != sizes:
            raise ValueError(
                f"pad: expected 0, or a border with which there are {sizes} windows, as without one, got {pad} and "
                f"{out.shape[2:]}; take fastbp.layers.Pooling, which counts the border"
            )
        return out

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx: dout at the largest pixel of each window.

        Parameters
        ----------
        dout : array_like (N, C, OH, OW)

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As that of `fastbp.layers.Pooling`.
        """
        dx = super().backward(dout)
        pad = self.border
        return dx[:, :, pad : dx.shape[2] - pad, pad : dx.shape[3] - pad] if pad else dx


class BatchNormalization(layers.BatchNormalization):
    """Batch normalization (section 6.3) of each number of a sample, for images of each of their C·H·W pixels.

    Running statistics begin at 0. `backward` goes back through the last `forward` in training, whatever was predicted
    since.

    Parameters
    ----------
    gamma, beta : ndarray (D,)
        Kept as given, not copied.
    momentum : float
    running_mean, running_var : ndarray (D,), optional
        Where the statistics of prediction begin.

    Attributes
    ----------
    dgamma, dbeta : ndarray (D,)
        Gradients, new arrays at each `backward`.
    """

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        zeros = np.zeros(np.shape(gamma))
        mean, var = zeros if running_mean is None else running_mean, zeros if running_var is None else running_var
        super().__init__(gamma, beta, momentum, mean, var)
        self.input_shape: tuple[int, ...] | None = None

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """Return gamma·(x - mean)/sqrt(var + 10e-7) + beta.

        Parameters
        ----------
        x : array_like (N, ...)
        train_flg : bool

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers, or its samples have not as many numbers as gamma.
        """
        x, before = as_array("x", x), self._forward
        out = super().forward(x.reshape(len(x), -1), train_flg)
        if train_flg:
            self.input_shape = x.shape
        else:
            self._forward = before
        self._is_training = True
        return out.reshape(x.shape)

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx, and set dgamma and dbeta.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As that of `fastbp.layers.BatchNormalization`.
        """
        dout = as_array("dout", dout)
        dx = super().backward(dout.reshape(len(dout), -1) if dout.ndim else dout)
        return dx.reshape(dout.shape)
