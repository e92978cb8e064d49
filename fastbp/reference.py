"""Every kernel in plain NumPy: the specification that the compiled code is held equal to.

Each function has the name, the arguments and the result of its twin in `fastbp.kernels`, and is written to be
read beside "Deep Learning from Scratch", chapters 3 to 6 (backpropagation: chapter 5). Results are written to
the trailing arguments. x is (N, D) or (N, C), W (D, M), b (M,); t is labels (N,) or a distribution (N, C).
`fastbp.use_reference()` runs the whole package on these functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.kernels.activations import RELU, SIGMOID, TANH

Array = NDArray[Any]


def affine_forward(x: Array, W: Array, b: Array, out: Array) -> None:
    np.matmul(x, W, out=out)
    out += b


def affine_backward(x: Array, W: Array, dout: Array, dx: Array, dW: Array, db: Array) -> None:
    np.matmul(dout, W.T, out=dx)
    affine_backward_parameters(x, dout, dW, db)


def affine_backward_parameters(x: Array, dout: Array, dW: Array, db: Array) -> None:
    np.matmul(x.T, dout, out=dW)
    np.sum(dout, axis=0, out=db)


def affine_activation_forward(x: Array, W: Array, b: Array, out: Array, activation: int) -> None:
    affine_forward(x, W, b, out)
    if activation == RELU:
        out[out <= 0] = 0
    elif activation == SIGMOID:
        sigmoid_forward(out.copy(), out)
    elif activation == TANH:
        np.tanh(out, out=out)


def affine_activation_backward(W: Array, dout: Array, out: Array, dx: Array, activation: int) -> None:
    np.matmul(dout, W.T, out=dx)
    if activation == RELU:
        dx[out == 0] = 0
    elif activation == SIGMOID:
        dx *= out * (1 - out)
    elif activation == TANH:
        dx *= 1 - out * out


def relu_forward(x: Array, out: Array, mask: Array) -> None:
    np.less_equal(x, 0, out=mask)
    out[...] = x
    out[mask] = 0


def relu_backward(dout: Array, mask: Array, dx: Array) -> None:
    dx[...] = dout
    dx[mask] = 0


def sigmoid_forward(x: Array, out: Array) -> None:
    # 1/(1 + exp(-x)) where x >= 0; elsewhere the same fraction times exp(x), so that exp never overflows.
    e = np.exp(-np.abs(x))
    out[...] = np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_backward(dout: Array, out: Array, dx: Array) -> None:
    dx[...] = dout * out * (1 - out)


def exp_forward(x: Array, out: Array) -> None:
    with np.errstate(over="ignore"):
        np.exp(x, out=out)


def log_forward(x: Array, out: Array) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log(x, out=out)


def tanh_forward(x: Array, out: Array) -> None:
    np.tanh(x, out=out)


def power_forward(x: Array, y: Array, out: Array) -> None:
    with np.errstate(all="ignore"):
        np.power(x, y, out=out)


def tanh_backward(dout: Array, out: Array, dx: Array) -> None:
    dx[...] = dout * (1 - out * out)


def dropout_forward(x: Array, seed: int, step: int, ratio: float, out: Array, mask: Array) -> None:
    mask[...] = _random_bits(seed, step, x.size) >= np.ceil(ratio * 2.0**53)
    dropout_backward(x, mask, ratio, out)


def dropout_backward(dout: Array, mask: Array, ratio: float, dx: Array) -> None:
    dx[...] = np.where(mask, dout * (1 / (1 - ratio)), 0)


def softmax_forward(x: Array, out: Array) -> None:
    np.exp(x - np.max(x, axis=1, keepdims=True), out=out)
    out /= np.sum(out, axis=1, keepdims=True)


def softmax_backward(dout: Array, out: Array, dx: Array) -> None:
    weighted = np.sum(dout * out, axis=1, keepdims=True)
    dx[...] = out * (dout - weighted)


def softmax_cross_entropy_forward(x: Array, t: Array, y: Array) -> float:
    losses = np.empty(len(x))
    softmax_cross_entropy_of_rows(x, t, y, losses, np.empty_like(losses), np.empty_like(losses))
    return _mean(losses)


def softmax_cross_entropy_of_rows(x: Array, t: Array, y: Array, losses: Array, tops: Array, totals: Array) -> None:
    top = np.max(x, axis=1, keepdims=True)
    np.exp(x - top, out=y)
    total = np.sum(y, axis=1, keepdims=True)
    y /= total
    losses[...] = _cross_entropy_of_rows(x - top - np.log(total), t)
    tops[...], totals[...] = top[:, 0], np.log(total)[:, 0]


def softmax_cross_entropy_backward(y: Array, t: Array, dout: float, dx: Array) -> None:
    N = len(y)
    if t.ndim == 1:
        dx[...] = y
        dx[np.arange(N), t] -= 1
    else:
        np.subtract(y, t, out=dx)
    dx *= dout / N if N else 0.0


def cross_entropy_forward(y: Array, t: Array) -> float:
    return _mean(_cross_entropy_of_rows(np.log(y), t))


def cross_entropy_backward(y: Array, t: Array, dout: float, dy: Array) -> None:
    dy[...] = 0
    if len(y) == 0:
        return
    if t.ndim == 1:
        rows = np.arange(len(y))
        dy[rows, t] = -dout / len(y) / y[rows, t]
    else:
        np.divide(-t * (dout / len(y)), y, out=dy, where=t != 0)


def sigmoid_cross_entropy_forward(x: Array, t: Array, y: Array) -> float:
    losses = np.empty(len(x))
    sigmoid_cross_entropy_of_rows(x, t, y, losses)
    return _mean(losses)


def sigmoid_cross_entropy_of_rows(x: Array, t: Array, y: Array, losses: Array) -> None:
    sigmoid_forward(x, y)
    # max(x, 0) - t·x is |x| times the probability of the wrong side, also where x is infinite.
    size, wrong = np.abs(x), np.where(x > 0, 1 - t, t)
    linear = np.multiply(wrong, size, out=np.zeros_like(x), where=wrong != 0)
    np.sum(linear + np.log1p(np.exp(-size)), axis=1, out=losses)


def poisson_deviance_forward(x: Array, t: Array, y: Array) -> float:
    losses = np.empty(len(x))
    poisson_deviance_of_rows(x, t, y, losses)
    return _mean(losses)


def poisson_deviance_of_rows(x: Array, t: Array, y: Array, losses: Array) -> None:
    exp_forward(x, y)
    logarithms = np.subtract(np.log(t, out=np.zeros_like(t), where=t != 0), x, out=np.zeros_like(x), where=t != 0)
    np.sum(t * logarithms - t + y, axis=1, out=losses)


def squared_error_forward(y: Array, t: Array) -> float:
    losses = np.empty(len(y))
    squared_error_of_rows(y, t, losses)
    return _mean(losses)


def squared_error_of_rows(y: Array, t: Array, losses: Array) -> None:
    losses[...] = 0.5 * np.sum((y - t) ** 2, axis=1)


def squared_error_backward(y: Array, t: Array, dout: float, dy: Array) -> None:
    np.subtract(y, t, out=dy)
    dy *= dout / len(y) if len(y) else 0.0


def first_bad_label(t: Array, C: int) -> int:
    return _first((t < 0) | (t >= C))


def first_bad_distribution(t: Array) -> int:
    off = ~(np.abs(np.sum(t, axis=1, dtype=np.float64) - 1) <= 1e-3)
    return _first(off | np.any(t < 0, axis=1))


def first_bad_probability(t: Array) -> int:
    return _first(~((t >= 0) & (t <= 1)))


def decayed_gradient(param: Array, grad: Array, weight_decay: float, out: Array) -> None:
    out[...] = grad + weight_decay * param


def sgd_update(param: Array, grad: Array, lr: float) -> None:
    param -= lr * grad


def momentum_update(param: Array, grad: Array, v: Array, lr: float, momentum: float) -> None:
    v[...] = momentum * v - lr * grad
    param += v


def nesterov_update(param: Array, grad: Array, v: Array, lr: float, momentum: float) -> None:
    param += momentum * momentum * v
    param -= (1 + momentum) * lr * grad
    v[...] = momentum * v - lr * grad


def adagrad_update(param: Array, grad: Array, h: Array, lr: float, eps: float) -> None:
    h += grad * grad
    param -= lr * grad / (np.sqrt(h) + eps)


def rmsprop_update(param: Array, grad: Array, h: Array, lr: float, decay_rate: float, eps: float) -> None:
    h *= decay_rate
    h += (1 - decay_rate) * grad * grad
    param -= lr * grad / (np.sqrt(h) + eps)


def adam_update(
    param: Array, grad: Array, m: Array, v: Array, lr: float, beta1: float, beta2: float, eps: float
) -> None:
    m += (1 - beta1) * (grad - m)
    v += (1 - beta2) * (grad**2 - v)
    param -= lr * m / (np.sqrt(v) + eps)


def _random_bits(seed: int, step: int, n: int) -> Array:
    """53 bits for each of n elements: SplitMix64 started at a place that is mixed from seed and step."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    # Arrays of one element, because NumPy warns where a scalar wraps around at 2**64.
    start = _mix(_mix(np.array([seed], np.uint64) + golden) + np.array([step], np.uint64) * golden)
    bits: Array = _mix(start + np.arange(n, dtype=np.uint64) * golden) >> np.uint64(11)
    return bits


def _mix(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _cross_entropy_of_rows(log_y: Array, t: Array) -> Array:
    """-sum(t·log(y)) of each row; where t is 0 a class adds nothing, even if its log(y) is -inf."""
    if t.ndim == 1:
        return np.negative(log_y[np.arange(len(t)), t])
    losses: Array = -np.sum(np.multiply(t, log_y, out=np.zeros_like(log_y), where=t != 0), axis=1)
    return losses


def _mean(losses: Array) -> float:
    return float(np.mean(losses)) if len(losses) else 0.0


def _first(is_bad: Array) -> int:
    return int(np.argmax(is_bad)) if is_bad.any() else -1
