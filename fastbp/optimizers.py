"""The book's optimizers (chapter 6): `update(params, grads)` changes the parameters in place.

`params` and `grads` are mappings with the same keys; values are arrays, or plain floats as in the book's plots,
which are replaced in `params`. All keys and shapes are checked before anything is changed. The state of an
optimizer (`v`, `h`, `m`) is a dict of arrays, made at the first update. Where a method divides by a root, `eps` is
added to it, which keeps the quotient finite: 1e-7 outside the root, as in the book.

Every optimizer takes, and has as attributes that may be set at any time:

lr : float, callable or ndarray (steps,)
    The rate: a number, a function of the step number 0, 1, 2 and so on, or an array with one rate for each step.
    It is kept as given; `current_lr` is the rate of the next update, which is step number `iter`.
weight_decay : float
    From 0 on. weight_decay·W is added to the gradient of each parameter whose name starts with "W", as L2
    regularization does: weights decay, biases do not (section 6.4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np

from fastbp.implementation import implementation
from fastbp.validation import (
    FLOAT32,
    FLOAT64,
    Array,
    as_array,
    rate,
    result_dtype,
    same_shape,
    schedule,
    working,
)

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "optimizer"]

# A rate, or the rate of each step.
LearningRate: TypeAlias = float | Callable[[int], float] | Array

# What a setting must stay below.
_LIMITS = {
    "lr": math.inf,
    "momentum": 1,
    "decay_rate": 1,
    "beta1": 1,
    "beta2": 1,
    "eps": math.inf,
    "weight_decay": math.inf,
}


class Optimizer:
    """What the optimizers share: checks, the rate of a step, state, and the walk over the parameters.

    Attributes
    ----------
    lr : float, callable or ndarray
    weight_decay : float
    iter : int
        How many updates there have been.
    """

    _state: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: LearningRate, weight_decay: float) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self.iter = 0

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; a rate is checked whenever it is set, in the course of training, too."""
        if name in _LIMITS:
            value = schedule(name, value) if name == "lr" else rate(name, value, _LIMITS[name])
        super().__setattr__(name, value)

    def setting_names(self) -> tuple[str, ...]:
        """Names of the attributes that it is made with, the rate first."""
        return tuple(name for name in _LIMITS if name in vars(self))

    def state_names(self) -> tuple[str, ...]:
        """Names of the attributes that hold the state: dicts of arrays by parameter, or None before an update."""
        return self._state

    @property
    def current_lr(self) -> float:
        """The rate of the next update.

        Raises
        ------
        TypeError
            If the callable `lr` does not return a number.
        ValueError
            If it returns a negative or infinite one, or the array `lr` has no rate for this step.
        """
        lr, step = self.lr, self.iter
        if type(lr) is float:
            return lr
        if callable(lr):
            return rate(f"lr({step})", lr(step))
        rates: Array = np.asarray(lr)
        if step >= len(rates):
            raise ValueError(
                f"lr: expected a rate for step {step}, got an array of {len(rates)}; "
                f"give one for each update, or a function of the step"
            )
        return rate(f"lr[{step}]", rates[step])

    def current_rate(self) -> float:
        """What the next update takes for its rate: `current_lr`, with what the method makes of it."""
        return self.current_lr

    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any]) -> None:
        """Change every parameter by its gradient.

        Parameters
        ----------
        params : mutable mapping of str to ndarray or float
            float64 and float32 arrays are updated in place in their own dtype, other layouts and float16
            through a copy.
        grads : mapping of str to array_like
            A gradient for each parameter, in its shape.

        Raises
        ------
        TypeError
            For parameters of integers, for what is not real numbers, and for what is not a mapping.
        ValueError
            For a missing gradient, another shape, a read-only parameter, or no rate for this step. Nothing is
            changed then.
        """
        for name, mapping, kind in (("params", params, MutableMapping), ("grads", grads, Mapping)):
            if not isinstance(mapping, (dict, kind)):  # a dict is decided 0.2 µs sooner than by its abstract class
                raise TypeError(f"{name}: expected a dict of arrays by name, got {type(mapping).__name__}; pass one")
        checked = [(key, *_checked(key, params[key], grads)) for key in params]
        lr, weight_decay = self.current_rate(), self.weight_decay
        self._prepare_state(checked)
        self.iter += 1
        for key, _, _ in checked:
            # Taken anew: a parameter may share memory with one that has just been updated.
            param, grad = _checked(key, params[key], grads)
            if np.may_share_memory(param, grad):
                grad = grad.copy()
            param_elements, grad_elements = param.reshape(-1), grad.reshape(-1)
            if weight_decay and key.startswith("W"):
                grad_elements = _decayed(param_elements, grad_elements, weight_decay)
            self._update(key, param_elements, grad_elements, lr)
            _write_back(params, key, param)

    def _prepare_state(self, checked: list[tuple[str, Array, Array]]) -> None:
        for name in self._state:
            state = getattr(self, name) or {}
            for key, param, _ in checked:
                if key in state and state[key].shape != param.shape:
                    same_shape(f"params[{key!r}]", param, state[key].shape, f"as the optimizer's {name}[{key!r}]")
            new = {key: np.zeros_like(param) for key, param, _ in checked if key not in state}
            if new:
                setattr(self, name, state | new)

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:
        """Update one flat parameter at the rate of this step."""
        raise NotImplementedError

    def _flat(self, name: str, key: str, param: Array) -> Array:
        """The state of a flat parameter, which another thread may have replaced since it was prepared."""
        state: Array = getattr(self, name)[key].reshape(-1)
        if len(state) != len(param):
            raise ValueError(
                f"{name}[{key!r}]: expected {len(param)} numbers, as the parameter has, got {len(state)}; "
                f"give each network and each thread an optimizer of its own"
            )
        return state


