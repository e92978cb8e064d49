"""The convolution of images with filters (section 7.4), computed without a matrix of windows (im2col).

    out[n, f, y, x] = b[f] + sum over c, i, j of W[f, c, i, j] · x[n, c, y·stride + i - pad, x·stride + j - pad]

Pixels outside of the image are 0. The samples of a batch lie side by side in the memory of the results, (C, H, W, N):
every vector is then full of samples, whatever the number of filters and the width of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, from_kernel, not_run, parameter, result_dtype, same_shape, to_kernel
from fastbp.ops.contract import LayerRecord, Map, Shape, layer, twin_of
from fastbp.ops.images import (
    empty_lanes,
    images,
    images_of_shape,
    in_kernel_dtype,
    other_channels,
    output_size,
    steps,
    window_pixels,
    words_of,
)
from fastbp.ops.prediction import row_at
from fastbp.ops.state import (
    B_AT,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    EPILOGUE,
    H_IN,
    H_OUT,
    IN_C,
    IN_H,
    IN_W,
    KEPT,
    LANES,
    M_OUT,
    MEMORY_AT,
    OUT_C,
    OUT_H,
    OUT_W,
    POOL,
    SETTINGS_AT,
    SLOPE,
    W_AT,
    WORD,
    Z_OUT,
    sums_of,
    update_by_sums,
)
from fastbp.runtime.gemm.tile import zeros
from fastbp.runtime.jit import kernel
from fastbp.runtime.lanes.correlation import convolution_of, correlate_alone, correlation, phase_of, phases
from fastbp.runtime.lanes.filters import filter_gradient, filter_sums
from fastbp.runtime.lanes.panel import slice_of, unpooled_slice
from fastbp.runtime.pointers import at, located, pointer_to, record_pointer, view

__all__ = ["Convolution"]


def _convolution_forward(x: Any, W: Any, b: Any, stride: int, pad: int, out: Any) -> None:
    """out = the correlation of x with W, plus b."""
    F, C, FH, FW = W.shape
    N, _, OH, OW = out.shape
    if out.size == 0:
        return
    lanes = out.transpose(1, 2, 3, 0)
    out_f, out_y, out_x = (step // out.itemsize for step in lanes.strides[:3])
    words = (
        *words_of(x), N,
        _address(W), C * FH * FW, FH * FW, FW, 1,
        _address(b), 1,
        F, FH, FW, stride, 1, -pad, -pad, 0, OH, 0, OW,
        _address(out), out_f, out_y, out_x,
    )  # fmt: skip
    correlation(np.array(words), lanes[:0, 0, 0, 0])


@twin_of(_convolution_forward)
def convolution_forward(x: Array, W: Array, b: Array, stride: int, pad: int, out: Array) -> None:
    out[...] = b[:, None, None]
    padded = _padded(x, pad)
    for i, j, lines, columns in window_pixels(W.shape[2:], out.shape[2:], stride):
        out += np.tensordot(padded[:, :, lines, columns], W[:, :, i, j], (1, 1)).transpose(0, 3, 1, 2)


def _convolution_backward(x: Any, W: Any, dout: Any, stride: int, pad: int, dx: Any, dW: Any, db: Any) -> None:
    """dx, dW and db, each as the chain rule has it."""
    words = np.array((*words_of(dout), *words_of(dx), len(dx), _address(W), *W.shape[2:], stride, pad))
    phases(words, dx.transpose()[0, 0, 0, :0])
    _convolution_backward_parameters(x, dout, stride, pad, dW, db)


@twin_of(_convolution_backward)
def convolution_backward(
    x: Array, W: Array, dout: Array, stride: int, pad: int, dx: Array, dW: Array, db: Array
) -> None:
    padded = np.zeros_like(_padded(x, pad), dx.dtype)
    for i, j, lines, columns in window_pixels(W.shape[2:], dout.shape[2:], stride):
        padded[:, :, lines, columns] += np.tensordot(dout, W[:, :, i, j], (1, 0)).transpose(0, 3, 1, 2)
    dx[...] = padded[:, :, pad : pad + dx.shape[2], pad : pad + dx.shape[3]]
    convolution_backward_parameters.twin(x, dout, stride, pad, dW, db)


def _convolution_backward_parameters(x: Any, dout: Any, stride: int, pad: int, dW: Any, db: Any) -> None:
    """dW and db: all that a network's first layer needs."""
    words = np.array((*words_of(x), *words_of(dout), len(x), *dW.shape[2:], stride, pad))
    total = np.empty(dW.size + db.size, dW.dtype)
    filter_gradient(words, total)
    dW[...] = total[: dW.size].reshape(dW.shape)
    db[...] = total[dW.size :]


