"""The methods of optimization: update, NumPy twin and class of each. `fastbp.optimizers` describes them.

A state that decays becomes 0 where it would be subnormal. CPUs take some hundred cycles for a subnormal number, and
rounding keeps a moment there for ever: 0.9 times the smallest one is itself. Pixels that are lit once in a thousand
steps then made steps of Adam on MNIST take 1.6 times as long.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastbp.checks import Array, closest, given_kind
from fastbp.ops.contract import OPTIMIZERS, Update, registered, twin_of
from fastbp.ops.optimizer import LearningRate, Optimizer, optimizer_of
from fastbp.ops.state import slot_of
from fastbp.runtime.elementary import flushed, smallest_normal, zero
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import load, shift
from fastbp.runtime.sharing import shared_kernel

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nadam", "Nesterov", "RMSprop", "optimizer"]


@kernel
def _least_square(x, eps):
    """Below what a mean of squares becomes 0. Its root is divided by, so never where eps does not keep that from 0."""
    return smallest_normal(x) if eps > 0 else zero(x)


def _flush(state: Array) -> None:
    state[np.abs(state) < np.finfo(state.dtype).tiny] = 0


def _flush_squares(state: Array, eps: float) -> None:
    if eps > 0:
        _flush(state)


@shared_kernel
def _sgd_update(param, grad, lr):
    """param -= lr·grad."""
    rate = param.dtype.type(lr)
    for i in range(param.size):
        param[i] -= rate * grad[i]


@twin_of(_sgd_update)
def sgd_update(param: Array, grad: Array, lr: float) -> None:
    param -= lr * grad


class SGD(Optimizer):
    """Stochastic gradient descent, W -= lr·dW (section 6.1.2).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = SGD(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.8, 2.2])
    """

    def __init__(self, lr: LearningRate = 0.01, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)


optimizer_of(SGD, sgd_update, subtracts=True)


@shared_kernel
def _momentum_update(param, grad, v, lr, momentum):
    """v = momentum·v - lr·grad; param += v."""
    rate, friction = param.dtype.type(lr), param.dtype.type(momentum)
    least = smallest_normal(rate)
    for i in range(param.size):
        v[i] = flushed(friction * v[i] - rate * grad[i], least)
        param[i] += v[i]


@twin_of(_momentum_update)
def momentum_update(param: Array, grad: Array, v: Array, lr: float, momentum: float) -> None:
    v[...] = momentum * v - lr * grad
    _flush(v)
    param += v


class Momentum(Optimizer):
    """SGD with momentum, v = momentum·v - lr·dW; W += v (section 6.1.4).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = Momentum(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.71, 2.29])
    """

    settings: ClassVar = {"momentum": 1}

    def __init__(self, lr: LearningRate = 0.01, momentum: float = 0.9, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = momentum
        self.v: dict[str, Array] | None = None


optimizer_of(Momentum, momentum_update, state=("v",))


@shared_kernel
def _nesterov_update(param, grad, v, lr, momentum):
    """param += momentum²·v - (1 + momentum)·lr·grad; v = momentum·v - lr·grad."""
    rate, friction = param.dtype.type(lr), param.dtype.type(momentum)
    ahead, least = param.dtype.type((1 + momentum) * lr), smallest_normal(rate)
    for i in range(param.size):
        param[i] += friction * friction * v[i] - ahead * grad[i]
        v[i] = flushed(friction * v[i] - rate * grad[i], least)


@twin_of(_nesterov_update)
def nesterov_update(param: Array, grad: Array, v: Array, lr: float, momentum: float) -> None:
    param += momentum * momentum * v
    param -= (1 + momentum) * lr * grad
    v[...] = momentum * v - lr * grad
    _flush(v)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient, with the gradient taken a step ahead (Bengio et al., arXiv:1212.0901).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = Nesterov(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.539, 2.461])
    """


optimizer_of(Nesterov, nesterov_update, state=("v",))


@shared_kernel
def _adagrad_update(param, grad, h, lr, eps):
    """h += grad²; param -= lr·grad/(sqrt(h) + eps)."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    for i in range(param.size):
        h[i] += grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(h[i]) + epsilon)


@twin_of(_adagrad_update)
def adagrad_update(param: Array, grad: Array, h: Array, lr: float, eps: float) -> None:
    h += grad * grad
    param -= lr * grad / (np.sqrt(h) + eps)


class AdaGrad(Optimizer):
    """A rate of its own for each element, h += dW²; W -= lr·dW/(sqrt(h) + eps) (section 6.1.5).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = AdaGrad(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.8293, 2.1707])
    """

    settings: ClassVar = {"eps": math.inf}

    def __init__(self, lr: LearningRate = 0.01, *, eps: float = 1e-7, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.eps = eps
        self.h: dict[str, Array] | None = None


optimizer_of(AdaGrad, adagrad_update, state=("h",))


@shared_kernel
def _rmsprop_update(param, grad, h, lr, decay_rate, eps):
    """h = decay_rate·h + (1 - decay_rate)·grad²; param -= lr·grad/(sqrt(h) + eps)."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    keep, add = param.dtype.type(decay_rate), param.dtype.type(1 - decay_rate)
    least = _least_square(rate, eps)
    for i in range(param.size):
        h[i] = flushed(keep * h[i] + add * grad[i] * grad[i], least)
        param[i] -= rate * grad[i] / (math.sqrt(h[i]) + epsilon)