class SGD(Optimizer):
    """Stochastic gradient descent, W -= lr·dW (section 6.1.2)."""

    def __init__(self, lr: LearningRate = 0.01, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:  # noqa: ARG002 - it keeps no state by key
        implementation(param.dtype).sgd_update(param, grad, lr)


class Momentum(Optimizer):
    """SGD with momentum, v = momentum·v - lr·dW; W += v (section 6.1.4)."""

    _state = ("v",)

    def __init__(self, lr: LearningRate = 0.01, momentum: float = 0.9, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = momentum
        self.v: dict[str, Array] | None = None

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:
        v = self._flat("v", key, param)
        implementation(param.dtype).momentum_update(param, grad, v, lr, self.momentum)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient, with the gradient taken a step ahead (Bengio et al., arXiv:1212.0901)."""

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:
        v = self._flat("v", key, param)
        implementation(param.dtype).nesterov_update(param, grad, v, lr, self.momentum)


class AdaGrad(Optimizer):
    """A rate of its own for each element, h += dW²; W -= lr·dW/(sqrt(h) + eps) (section 6.1.5)."""

    _state = ("h",)

    def __init__(self, lr: LearningRate = 0.01, *, eps: float = 1e-7, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.eps = eps
        self.h: dict[str, Array] | None = None

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:
        implementation(param.dtype).adagrad_update(param, grad, self._flat("h", key, param), lr, self.eps)


class RMSprop(Optimizer):
    """AdaGrad that forgets, h = decay_rate·h + (1 - decay_rate)·dW² (section 6.1.5)."""

    _state = ("h",)

    def __init__(
        self, lr: LearningRate = 0.01, decay_rate: float = 0.99, *, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.decay_rate, self.eps = decay_rate, eps
        self.h: dict[str, Array] | None = None

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:
        h = self._flat("h", key, param)
        implementation(param.dtype).rmsprop_update(param, grad, h, lr, self.decay_rate, self.eps)


class Adam(Optimizer):
    """Momentum and RMSprop together (section 6.1.6; Kingma and Ba, arXiv:1412.6980).

    The correction of the bias is folded into the rate of update number t: lr·sqrt(1 - beta2**t)/(1 - beta1**t).
    """

    _state = ("m", "v")

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

    def _update(self, key: str, param: Array, grad: Array, lr: float) -> None:
        m, v = self._flat("m", key, param), self._flat("v", key, param)
        implementation(param.dtype).adam_update(param, grad, m, v, lr, self.beta1, self.beta2, self.eps)

    def current_rate(self) -> float:
        """`current_lr` with the correction of the bias."""
        t = self.iter + 1
        return self.current_lr * math.sqrt(1.0 - self.beta2**t) / (1.0 - self.beta1**t)


def optimizer(name_or_object: str | Optimizer) -> Optimizer:
    """Return the optimizer of a name with default settings, or the object that is given.

    Parameters
    ----------
    name_or_object : str or Optimizer
        "sgd", "momentum", "nesterov", "adagrad", "rmsprop" or "adam", in capitals or not.

    Raises
    ------
    TypeError
        If it is neither a name nor an optimizer.
    ValueError
        For another name.
    """
    if isinstance(name_or_object, Optimizer):
        return name_or_object
    names = ", ".join(_BY_NAME)
    if not isinstance(name_or_object, str):
        given = name_or_object.__name__ if isinstance(name_or_object, type) else type(name_or_object).__name__
        given = f"the class {given}" if isinstance(name_or_object, type) else given
        raise TypeError(f"optimizer: expected a name or an optimizer, got {given}; give one of {names}, or SGD(0.1)")
    if name_or_object.lower() not in _BY_NAME:
        raise ValueError(f"optimizer: expected one of {names}, got {name_or_object!r}; take one of these")
    return _BY_NAME[name_or_object.lower()]()


OPTIMIZERS: tuple[type[Optimizer], ...] = (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)

_BY_NAME: dict[str, Callable[[], Optimizer]] = {kind.__name__.lower(): kind for kind in OPTIMIZERS}


def _checked(key: str, param: Any, grads: Mapping[str, Any]) -> tuple[Array, Array]:
    """A parameter and its gradient as a kernel takes them; the parameter itself where it can be."""
    given = grads.get(key)
    if _fits_kernel(param, given):
        return param, cast(Array, given)
    name = f"params[{key!r}]"
    array = as_array(name, param)
    if array.ndim and not isinstance(param, np.ndarray):
        raise TypeError(f"{name}: expected an array or a number, got {type(param).__name__}; pass np.array({name})")
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name}: expected floats, got {array.dtype}, in which a small step is lost; convert with .astype(float)"
        )
    if isinstance(param, np.ndarray) and not param.flags.writeable:
        raise ValueError(f"{name}: expected an array that can be written to, got a read-only one; pass a copy")
    if key not in grads:
        raise ValueError(
            f"grads: expected a gradient for {key!r}, got only {sorted(grads)}; give one for each of params"
        )
    grad = as_array(f"grads[{key!r}]", grads[key])
    same_shape(f"grads[{key!r}]", grad, array.shape, f"as {name}")
    dtype = result_dtype(array)
    return working(array, dtype), working(grad, dtype)


def _decayed(param: Array, grad: Array, weight_decay: float) -> Array:
    """The gradient with that of weight_decay/2·sum(param²) added, a new array."""
    decayed = np.empty_like(grad)
    implementation(param.dtype).decayed_gradient(param, grad, weight_decay, decayed)
    return decayed


def _fits_kernel(param: Any, grad: Any) -> bool:
    """Whether nothing is wrong with either and neither needs a copy: the usual case, decided in 0.5 µs."""
    return (
        type(param) is np.ndarray
        and type(grad) is np.ndarray
        and (param.dtype is FLOAT64 or param.dtype is FLOAT32)
        and grad.dtype is param.dtype
        and grad.shape == param.shape
        and param.flags.carray
        and grad.flags.carray
    )


def _write_back(params: MutableMapping[str, Any], key: str, updated: Array) -> None:
    """Put an updated copy where its parameter is: into the array, or in place of a number."""
    param = params[key]
    if not isinstance(param, np.ndarray):
        params[key] = float(updated)
    elif updated is not param:
        param[...] = updated