@twin_of(_convolution_backward_parameters)
def convolution_backward_parameters(x: Array, dout: Array, stride: int, pad: int, dW: Array, db: Array) -> None:
    padded = _padded(x, pad)
    for i, j, lines, columns in window_pixels(dW.shape[2:], dout.shape[2:], stride):
        dW[:, :, i, j] = np.tensordot(dout, padded[:, :, lines, columns], ((0, 2, 3), (0, 2, 3)))
    db[...] = np.sum(dout, axis=(0, 2, 3))


def _padded(x: Array, pad: int) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


@kernel
def _forward(network_at, number, part, i0, i1):
    """Images of a slice, convolved; pooled where the next row is one with this."""
    network = view(network_at)
    layer, workspace, S = network.layers[number], network.workspace, i1 - i0
    x = slice_of(at(workspace, layer[H_IN]), i0, S, layer[IN_C], layer[IN_H], layer[IN_W])
    out = _outputs(network_at, number, Z_OUT, i0, S)
    W, b = at(network.params, layer[W_AT]), at(network.params, layer[B_AT])
    FH, FW, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    h, settings = at(workspace, layer[H_OUT] + i0 * layer[M_OUT]), at(network.settings, layer[SETTINGS_AT])
    convolution = convolution_of(x, S, W, b, layer[OUT_C], FH, FW, stride, pad, out, layer[EPILOGUE], h, settings)
    correlate_alone(record_pointer(convolution))


@kernel
def _sums(network_at, number, part, i0, i1):
    """dW and db of a slice."""
    network = view(network_at)
    layer, workspace, S = network.layers[number], network.workspace, i1 - i0
    x = slice_of(at(workspace, layer[H_IN]), i0, S, layer[IN_C], layer[IN_H], layer[IN_W])
    dout = _outputs(network_at, number, DELTA, i0, S)
    FH, FW, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    filter_sums(x, dout, S, FH, FW, stride, pad, sums_of(network_at, number, part))


@kernel
def _backward(network_at, number, part, i0, i1):
    """dx of a slice, times the slope of the activation before."""
    network = view(network_at)
    layer, workspace, S = network.layers[number], network.workspace, i1 - i0
    previous, kept = network.layers[number - 1], at(workspace, network.layers[number - 1, KEPT] + i0 * layer[D_IN])
    settings = at(network.settings, previous[SETTINGS_AT])
    dx = slice_of(at(workspace, layer[DELTA_BEFORE]), i0, S, layer[IN_C], layer[IN_H], layer[IN_W])
    dout = _outputs(network_at, number, DELTA, i0, S)
    W, nothing = at(network.params, layer[W_AT]), zeros(dx.at)
    FH, FW, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    for i in range(stride):
        for j in range(stride):
            phase = phase_of(dout, S, W, FH, FW, stride, pad, nothing, dx, i, j, previous[SLOPE], kept, settings)
            correlate_alone(record_pointer(phase))


