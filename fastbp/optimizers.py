"""The book's optimizers (chapter 6): `update(params, grads)` changes the parameters in place.

`params` and `grads` are mappings with the same keys; values are arrays, or plain floats as in the book's plots,
which are replaced in `params`. All keys and shapes are checked before anything is changed. The state of an
optimizer (`v`, `h`, `m`) is a dict of arrays, made at the first update. The constant 1e-7 stands outside every
root, as in the book.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

import numpy as np

from fastbp.implementation import implementation
from fastbp.validation import FLOAT32, FLOAT64, Array, as_array, rate, result_dtype, same_shape, working

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"]

# What a setting must stay below.
_LIMITS = {"lr": math.inf, "momentum": 1, "decay_rate": 1, "beta1": 1, "beta2": 1}


class Optimizer:
    """What the optimizers share: checks, state, and the walk over the parameters."""

    _state: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; a rate is checked whenever it is set, in the course of training, too."""
        super().__setattr__(name, rate(name, value, _LIMITS[name]) if name in _LIMITS else value)

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
            For a missing gradient, another shape, or a read-only parameter. Nothing is changed then.
        """
        for name, mapping, kind in (("params", params, MutableMapping), ("grads", grads, Mapping)):
            if not isinstance(mapping, kind):
                raise TypeError(f"{name}: expected a dict of arrays by name, got {type(mapping).__name__}; pass one")
        checked = [(key, *_checked(key, params[key], grads)) for key in params]
        self._prepare_state(checked)
        self._begin()
        for key, _, _ in checked:
            # Taken anew: a parameter may share memory with one that has just been updated.
            param, grad = _checked(key, params[key], grads)
            if np.may_share_memory(param, grad):
                grad = grad.copy()
            self._update(key, param.reshape(-1), grad.reshape(-1))
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

    def _begin(self) -> None:
        """Called once for each update, before any parameter."""

    def _update(self, key: str, param: Array, grad: Array) -> None:
        """Update one flat parameter."""
        raise NotImplementedError

    def _flat(self, name: str, key: str) -> Array:
        state: Array = getattr(self, name)[key]
        return state.reshape(-1)


class SGD(Optimizer):
    """Stochastic gradient descent, W -= lr·dW (section 6.1.2)."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def _update(self, key: str, param: Array, grad: Array) -> None:  # noqa: ARG002 - it keeps no state by key
        implementation(param.dtype).sgd_update(param, grad, self.lr)


class Momentum(Optimizer):
    """SGD with momentum, v = momentum·v - lr·dW; W += v (section 6.1.4)."""

    _state = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        self.v: dict[str, Array] | None = None

    def _update(self, key: str, param: Array, grad: Array) -> None:
        v = self._flat("v", key)
        implementation(param.dtype).momentum_update(param, grad, v, self.lr, self.momentum)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient, with the gradient taken a step ahead (Bengio et al., arXiv:1212.0901)."""

    def _update(self, key: str, param: Array, grad: Array) -> None:
        v = self._flat("v", key)
        implementation(param.dtype).nesterov_update(param, grad, v, self.lr, self.momentum)


class AdaGrad(Optimizer):
    """A rate of its own for each element, h += dW²; W -= lr·dW/(sqrt(h) + 1e-7) (section 6.1.5)."""

    _state = ("h",)

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.h: dict[str, Array] | None = None

    def _update(self, key: str, param: Array, grad: Array) -> None:
        implementation(param.dtype).adagrad_update(param, grad, self._flat("h", key), self.lr)


class RMSprop(Optimizer):
    """AdaGrad that forgets, h = decay_rate·h + (1 - decay_rate)·dW² (section 6.1.5)."""

    _state = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        self.lr, self.decay_rate = lr, decay_rate
        self.h: dict[str, Array] | None = None

    def _update(self, key: str, param: Array, grad: Array) -> None:
        implementation(param.dtype).rmsprop_update(param, grad, self._flat("h", key), self.lr, self.decay_rate)


class Adam(Optimizer):
    """Momentum and RMSprop together (section 6.1.6; Kingma and Ba, arXiv:1412.6980).

    The correction of the bias is folded into the rate of update number t: lr·sqrt(1 - beta2**t)/(1 - beta1**t).
    """

    _state = ("m", "v")

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.iter = 0
        self.m: dict[str, Array] | None = None
        self.v: dict[str, Array] | None = None

    def _begin(self) -> None:
        self.iter += 1

    def _update(self, key: str, param: Array, grad: Array) -> None:
        corrected = self.lr * math.sqrt(1.0 - self.beta2**self.iter) / (1.0 - self.beta1**self.iter)
        m, v = self._flat("m", key), self._flat("v", key)
        implementation(param.dtype).adam_update(param, grad, m, v, corrected, self.beta1, self.beta2)


def _checked(key: str, param: Any, grads: Mapping[str, Any]) -> tuple[Array, Array]:
    """A parameter and its gradient as a kernel takes them; the parameter itself where it can be."""
    if _fits_kernel(param, grads.get(key)):
        return param, grads[key]
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
