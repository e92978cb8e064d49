"""The layers of "Deep Learning from Scratch", chapter 5: `forward` computes, `backward` applies the chain rule.

A layer checks its arguments, allocates, calls one kernel and keeps what `backward` will need. After an error it
still holds what it held before. Result dtypes are NumPy's for the same operands; inputs are never written to,
and no result is overwritten by a later call. Where a class differs from the book on purpose, it says so.

`backward` goes back through the last `forward` of its layer, whichever thread called it: give each thread layers of
its own, which may share `W` and `b`. What `forward` left may be replaced or written to in between; `backward` takes
each attribute once and checks it, so that nothing outside an array is read.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NoReturn, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from fastbp.implementation import implementation
from fastbp.validation import (
    FLOAT64,
    Array,
    DType,
    as_array,
    binary_target,
    empty,
    finished,
    float_dtype,
    kept_target,
    parameter,
    rate,
    result_dtype,
    rows,
    same_shape,
    sample_weights,
    scalar,
    target,
    whole_number,
    working,
)

__all__ = [
    "AddLayer",
    "Affine",
    "CrossEntropyError",
    "Dropout",
    "ExpWithLoss",
    "Identity",
    "IdentityWithLoss",
    "MulLayer",
    "ReLU",
    "Relu",
    "Sigmoid",
    "SigmoidWithLoss",
    "Softmax",
    "SoftmaxWithLoss",
    "Tanh",
]

# What a kernel takes for a seed or a step without a second compilation.
_LARGEST_SEED = 2**63 - 1

# A scalar or an array: what a node of a computational graph carries.
Value: TypeAlias = Any


class Layer(Protocol):
    """What a network asks of a layer."""

    def forward(self, x: Any) -> Any: ...

    def backward(self, dout: Any) -> Any: ...


class LossLayer(Protocol):
    """What a network asks of its last layer; `loss` is what `forward` returned."""

    loss: float | None

    def forward(self, x: Any, t: Any) -> float: ...

    def backward(self, dout: Any = 1) -> Any: ...


def shares_of_mean(weights: Array, total: Array | float) -> Array:
    """What samples of some weights count for in their mean, w/sum(w); nothing where the sum is 0."""
    return np.divide(weights, total, out=np.zeros_like(weights), where=np.greater(total, 0))


class AddLayer:
    """The addition node, x + y (section 5.4.2).

    Left to NumPy: one addition is bound by memory, and compiled code is no faster.
    """

    _shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None

    def forward(self, x: Value, y: Value) -> Value:
        """Return x + y.

        Parameters
        ----------
        x, y : scalar or array_like
            Shapes that broadcast.

        Raises
        ------
        TypeError
            For operands that are not real numbers.
        ValueError
            If the shapes do not broadcast.
        """
        x, y = _node_operand("x", x), _node_operand("y", y)
        try:
            out = x + y
        except ValueError:
            _do_not_broadcast(x, y)
        self._shapes, self._dtype = (_shape(x), _shape(y), _shape(out)), getattr(out, "dtype", FLOAT64)
        return out

    def backward(self, dout: Value) -> tuple[Value, Value]:
        """Return (dx, dy) = (dout, dout), each summed back to its operand's shape.

        Parameters
        ----------
        dout : scalar or array_like
            In the shape of the result, or a scalar.

        Raises
        ------
        RuntimeError
            Before `forward`.
        ValueError
            For another shape.
        """
        if self._shapes is None:
            _not_run(self)
        x_shape, y_shape, shape = self._shapes
        dout = _node_gradient(dout, shape, self._dtype)
        return _summed_to(dout * 1, x_shape), _summed_to(dout * 1, y_shape)


class MulLayer:
    """The multiplication node, x·y (section 5.4.1).

    Left to NumPy: one multiplication is bound by memory, and compiled code is no faster.

    Attributes
    ----------
    x, y : scalar or ndarray
        The operands of the last `forward`, as given.
    """

    def __init__(self) -> None:
        self.x: Value = None
        self.y: Value = None
        self._shape: tuple[int, ...] = ()

    def forward(self, x: Value, y: Value) -> Value:
        """Return x·y.

        Parameters
        ----------
        x, y : scalar or array_like
            Shapes that broadcast.

        Raises
        ------
        TypeError
            For operands that are not real numbers.
        ValueError
            If the shapes do not broadcast.
        """
        x, y = _node_operand("x", x), _node_operand("y", y)
        try:
            out = x * y
        except ValueError:
            _do_not_broadcast(x, y)
        self.x, self.y, self._shape, self._dtype = x, y, _shape(out), getattr(out, "dtype", FLOAT64)
        return out

    def backward(self, dout: Value) -> tuple[Value, Value]:
        """Return (dx, dy) = (dout·y, dout·x), each summed back to its operand's shape.

        Parameters
        ----------
        dout : scalar or array_like
            In the shape of the result, or a scalar.

        Raises
        ------
        RuntimeError
            Before `forward`.
        ValueError
            For another shape.
        """
        if self.x is None:
            _not_run(self)
        dout = _node_gradient(dout, self._shape, self._dtype)
        return _summed_to(dout * self.y, _shape(self.x)), _summed_to(dout * self.x, _shape(self.y))


class ReLU:
    """The rectifier: 0 where x <= 0, else x (section 5.5.1).

    Its gradient at x = 0 is 0, as in the book's equation. Unlike the book's, `backward` does not overwrite
    `dout`. NaN stays NaN.

    Attributes
    ----------
    mask : ndarray of bool
        x <= 0, in the shape of x.
    """

    def __init__(self) -> None:
        self.mask: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return 0 where x <= 0, else x.

        Parameters
        ----------
        x : array_like
            Any shape.

        Returns
        -------
        ndarray
            A new array in the shape and dtype of x.

        Raises
        ------
        TypeError
            If x is not real numbers.
        """
        x = as_array("x", x)
        dtype = result_dtype(x)
        out, mask = empty(x.shape, dtype), np.empty(x.shape, np.bool_)
        x = working(x, dtype)
        implementation(dtype).relu_forward(x.reshape(-1), out.reshape(-1), mask.reshape(-1))
        self.mask = mask
        return finished(out, dtype)

    def backward(self, dout: ArrayLike) -> Array:
        """Return 0 where x <= 0, else dout.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array in the shape and dtype of dout.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        mask = self.mask
        if mask is None:
            _not_run(self)
        dout, mask = as_array("dout", dout), as_array("mask", mask)
        same_shape("dout", dout, mask.shape, "as the input")
        dtype = result_dtype(dout)
        dx, dout = empty(dout.shape, dtype), working(dout, dtype)
        implementation(dtype).relu_backward(dout.reshape(-1), mask.reshape(-1), dx.reshape(-1))
        return finished(dx, dtype)


Relu = ReLU


class _OutputActivation:
    """An activation whose derivative is a function of its output: what `Sigmoid` and `Tanh` share."""

    _function: ClassVar[str]

    def __init__(self) -> None:
        self.out: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return y.

        Parameters
        ----------
        x : array_like
            Any shape.

        Returns
        -------
        ndarray
            A new array in the shape of x and the dtype of exp(x).

        Raises
        ------
        TypeError
            If x is not real numbers.
        """
        x = as_array("x", x)
        dtype = float_dtype(result_dtype(x))
        out = empty(x.shape, dtype)
        forward = getattr(implementation(dtype), f"{self._function}_forward")
        forward(working(x, dtype).reshape(-1), out.reshape(-1))
        self.out = out = finished(out, dtype)
        return out

    def backward(self, dout: ArrayLike) -> Array:
        """Return dout times the derivative.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        out = self.out
        if out is None:
            _not_run(self)
        dout, out = as_array("dout", dout), as_array("out", out)
        same_shape("dout", dout, out.shape, "as the input")
        dtype = result_dtype(dout, out)
        dx = empty(dout.shape, dtype)
        dout, out = working(dout, dtype), working(out, dtype)
        backward = getattr(implementation(dtype), f"{self._function}_backward")
        backward(dout.reshape(-1), out.reshape(-1), dx.reshape(-1))
        return finished(dx, dtype)


class Sigmoid(_OutputActivation):
    """The logistic function y = 1/(1 + exp(-x)), without overflow at any x; dx = dout·y·(1 - y) (section 5.5.2).

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.
    """

    _function = "sigmoid"


class Tanh(_OutputActivation):
    """The hyperbolic tangent y = tanh(x), an odd function between -1 and 1; dx = dout·(1 - y²).

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.
    """

    _function = "tanh"


class Identity:
    """The identity y = x (section 3.5): what stands where a stack may do without an activation.

    Left to NumPy, which copies as fast as memory allows.
    """

    _shape: tuple[int, ...] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return x.

        Parameters
        ----------
        x : array_like
            Any shape.

        Returns
        -------
        ndarray
            A new array in the shape and dtype of x, never x itself.

        Raises
        ------
        TypeError
            If x is not real numbers.
        """
        x = as_array("x", x)
        self._shape = x.shape
        return x.astype(result_dtype(x), order="C")

    def backward(self, dout: ArrayLike) -> Array:
        """Return dout.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array in the shape and dtype of dout.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        shape = self._shape
        if shape is None:
            _not_run(self)
        dout = as_array("dout", dout)
        same_shape("dout", dout, shape, "as the input")
        return dout.astype(result_dtype(dout), order="C")


class Dropout:
    """Dropout: in training each element is 0 with probability `dropout_ratio` (section 6.4.3).

    It is inverted: what is kept is multiplied by 1/(1 - dropout_ratio) in training, so that nothing is scaled
    afterwards. The book's scales by 1 - dropout_ratio at prediction instead.

    The mask is a pure function of `seed`, `step` and the place of an element in the array in C order. It depends
    on no other layer and not on the number of threads. Layers of one seed drop the same places: give each its own.

    Parameters
    ----------
    dropout_ratio : float
        At least 0 and less than 1.
    seed : int, optional
        From 0 to 2**63 - 1; without it one is drawn from NumPy's global generator, so that `np.random.seed`
        sets it.

    Attributes
    ----------
    dropout_ratio : float
    seed : int
    step : int
        How many times `forward` has run in training. Set it back to have an earlier mask again.
    mask : ndarray of bool
        True where the last `forward` kept a value, in the shape of x.

    Raises
    ------
    TypeError, ValueError
        If dropout_ratio or seed is not such a number.
    """

    def __init__(self, dropout_ratio: float = 0.5, seed: int | None = None) -> None:
        self.dropout_ratio = dropout_ratio
        self.seed = int(np.random.randint(0, _LARGEST_SEED, dtype=np.int64)) if seed is None else seed
        self.step = 0
        self._settings()
        self.mask: Array | None = None
        self._ratio = 0.0

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """Return x/(1 - dropout_ratio) where the mask of this step is True, else 0.

        Parameters
        ----------
        x : array_like
            Any shape.
        train_flg : bool
            False for prediction: x is returned, and no step is counted.

        Returns
        -------
        ndarray
            A new array in the shape and dtype of x; float64 for integers.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers, or an attribute was set to what is not allowed.
        """
        ratio, seed, step = self._settings()
        x = as_array("x", x)
        dtype = _quotient_dtype(x)
        if train_flg:
            out, mask = empty(x.shape, dtype), np.empty(x.shape, np.bool_)
            samples = working(x, dtype).reshape(-1)
            implementation(dtype).dropout_forward(samples, seed, step, ratio, out.reshape(-1), mask.reshape(-1))
            self.mask, self._ratio, self.step = mask, ratio, step + 1
            return finished(out, dtype)
        self.mask, self._ratio = np.ones(x.shape, np.bool_), 0.0
        return x.astype(dtype, order="C")

    def backward(self, dout: ArrayLike) -> Array:
        """Return dout/(1 - dropout_ratio) where the last `forward` kept a value, else 0.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array in the shape and dtype of dout; float64 for integers. After a `forward` for
            prediction it is dout.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        mask, ratio = self.mask, self._ratio
        if mask is None:
            _not_run(self)
        dout, mask = as_array("dout", dout), as_array("mask", mask)
        same_shape("dout", dout, mask.shape, "as the input")
        dtype = _quotient_dtype(dout)
        dx, dout = empty(dout.shape, dtype), working(dout, dtype)
        implementation(dtype).dropout_backward(dout.reshape(-1), mask.reshape(-1), ratio, dx.reshape(-1))
        return finished(dx, dtype)

    def _settings(self) -> tuple[float, int, int]:
        remedy = "give a number such as 0"
        return (
            rate("dropout_ratio", self.dropout_ratio, 1),
            whole_number("seed", self.seed, 0, remedy, _LARGEST_SEED),
            whole_number("step", self.step, 0, remedy, _LARGEST_SEED),
        )