@kernel
def _outputs(network_at, number, column, i0, S):
    """The outputs of a slice or their gradient, in the memory that `column` of the table says.

    Where the next row is one with this they are given by what is there.
    """
    network = view(network_at)
    layer, workspace = network.layers[number], network.workspace
    C, H, W, pool = layer[OUT_C], layer[OUT_H], layer[OUT_W], layer[POOL]
    if pool:
        following = network.layers[number + 1]
        places = at(workspace, following[MEMORY_AT])
        return unpooled_slice(at(workspace, following[column]), places, i0, S, C, H, W, pool)
    return slice_of(at(workspace, layer[column]), i0, S, C, H, W)


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    """Images of a slice, convolved."""
    layer, zero = row_at(layer_at), np.intp(0)
    x = slice_of(h, zero, N, layer[IN_C], layer[IN_H], layer[IN_W])
    z = slice_of(out, zero, N, layer[OUT_C], layer[OUT_H], layer[OUT_W])
    W, b = located(h, layer[W_AT]), located(h, layer[B_AT])
    FH, FW, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    settings = pointer_to(np.float64, layer[SETTINGS_AT])
    convolution = convolution_of(x, N, W, b, layer[OUT_C], FH, FW, stride, pad, z, layer[EPILOGUE], out, settings)
    correlate_alone(record_pointer(convolution))


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    W, _, stride, pad = layer._parameters()
    shape = images_of_shape(shape, whose, W.shape[1])
    return (W.shape[0], *(output_size(shape[k], W.shape[k + 1], stride, pad, "filters") for k in (1, 2)))


def _words(layer: Any) -> tuple[int, ...]:
    W, _, stride, pad = layer._parameters()
    return *W.shape[2:], stride, pad


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