@twin_of(_rmsprop_update)
def rmsprop_update(param: Array, grad: Array, h: Array, lr: float, decay_rate: float, eps: float) -> None:
    h *= decay_rate
    h += (1 - decay_rate) * grad * grad
    _flush_squares(h, eps)
    param -= lr * grad / (np.sqrt(h) + eps)


class RMSprop(Optimizer):
    """AdaGrad that forgets, h = decay_rate·h + (1 - decay_rate)·dW² (section 6.1.5).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = RMSprop(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([-0.7089,  3.7089])
    """

    settings: ClassVar = {"decay_rate": 1, "eps": math.inf}

    def __init__(
        self, lr: LearningRate = 0.01, decay_rate: float = 0.99, *, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.decay_rate, self.eps = decay_rate, eps
        self.h: dict[str, Array] | None = None


optimizer_of(RMSprop, rmsprop_update, state=("h",))


@shared_kernel
def _adam_update(param, grad, m, v, lr, beta1, beta2, eps):
    """m += (1 - beta1)·(grad - m); v += (1 - beta2)·(grad² - v); param -= lr·m/(sqrt(v) + eps)."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    add1, add2 = param.dtype.type(1 - beta1), param.dtype.type(1 - beta2)
    least, least_square = smallest_normal(epsilon), _least_square(epsilon, eps)
    for i in range(param.size):
        m[i] = flushed(m[i] + add1 * (grad[i] - m[i]), least)
        v[i] = flushed(v[i] + add2 * (grad[i] * grad[i] - v[i]), least_square)
        param[i] -= rate * m[i] / (math.sqrt(v[i]) + epsilon)


@twin_of(_adam_update)
def adam_update(
    param: Array, grad: Array, m: Array, v: Array, lr: float, beta1: float, beta2: float, eps: float
) -> None:
    m += (1 - beta1) * (grad - m)
    v += (1 - beta2) * (grad**2 - v)
    _flush(m)
    _flush_squares(v, eps)
    param -= lr * m / (np.sqrt(v) + eps)


def _power(beta: float, t: Any) -> Any:
    """beta to the power of a whole number, or of each of an array: NumPy's own has other bits on other CPUs."""
    return np.array([beta**number for number in t.tolist()]) if isinstance(t, np.ndarray) else beta**t


def _root(x: Any) -> Any:
    return np.sqrt(x) if isinstance(x, np.ndarray) else math.sqrt(x)


class Adam(Optimizer):
    """Momentum and RMSprop together (section 6.1.6; Kingma and Ba, arXiv:1412.6980).

    The correction of the bias is folded into the rate of update number t: lr·sqrt(1 - beta2**t)/(1 - beta1**t).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = Adam(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.8, 2.2])
    """

    settings: ClassVar = {"beta1": 1, "beta2": 1, "eps": math.inf}

    def __init__(
        self,
        lr: LearningRate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.m: dict[str, Array] | None = None
        self.v: dict[str, Array] | None = None

    def rate_at(self, step: Any) -> Any:
        """`lr_at` with the correction of the bias."""
        t = step + 1
        return self.lr_at(step) * _root(1.0 - _power(self.beta2, t)) / (1.0 - _power(self.beta1, t))


optimizer_of(Adam, adam_update, state=("m", "v"))


@shared_kernel
def _adamw_update(param, grad, m, v, lr, beta1, beta2, eps, decay):
    """param -= decay·param; then as adam_update."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    add1, add2, keep = param.dtype.type(1 - beta1), param.dtype.type(1 - beta2), param.dtype.type(1 - decay)
    least, least_square = smallest_normal(epsilon), _least_square(epsilon, eps)
    for i in range(param.size):
        m[i] = flushed(m[i] + add1 * (grad[i] - m[i]), least)
        v[i] = flushed(v[i] + add2 * (grad[i] * grad[i] - v[i]), least_square)
        param[i] = keep * param[i] - rate * m[i] / (math.sqrt(v[i]) + epsilon)


@twin_of(_adamw_update)
def adamw_update(
    param: Array, grad: Array, m: Array, v: Array, lr: float, beta1: float, beta2: float, eps: float, decay: float
) -> None:
    m += (1 - beta1) * (grad - m)
    v += (1 - beta2) * (grad**2 - v)
    _flush(m)
    _flush_squares(v, eps)
    param *= 1 - decay
    param -= lr * m / (np.sqrt(v) + eps)


class AdamW(Adam):
    """Adam with decoupled weight decay: W -= lr·weight_decay·W beside its step (Loshchilov, arXiv:1711.05101).

    The gradient and its moments know nothing of the decay, so that it is the same for every weight.

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = AdamW(0.1, weight_decay=0.01)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.7981, 2.1959])
    """

    def __init__(
        self,
        lr: LearningRate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        eps: float = 1e-7,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps=eps, weight_decay=weight_decay)

    def coefficients(self, step: Any) -> tuple[Any, ...]:
        """Those of Adam, and the share of itself that a weight loses."""
        return *super().coefficients(step), self.lr_at(step) * self.weight_decay


optimizer_of(AdamW, adamw_update, state=("m", "v"), decouples=True)


@shared_kernel
def _nadam_update(param, grad, m, v, rate_of_m, rate_of_grad, beta1, beta2, eps):
    """m and v as adam_update; param -= (rate_of_m·m + rate_of_grad·grad)/(sqrt(v) + eps)."""
    rate1, rate2, epsilon = param.dtype.type(rate_of_m), param.dtype.type(rate_of_grad), param.dtype.type(eps)
    add1, add2 = param.dtype.type(1 - beta1), param.dtype.type(1 - beta2)
    least, least_square = smallest_normal(epsilon), _least_square(epsilon, eps)
    for i in range(param.size):
        m[i] = flushed(m[i] + add1 * (grad[i] - m[i]), least)
        v[i] = flushed(v[i] + add2 * (grad[i] * grad[i] - v[i]), least_square)
        param[i] -= (rate1 * m[i] + rate2 * grad[i]) / (math.sqrt(v[i]) + epsilon)


@twin_of(_nadam_update)
def nadam_update(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    rate_of_m: float,
    rate_of_grad: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    m += (1 - beta1) * (grad - m)
    v += (1 - beta2) * (grad**2 - v)
    _flush(m)
    _flush_squares(v, eps)
    param -= (rate_of_m * m + rate_of_grad * grad) / (np.sqrt(v) + eps)


class Nadam(Adam):
    """Adam with Nesterov's momentum (Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016).

    Update number t takes beta1·m/(1 - beta1**(t + 1)) + (1 - beta1)·dW/(1 - beta1**t) in the place of Adam's
    m/(1 - beta1**t).

    Examples
    --------
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> optimizer = Nadam(0.1)
    >>> for _ in range(2):
    ...     optimizer.update(params, {"W": np.array([1.0, -1.0])})
    >>> params["W"].round(4)
    array([0.7369, 2.2631])
    """

    def coefficients(self, step: Any) -> tuple[Any, ...]:
        """The rates of m and of the gradient, and the settings."""
        t, beta1 = step + 1, self.beta1
        rate = self.lr_at(step) * _root(1.0 - _power(self.beta2, t))
        of_m = rate * beta1 / (1.0 - _power(beta1, t + 1))
        of_grad = rate * (1.0 - beta1) / (1.0 - _power(beta1, t))
        return of_m, of_grad, beta1, self.beta2, self.eps


optimizer_of(Nadam, nadam_update, state=("m", "v"))


def optimizer(name_or_object: str | Optimizer) -> Optimizer:
    """Return the optimizer of a name with default settings, or the object that is given.

    Parameters
    ----------
    name_or_object : str or Optimizer
        That of the class, such as "sgd" or "adam", in capitals or not.

    Raises
    ------
    TypeError
        If it is neither a name nor an optimizer.
    ValueError
        For another name.

    Examples
    --------
    >>> optimizer("adam").lr
    0.001
    """
    if isinstance(name_or_object, Optimizer):
        return name_or_object
    by_name: dict[str, Any] = {kind.__name__.lower(): kind for kind in OPTIMIZERS if issubclass(kind, Optimizer)}
    names = ", ".join(by_name)
    if not isinstance(name_or_object, str):
        is_class = isinstance(name_or_object, type)
        remedy = f"pass an object, {name_or_object.__name__}()" if is_class else f"give one of {names}, or SGD(0.1)"
        raise TypeError(f"optimizer: expected a name or an optimizer, got {given_kind(name_or_object)}; {remedy}")
    if name_or_object.lower() not in by_name:
        meant = closest(name_or_object.lower(), by_name)
        raise ValueError(f"optimizer: expected one of {names}, got {name_or_object!r}; {meant}")
    made: Optimizer = by_name[name_or_object.lower()]()
    return made


class Gradients:
    """Takes the place of an optimizer: it keeps the gradients of the last step, and changes no parameter."""

    weight_decay = 0.0
    record: ClassVar[Update]

    def __init__(self) -> None:
        self.iter = 0
        self.gradients: dict[str, Array] | None = None

    def coefficients(self, step: Any) -> tuple[float, ...]:  # noqa: ARG002 - it needs none
        """One number, which the step does not use."""
        return (0.0,)


@kernel
def _keep_gradient(network_at, begin, grad, size, given):
    slot = slot_of(network_at, 0, begin, size)
    for k in range(size):
        slot[k] = load(shift(grad, k))


Gradients.record = registered(OPTIMIZERS, Gradients, Update(None, _keep_gradient, state=("gradients",)))