class Affine:
    """x·W + b for one sample or a batch (section 5.6).

    Parameters
    ----------
    W : ndarray (D, M)
    b : ndarray (M,)
        Kept as given, not copied: `params["W1"] -= lr * grad` from outside is seen by the layer.

    Attributes
    ----------
    W, b : ndarray
        The very arrays given.
    x : ndarray (N, D)
        The input of the last `forward` as rows; a view of it where its layout allows.
    dW : ndarray (D, M)
    db : ndarray (M,)
        Gradients by `W` and `b`, new arrays at each `backward`.

    Raises
    ------
    TypeError, ValueError
        If `W` and `b` are not arrays of real numbers in these shapes.
    """

    parameter_names = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        self.W = W
        self.b = b
        self._parameters()
        self.x: Array | None = None
        self.dW: Array | None = None
        self.db: Array | None = None
        self._forward: tuple[Array, Array, tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return x·W + b.

        Parameters
        ----------
        x : array_like
            One sample (D,), a batch (N, D), or any (N, ...) whose samples flatten to D.

        Returns
        -------
        ndarray
            A new array, (M,) for one sample, else (N, M).

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        W, b = self._parameters()
        x = as_array("x", x)
        samples, M = _as_rows(x, W), len(b)
        dtype = result_dtype(x, W, b)
        out = empty((len(samples), M), dtype)
        implementation(dtype).affine_forward(working(samples, dtype), working(W, dtype), working(b, dtype), out)
        self.x, self._forward = samples, (samples, W, x.shape)
        out = finished(out, dtype)
        return out.reshape(M) if x.ndim == 1 else out

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx = dout·Wᵀ, and set dW = xᵀ·dout and db, the sum of dout over the batch.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Returns
        -------
        ndarray
            dx, a new array in the shape of x.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        x, W, shape, dout = self._backward_operands(dout)
        dtype = result_dtype(x, W, dout)
        dx, dW, db = empty(x.shape, dtype), empty(W.shape, dtype), empty(W.shape[1:], dtype)
        implementation(dtype).affine_backward(working(x, dtype), working(W, dtype), working(dout, dtype), dx, dW, db)
        if dx.dtype is not dout.dtype or x.dtype is not W.dtype or dtype.kind != "f":
            dx, dW = finished(dx, result_dtype(dout, W)), finished(dW, result_dtype(x, dout))
            db = _finished_sum(db, dout)
        self.dW, self.db = dW, db
        return dx.reshape(shape)

    def backward_parameters(self, dout: ArrayLike) -> None:
        """Set dW and db as `backward` does, without dx: for a network's first layer, whose dx nobody reads.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As `backward`.
        """
        x, W, _, dout = self._backward_operands(dout)
        dtype = result_dtype(x, dout)
        dW, db = empty(W.shape, dtype), empty(W.shape[1], dtype)
        implementation(dtype).affine_backward_parameters(working(x, dtype), working(dout, dtype), dW, db)
        self.dW, self.db = finished(dW, dtype), _finished_sum(db, dout)

    def _parameters(self) -> tuple[Array, Array]:
        W, b = parameter("W", self.W, 2), parameter("b", self.b, 1)
        if b.shape[0] != W.shape[1]:
            raise ValueError(
                f"b: expected shape ({W.shape[1]},), one element for each column of W {W.shape}, got {b.shape}; "
                f"make b with np.zeros({W.shape[1]})"
            )
        return W, b

    def _backward_operands(self, dout: ArrayLike) -> tuple[Array, Array, tuple[int, ...], Array]:
        """x and W as forward used them, the shape of its input, and dout as rows."""
        forward = self._forward
        if forward is None:
            _not_run(self)
        x, W, shape = forward
        if x.shape[1] != W.shape[0]:
            raise ValueError(
                f"W: expected {x.shape[1]} rows, as when forward ran, got shape {W.shape}; call forward after a reshape"
            )
        dout = as_array("dout", dout)
        out_shape = (len(x), W.shape[1])
        if len(shape) == 1:
            same_shape("dout", dout, out_shape[1:], "as the output")
            return x, W, shape, dout.reshape(out_shape)
        same_shape("dout", dout, out_shape, "as the output")
        return x, W, shape, dout


def _as_rows(x: Array, W: Array) -> Array:
    D = len(W)
    shape = (1, *x.shape) if x.ndim == 1 else x.shape
    if x.ndim == 0 or math.prod(shape[1:]) != D:
        raise ValueError(
            f"x: expected one sample ({D},) or a batch (N, {D}) to multiply W {W.shape}, got shape {x.shape}; "
            f"reshape x, or make W with as many rows as x has features"
        )
    return x if x.ndim == 2 else x.reshape(shape[0], D)


class Softmax:
    """exp(x)/sum(exp(x)) over the last axis (section 3.5), exact for logits of any size.

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.
    """

    def __init__(self) -> None:
        self.out: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return exp(x - max)/sum(exp(x - max)) for each row.

        Parameters
        ----------
        x : array_like
            One sample (C,) or a batch (N, C).

        Returns
        -------
        ndarray
            A new array in the shape of x; each row sums to 1.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        x = as_array("x", x)
        samples, dtype = rows("x", x), float_dtype(result_dtype(x))
        out = empty(samples.shape, dtype)
        implementation(dtype).softmax_forward(working(samples, dtype), out)
        self.out = out = finished(out, dtype).reshape(x.shape)
        return out

    def backward(self, dout: ArrayLike) -> Array:
        """Return y·(dout - sum(dout·y)) for each row: the product with the full Jacobian diag(y) - y·yᵀ.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        out = self.out
        if out is None:
            _not_run(self)
        dout, out = as_array("dout", dout), as_array("out", out)
        same_shape("dout", dout, out.shape, "as the input")
        dtype = result_dtype(dout, out)
        samples = rows("dout", dout)
        dx = empty(samples.shape, dtype)
        implementation(dtype).softmax_backward(working(samples, dtype), working(out, dtype).reshape(samples.shape), dx)
        return finished(dx, dtype).reshape(dout.shape)


class CrossEntropyError:
    """The cross-entropy error of probabilities, the mean over the batch of -sum(t·log(y)) (section 4.2.2).

    Unlike the book's there is no 1e-7 inside the logarithm: a probability of 0 for the right class is an
    infinite loss. Classes with t = 0 add nothing and get no gradient.

    Attributes
    ----------
    y : ndarray
        The probabilities, as given.
    t : ndarray
        The targets: labels (N,) or distributions (N, C).
    loss : float
    """

    def __init__(self) -> None:
        self.y: Array | None = None
        self.t: Array | None = None
        self.loss: float | None = None
        self._dtype = FLOAT64

    def forward(self, y: ArrayLike, t: ArrayLike) -> float:
        """Return the mean over the batch of -sum(t·log(y)); 0.0 for an empty batch.

        Parameters
        ----------
        y : array_like
            Probabilities, (N, C), or one sample (C,).
        t : array_like
            Integer labels (N,), 0 <= t < C, or a distribution in the shape of y.

        Raises
        ------
        TypeError, ValueError
            If y or t is not such an array.
        """
        y = as_array("y", y)
        samples, dtype = rows("y", y), float_dtype(result_dtype(y))
        t, dtype = target(t, y.shape, dtype)
        loss = implementation(dtype).cross_entropy_forward(working(samples, dtype), t)
        self.y, self.t, self.loss, self._dtype = y, t, loss, dtype
        return cast(float, loss)

    def backward(self, dout: ArrayLike = 1) -> Array:
        """Return dy = -t/y/N·dout.

        Parameters
        ----------
        dout : scalar

        Returns
        -------
        ndarray
            A new array in the shape of y, in NumPy's dtype for t/y: float64 for a float32 y and a one-hot t of
            float64 or int64.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not one number.
        """
        y, t, dtype = self.y, self.t, self._dtype
        if y is None or t is None:
            _not_run(self)
        y = as_array("y", y)
        samples = working(rows("y", y), dtype)
        dy = empty(samples.shape, dtype)
        t, dout = kept_target(t, samples.shape, dtype), scalar("dout", dout)
        implementation(dtype).cross_entropy_backward(samples, t, dout, dy)
        return finished(dy, dtype).reshape(y.shape)


class SoftmaxWithLoss:
    """Softmax and cross-entropy error in one, whose gradient is y - t (section 5.6.3, appendix A).

    The loss is the exact log-sum-exp of the logits; unlike the book's there is no 1e-7 inside a logarithm, and
    `backward` multiplies by `dout`.

    Attributes
    ----------
    loss : float
    y : ndarray
        softmax(x), in the shape of x.
    t : ndarray
        The targets: labels (N,) or distributions (N, C).
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.y: Array | None = None
        self.t: Array | None = None
        self._dtype = FLOAT64
        self._shares: Array | None = None

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean over the batch of log(sum(exp(x))) - sum(t·x); 0.0 for an empty batch.

        Parameters
        ----------
        x : array_like
            Logits, (N, C), or one sample (C,).
        t : array_like
            Integer labels (N,), 0 <= t < C, or a distribution (one-hot among them) in the shape of x.
        sample_weight : array_like (N,), optional
            What each sample counts for, at least 0. The mean is then sum(w·loss)/sum(w), and 0.0 where all w are 0.

        Raises
        ------
        TypeError, ValueError
            If an argument is not such an array.
        """
        x = as_array("x", x)
        samples, dtype = rows("x", x), float_dtype(result_dtype(x))
        t, wide = target(t, x.shape, dtype)
        y = empty(samples.shape, wide)
        N, logits = len(samples), working(samples, wide)
        shares = _shares(sample_weight, N)
        if shares is None:
            loss = implementation(wide).softmax_cross_entropy_forward(logits, t, y)
        else:
            losses = np.empty(N)
            implementation(wide).softmax_cross_entropy_of_rows(logits, t, y, losses, empty(N, wide), empty(N, wide))
            loss = float(np.sum(shares * losses))
        self.y, self.t, self.loss, self._dtype = finished(y, dtype).reshape(x.shape), t, loss, wide
        self._shares = shares
        return cast(float, loss)

    def backward(self, dout: ArrayLike = 1) -> Array:
        """Return dx = (y - t)/N·dout; of samples with weights (y - t)·w/sum(w)·dout.

        Parameters
        ----------
        dout : scalar

        Returns
        -------
        ndarray
            A new array in the shape of x, in NumPy's dtype for y - t: float64 for a float32 x and a one-hot t of
            float64 or int64.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not one number.
        """
        y, t, dtype, shares = self.y, self.t, self._dtype, self._shares
        if y is None or t is None:
            _not_run(self)
        y = as_array("y", y)
        samples = working(rows("y", y), dtype)
        dx = empty(samples.shape, dtype)
        t, dout = kept_target(t, samples.shape, dtype), _dout_of_sum(scalar("dout", dout), shares)
        implementation(dtype).softmax_cross_entropy_backward(samples, t, dout, dx)
        return finished(_weighted(dx, shares), dtype).reshape(y.shape)


class SigmoidWithLoss:
    """Sigmoid and binary cross-entropy error in one, for classes that do not exclude each other or for two.

    Each logit x is a probability y = 1/(1 + exp(-x)) of its own. The loss of one is
    -t·log(y) - (1 - t)·log(1 - y) = max(x, 0) - t·x + log(1 + exp(-|x|)), exact for logits of any size; its gradient
    is y - t, as for `SoftmaxWithLoss`.

    Attributes
    ----------
    loss : float
    y : ndarray
        sigmoid(x), in the shape of x.
    t : ndarray
        The targets, in the shape and floating dtype of the loss.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.y: Array | None = None
        self.t: Array | None = None
        self._dtype = FLOAT64
        self._shares: Array | None = None

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the sum of the losses over C, mean over the batch; 0.0 for an empty batch.

        Parameters
        ----------
        x : array_like
            Logits, (N, C), or (N,) for one logit for each sample.
        t : array_like
            Targets in the shape of x: labels 0 and 1 (integers, booleans or floats), or probabilities.
        sample_weight : array_like (N,), optional
            What each sample counts for, at least 0. The mean is then sum(w·loss)/sum(w), and 0.0 where all w are 0.

        Raises
        ------
        TypeError, ValueError
            If an argument is not such an array, or a target is not from 0 to 1.
        """
        x = as_array("x", x)
        if x.ndim not in (1, 2):
            raise ValueError(
                f"x: expected logits (N,) or (N, C), got shape {x.shape}; flatten them with x.reshape(len(x), -1)"
            )
        dtype = float_dtype(result_dtype(x))
        t, wide = binary_target(t, x.shape, dtype)
        logits = working(x, wide).reshape(_as_columns(x))
        y, targets = empty(logits.shape, wide), t.reshape(logits.shape)
        shares = _shares(sample_weight, len(logits))
        if shares is None:
            loss = implementation(wide).sigmoid_cross_entropy_forward(logits, targets, y)
        else:
            losses = np.empty(len(logits))
            implementation(wide).sigmoid_cross_entropy_of_rows(logits, targets, y, losses)
            loss = float(np.sum(shares * losses))
        self.y, self.t, self.loss, self._dtype = finished(y, dtype).reshape(x.shape), t, loss, wide
        self._shares = shares
        return cast(float, loss)

    def backward(self, dout: ArrayLike = 1) -> Array:
        """Return dx = (y - t)/N·dout; of samples with weights (y - t)·w/sum(w)·dout.

        Parameters
        ----------
        dout : scalar

        Returns
        -------
        ndarray
            A new array in the shape of x. Its dtype is that of y for integer and boolean targets, else NumPy's for
            y - t.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not one number.
        """
        y, t, dtype, shares = self.y, self.t, self._dtype, self._shares
        if y is None or t is None:
            _not_run(self)
        y, t = as_array("y", y), as_array("t", t)
        same_shape("t", t, y.shape, "as y")
        shape = _as_columns(y)
        dx = empty(shape, dtype)
        # The derivative of the sigmoid cancels, and leaves what half the squared error of y has.
        factor = _dout_of_sum(scalar("dout", dout), shares)
        predictions, targets = working(y, dtype).reshape(shape), working(t, dtype).reshape(shape)
        implementation(dtype).squared_error_backward(predictions, targets, factor, dx)
        return finished(_weighted(dx, shares), dtype).reshape(y.shape)


class _OutputWithLoss:
    """A loss of outputs y whose gradient by what went in is y - t: the start and the way back of such layers."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.y: Array | None = None
        self.t: Array | None = None
        self._shares: Array | None = None

    def backward(self, dout: ArrayLike = 1) -> Array:
        """Return dx = (y - t)/N·dout; of samples with weights (y - t)·w/sum(w)·dout.

        Parameters
        ----------
        dout : scalar

        Returns
        -------
        ndarray
            A new array in the shape of x.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not one number.
        """
        y, t, shares = self.y, self.t, self._shares
        if y is None or t is None:
            _not_run(self)
        return _scaled_difference(as_array("y", y), as_array("t", t), dout, shares)


class IdentityWithLoss(_OutputWithLoss):
    """Identity output with half the squared error, for regression; its gradient is y - t, too.

    Attributes
    ----------
    loss : float
    y : ndarray
        The predictions: x, as given.
    t : ndarray
        The targets, as given.
    """

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return half the sum of (x - t)² over each row, mean over the batch; 0.0 for an empty batch.

        Parameters
        ----------
        x : array_like
            Predictions, (N, C), or one sample (C,).
        t : array_like
            Targets in the shape of x.
        sample_weight : array_like (N,), optional
            What each sample counts for, at least 0. The mean is then sum(w·loss)/sum(w), and 0.0 where all w are 0.

        Raises
        ------
        TypeError, ValueError
            If x and t are not real numbers of one such shape, or the weights not such numbers.
        """
        x, t = as_array("x", x), as_array("t", t)
        same_shape("t", t, x.shape, "as the predictions")
        dtype = _quotient_dtype(x, t)
        predictions, targets = working(rows("x", x), dtype), working(rows("t", t), dtype)
        shares = _shares(sample_weight, len(predictions))
        if shares is None:
            loss = implementation(dtype).squared_error_forward(predictions, targets)
        else:
            losses = np.empty(len(predictions))
            implementation(dtype).squared_error_of_rows(predictions, targets, losses)
            loss = float(np.sum(shares * losses))
        self.y, self.t, self.loss, self._shares = x, t, loss, shares
        return cast(float, loss)


class ExpWithLoss(_OutputWithLoss):
    """Exponential output with half the Poisson deviance, for regression on counts; its gradient is y - t, too.

    Each input x is the logarithm of an expected count, y = exp(x). The loss of one is t·log(t/y) - t + y, which is
    y for t = 0.

    Attributes
    ----------
    loss : float
    y : ndarray
        exp(x), in the shape of x.
    t : ndarray
        The targets, as given.
    """

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the sum of the losses over each row, mean over the batch; 0.0 for an empty batch.

        Parameters
        ----------
        x : array_like
            Logarithms of predictions, (N, C), or one sample (C,).
        t : array_like
            Targets in the shape of x, at least 0.
        sample_weight : array_like (N,), optional
            What each sample counts for, at least 0. The mean is then sum(w·loss)/sum(w), and 0.0 where all w are 0.

        Raises
        ------
        TypeError, ValueError
            If x and t are not real numbers of one such shape, a target is negative or NaN, or the weights
            are not such numbers.
        """
        x, t = as_array("x", x), as_array("t", t)
        same_shape("t", t, x.shape, "as the predictions")
        if not (t >= 0).all():
            raise ValueError(f"t: expected counts, at least 0, got {t[~(t >= 0)][0]}; take IdentityWithLoss for others")
        dtype = _quotient_dtype(x, t)
        logarithms, targets = working(rows("x", x), dtype), working(rows("t", t), dtype)
        y = empty(logarithms.shape, dtype)
        shares = _shares(sample_weight, len(logarithms))
        if shares is None:
            loss = implementation(dtype).poisson_deviance_forward(logarithms, targets, y)
        else:
            losses = np.empty(len(logarithms))
            implementation(dtype).poisson_deviance_of_rows(logarithms, targets, y, losses)
            loss = float(np.sum(shares * losses))
        self.y, self.t, self.loss, self._shares = finished(y, dtype).reshape(x.shape), t, loss, shares
        return cast(float, loss)


def _scaled_difference(y: Array, t: Array, dout: ArrayLike, shares: Array | None) -> Array:
    """(y - t)/N·dout in the shape of y, or with the shares of samples in place of 1/N."""
    same_shape("t", t, y.shape, "as y")
    dtype = _quotient_dtype(y, t)
    predictions, targets = working(rows("y", y), dtype), working(rows("t", t), dtype)
    dx = empty(predictions.shape, dtype)
    factor = _dout_of_sum(scalar("dout", dout), shares)
    implementation(dtype).squared_error_backward(predictions, targets, factor, dx)
    return finished(_weighted(dx, shares), dtype).reshape(y.shape)


def _shares(sample_weight: ArrayLike | None, N: int) -> Array | None:
    """What each sample of a batch counts for in the mean, or None where all count alike."""
    if sample_weight is None:
        return None
    weights = sample_weights(sample_weight, N)
    return shares_of_mean(weights, float(np.sum(weights)))


def _dout_of_sum(dout: float, shares: Array | None) -> float:
    """The `dout` that makes the gradient of a mean over the batch one of a sum, which is to be weighted."""
    return dout if shares is None else dout * len(shares)


def _weighted(dx: Array, shares: Array | None) -> Array:
    """The gradient of a sum over the batch, with the share of each sample, in place."""
    if shares is not None:
        same_shape("sample_weight", shares, dx.shape[:1], "one for each row of y")
        dx *= shares.astype(dx.dtype)[:, np.newaxis]
    return dx


def _as_columns(x: Array) -> tuple[int, int]:
    """The shape (N, C) of x, with C = 1 for x of shape (N,)."""
    return len(x), x.shape[1] if x.ndim == 2 else 1


def _quotient_dtype(*arrays: Array) -> DType:
    """The dtype that NumPy gives for an arithmetic operation on `arrays` and a division by a number."""
    dtype = result_dtype(*arrays)
    return dtype if dtype.kind == "f" else FLOAT64


def _finished_sum(db: Array, dout: Array) -> Array:
    """`db` in the dtype that NumPy's sum over the batch has: no integer narrower than the platform's."""
    return finished(db, result_dtype(dout)) if dout.dtype.kind == "f" else np.sum(dout, axis=0)


def _not_run(layer: object) -> NoReturn:
    name = type(layer).__name__
    raise RuntimeError(f"{name}.backward: expected forward to have run, got no forward yet; call {name}.forward first")


def _node_operand(name: str, value: Value) -> Value:
    """A Python number as it is, so that a graph of numbers stays one; anything else as an array."""
    if type(value) is float or isinstance(value, int | float):
        return value
    array = as_array(name, value)
    return array[()] if isinstance(value, np.generic) else array


def _node_gradient(dout: Value, shape: tuple[int, ...], dtype: DType) -> Value:
    dout = _node_operand("dout", dout)
    given = _shape(dout)
    if given == shape:
        return dout
    if given:
        same_shape("dout", dout, shape, "as the result")
    # A Python number takes the dtype of what it meets, as in NumPy.
    return np.broadcast_to(np.asarray(dout, np.result_type(dtype, dout)), shape)


def _shape(value: Value) -> tuple[int, ...]:
    return getattr(value, "shape", ())


def _do_not_broadcast(x: Value, y: Value) -> NoReturn:
    raise ValueError(
        f"x, y: expected shapes that broadcast, got {_shape(x)} and {_shape(y)}; trailing axes must be equal or 1"
    ) from None


def _summed_to(gradient: Value, shape: tuple[int, ...]) -> Value:
    """Sum `gradient` over the axes along which an operand of `shape` was broadcast."""
    given = _shape(gradient)
    if given == shape:
        return gradient
    added = len(given) - len(shape)
    axes = *range(added), *(added + i for i, size in enumerate(shape) if size == 1)
    return np.add.reduce(gradient, axis=axes).reshape(shape)[()]