class Convolution:
    """The convolution of images with filters, plus a bias for each filter (section 7.4).

        out[n, f, y, x] = b[f] + sum over c, i, j of W[f, c, i, j] · x[n, c, y·stride + i - pad, x·stride + j - pad]

    Each image gets a border of `pad` zeros, and a filter is put on every `stride`-th pixel. There are
    OH = (H + 2·pad - FH)//stride + 1 lines of such places and OW columns.

    Parameters
    ----------
    W : ndarray (FN, C, FH, FW)
        FN filters for C channels.
    b : ndarray (FN,)
        Kept as given, not copied, as W.
    stride : int
        At least 1.
    pad : int
        At least 0.

    Attributes
    ----------
    W, b : ndarray
        The very arrays given.
    x : ndarray (N, C, H, W)
        The input of the last `forward`.
    dW : ndarray (FN, C, FH, FW)
    db : ndarray (FN,)
        Gradients by `W` and `b`, new arrays at each `backward`.

    Raises
    ------
    TypeError, ValueError
        If W and b are not arrays of real numbers in these shapes, or stride or pad is not such an integer.

    Notes
    -----
    The samples of a result lie side by side in memory: its axes are (N, FN, OH, OW), its memory is (FN, OH, OW, N), as
    in the array that ``np.empty((FN, OH, OW, N)).transpose(3, 0, 1, 2)`` gives. A convolution, a pooling or an
    elementwise layer that comes next reads it as it is. No matrix of windows is built.

    Examples
    --------
    >>> conv = Convolution(np.ones((1, 1, 2, 2)), np.zeros(1))
    >>> conv.forward(np.arange(9.0).reshape(1, 1, 3, 3))[0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """

    parameter_names = ("W", "b")

    def __init__(self, W: Array, b: Array, stride: int = 1, pad: int = 0) -> None:
        self.W, self.b = W, b
        self.stride, self.pad = stride, pad
        self._parameters()
        self.x: Array | None = None
        self.dW: Array | None = None
        self.db: Array | None = None
        self._forward: tuple[Array, Array, int, int, tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return the convolution of x with the filters.

        Parameters
        ----------
        x : array_like (N, C, H, W)

        Returns
        -------
        ndarray (N, FN, OH, OW)
            A new array.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape, or images smaller than the filters.
        """
        W, b, stride, pad = self._parameters()
        x = images("x", as_array("x", x))
        if x.shape[1] != W.shape[1]:
            raise ValueError(
                f"x: expected {W.shape[1]} channels, as the filters W {W.shape} have, got shape {x.shape}; "
                + other_channels(x.shape, W.shape[1])
            )
        height, width = (output_size(x.shape[k], W.shape[k], stride, pad, "filters") for k in (2, 3))
        shape = len(x), len(W), height, width
        dtype = result_dtype(x, W, b)
        out = empty_lanes(shape, dtype)
        convolution_forward.of(dtype)(
            in_kernel_dtype(x, dtype), to_kernel(W, dtype), to_kernel(b, dtype), stride, pad, out
        )
        # Views, whose shapes stay if somebody sets that of x or W.
        self.x, self._forward = x, (x.view(), W.view(), stride, pad, shape)
        return from_kernel(out, dtype)

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx, and set dW and db.

        dx[n, c, ...] is the sum of W·dout over the places whose window has the pixel; dW is the sum of x·dout over
        samples and places, db that of dout.

        Parameters
        ----------
        dout : array_like (N, FN, OH, OW)

        Returns
        -------
        ndarray (N, C, H, W)
            dx, a new array.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        x, W, dout, stride, pad = self._backward_operands(dout)
        dtype = result_dtype(x, W, dout)
        dx, (dW, db) = empty_lanes(x.shape, dtype), _parameter_gradients(W, dtype)
        convolution_backward.of(dtype)(
            in_kernel_dtype(x, dtype), to_kernel(W, dtype), in_kernel_dtype(dout, dtype), stride, pad, dx, dW, db
        )
        self._set_gradients(x, dout, dW, db)
        return from_kernel(dx, result_dtype(dout, W))

    def backward_parameters(self, dout: ArrayLike) -> None:
        """Set dW and db as `backward` does, without dx: for a network's first layer, whose dx nobody reads.

        Parameters
        ----------
        dout : array_like (N, FN, OH, OW)

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As `backward`.

        Examples
        --------
        >>> layer = Convolution(np.ones((1, 1, 2, 2)), np.zeros(1))
        >>> out = layer.forward(np.ones((1, 1, 3, 3)))
        >>> layer.backward_parameters(np.ones((1, 1, 2, 2)))
        >>> layer.dW
        array([[[[4., 4.],
                 [4., 4.]]]])
        """
        x, W, dout, stride, pad = self._backward_operands(dout)
        dtype = result_dtype(x, dout)
        dW, db = _parameter_gradients(W, dtype)
        convolution_backward_parameters.of(dtype)(
            in_kernel_dtype(x, dtype), in_kernel_dtype(dout, dtype), stride, pad, dW, db
        )
        self._set_gradients(x, dout, dW, db)

    def _parameters(self) -> tuple[Array, Array, int, int]:
        W, b = parameter("W", self.W), parameter("b", self.b, 1)
        if W.ndim != 4 or 0 in W.shape[1:]:
            raise ValueError(
                f"W: expected filters (FN, C, FH, FW) of at least one channel and pixel, got shape {W.shape}; "
                "reshape W to four axes"
            )
        if b.shape[0] != W.shape[0]:
            raise ValueError(
                f"b: expected shape ({W.shape[0]},), one element for each filter of W {W.shape}, got {b.shape}; "
                f"make b with np.zeros({W.shape[0]})"
            )
        return W, b, steps("stride", self.stride, 1), steps("pad", self.pad, 0)

    def _backward_operands(self, dout: ArrayLike) -> tuple[Array, Array, Array, int, int]:
        """x, W, stride and pad as forward used them, and dout."""
        if self._forward is None:
            not_run(self)
        x, W, stride, pad, shape = self._forward
        dout = as_array("dout", dout)
        same_shape("dout", dout, shape, "as the output")
        return x, W, dout, stride, pad

    def _set_gradients(self, x: Array, dout: Array, dW: Array, db: Array) -> None:
        dtype = result_dtype(dout)
        self.dW = from_kernel(dW, result_dtype(x, dout))
        self.db = from_kernel(db, dtype) if dtype.kind == "f" else np.sum(dout, axis=(0, 2, 3))


layer(
    LayerRecord(
        Convolution,
        arrays=("W", "b"),
        settings=("stride", "pad"),
        decayed=("W",),
        map=Map(
            _forward,
            _backward,
            update_by_sums,
            _predict,
            sums=_sums,
            shape=_shape,
            layout=lambda _: LANES,
            words=_words,
            pools=True,
            sums_size=lambda layer, _: layer.W.size + layer.b.size,
        ),
    )
)


def _parameter_gradients(W: Array, dtype: Any) -> tuple[Array, Array]:
    """Arrays for a kernel to write dW and db to."""
    kernel_dtype = np.float32 if dtype == np.float16 else dtype
    return np.empty(W.shape, kernel_dtype), np.empty(len(W), kernel_dtype)
