"""What optimizers share: checks, the rate of a step, state, and the walk over the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
from numba import carray

from fastbp.checks import (
    FLOAT32,
    FLOAT64,
    Array,
    as_array,
    rate,
    result_dtype,
    same_shape,
    same_state,
    schedule,
    to_kernel,
)
from fastbp.ops.contract import OPTIMIZERS, Update, changed, registered, twin_of
from fastbp.ops.state import coefficient, parameters_of, slot_of
from fastbp.runtime.jit import kernel
from fastbp.runtime.sharing import shared_kernel

# A rate, or the rate of each step.
LearningRate: TypeAlias = float | Callable[[int], float] | Array


class Optimizer:
    """What the optimizers share: checks, the rate of a step, state, and the walk over the parameters.

    Attributes
    ----------
    lr : float, callable or ndarray
    weight_decay : float
    iter : int
        How many updates there have been.
    """

    record: ClassVar[Update]
    # Its settings beside these, in the order in which its update takes them, with what each must stay below.
    settings: ClassVar[Mapping[str, float]] = {}

    def __init__(self, lr: LearningRate, weight_decay: float) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self.iter = 0

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; a rate is checked whenever it is set, in the course of training, too."""
        if name == "lr":
            value = schedule(name, value)
        elif name == "weight_decay":
            value = rate(name, value)
        elif name in self.settings:
            value = rate(name, value, self.settings[name])
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        lr = self.lr
        if callable(lr):
            text = getattr(lr, "__name__", type(lr).__name__)
        elif isinstance(lr, np.ndarray):
            text = np.array2string(lr, threshold=4, edgeitems=2, separator=", ")
        else:
            text = repr(lr)
        kind, others = type(self), self.setting_names()[1:]
        return f"{kind.__name__}({', '.join([f'lr={text}', *changed(self, kind, others)])})"

    def setting_names(self) -> tuple[str, ...]:
        """Names of the attributes that it is made with, the rate first."""
        return "lr", *self.settings, "weight_decay"

    def state_names(self) -> tuple[str, ...]:
        """Names of the attributes that hold the state: dicts of arrays by parameter, or None before an update."""
        return self.record.state

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
        lr: float = self.lr_at(self.iter)
        return lr

    def lr_at(self, step: Any) -> Any:
        """The rate `lr` of a step, from 0, or of each of an array of steps."""
        lr = self.lr
        if type(lr) is float:
            return lr
        if isinstance(step, np.ndarray):
            return np.array([self.lr_at(number) for number in step.tolist()])
        if callable(lr):
            return rate(f"lr({step})", lr(step))
        rates: Array = np.asarray(lr)
        if step >= len(rates):
            raise ValueError(
                f"lr: expected a rate for step {step}, got an array of {len(rates)}; "
                f"give one for each update, or a function of the step"
            )
        return rate(f"lr[{step}]", rates[step])

    def rate_at(self, step: Any) -> Any:
        """What the update of a step takes for its rate: `lr_at`, with what the method makes of it."""
        return self.lr_at(step)

    def coefficients(self, step: Any) -> tuple[Any, ...]:
        """The numbers that the update of a step takes: its rate and the settings.

        For an array of steps a number that changes with the step is an array. Where the optimizer decouples the weight
        decay, the last one is what a parameter loses of itself.
        """
        return self.rate_at(step), *(getattr(self, name) for name in self.settings)

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
        coefficients, decays = self.coefficients(self.iter), getattr(params, "decays", _is_weight)
        undecayed = (*coefficients[:-1], 0.0) if self.record.decouples else coefficients
        weight_decay = 0.0 if self.record.decouples else self.weight_decay
        asks = bool(weight_decay) or self.record.decouples
        self._prepare_state(checked)
        self.iter += 1
        for key, _, _ in checked:
            # Taken anew: a parameter may share memory with one that has just been updated.
            param, grad = _checked(key, params[key], grads)
            if np.may_share_memory(param, grad):
                grad = grad.copy()
            param_elements, grad_elements = param.reshape(-1), grad.reshape(-1)
            is_decayed = asks and decays(key)
            if weight_decay and is_decayed:
                grad_elements = _decayed(param_elements, grad_elements, weight_decay)
            state = [self._flat(name, key, param_elements) for name in self.record.state]
            given = coefficients if is_decayed else undecayed
            self.record.update.of(param.dtype)(param_elements, grad_elements, *state, *given)
            _write_back(params, key, param)

    def _prepare_state(self, checked: list[tuple[str, Array, Array]]) -> None:
        for name in self.record.state:
            state = getattr(self, name) or {}
            for key, param, _ in checked:
                if key in state:
                    same_state(f"params[{key!r}]", param, state[key].shape, f"{name}[{key!r}]", self)
            new = {key: np.zeros_like(param) for key, param, _ in checked if key not in state}
            if new:
                setattr(self, name, state | new)

    def _flat(self, name: str, key: str, param: Array) -> Array:
        """The state of a flat parameter, which another thread may have replaced since it was prepared."""
        state: Array = getattr(self, name)[key].reshape(-1)
        if len(state) != len(param):
            raise ValueError(
                f"{name}[{key!r}]: expected {len(param)} numbers, as the parameter has, got {len(state)}; "
                f"give each network and each thread an optimizer of its own"
            )
        return state


def optimizer_of(kind: type[Optimizer], update: Any, **traits: Any) -> None:
    """Register an optimizer, by its class, with the twins of its update."""
    state = traits.get("state", ())
    count = len(cast(Any, kind)().coefficients(0))
    if len(state) >= len(_STATES) or count >= len(_COEFFICIENTS):
        raise ValueError(
            f"{kind.__name__}: expected at most {len(_STATES) - 1} kinds of state and {len(_COEFFICIENTS) - 1} "
            f"coefficients, got {len(state)} and {count}; add a kernel that takes as many to fastbp.ops.optimizer"
        )
    kind.record = registered(OPTIMIZERS, kind, Update(update, _step(update, len(state), count), **traits))


def _step(update: Any, slots: int, count: int) -> Any:
    """The kernel that takes an update's arrays from a network in training."""
    function, state, coefficients = update.kernel.kernel, _STATES[slots], _COEFFICIENTS[count]

    def step(network_at, begin, grad, size, given):
        arrays = (parameters_of(network_at, begin, size), carray(grad, size)) + state(network_at, begin, size)
        function(*(arrays + coefficients(given)))

    step.__qualname__ = f"{update.__name__}.step"
    return kernel(step)


@kernel
def _no_slots(network_at, begin, size):
    return ()


@kernel
def _one_slot(network_at, begin, size):
    return (slot_of(network_at, 0, begin, size),)


@kernel
def _two_slots(network_at, begin, size):
    return slot_of(network_at, 0, begin, size), slot_of(network_at, 1, begin, size)


@kernel
def _one_coefficient(given):
    return (coefficient(given, 0),)


@kernel
def _two_coefficients(given):
    return coefficient(given, 0), coefficient(given, 1)


@kernel
def _three_coefficients(given):
    return coefficient(given, 0), coefficient(given, 1), coefficient(given, 2)


@kernel
def _four_coefficients(given):
    return coefficient(given, 0), coefficient(given, 1), coefficient(given, 2), coefficient(given, 3)


@kernel
def _five_coefficients(given):
    return _four_coefficients(given) + (coefficient(given, 4),)


_STATES = _no_slots, _one_slot, _two_slots
_COEFFICIENTS: tuple[Any, ...] = (
    None,
    _one_coefficient,
    _two_coefficients,
    _three_coefficients,
    _four_coefficients,
    _five_coefficients,
)


@shared_kernel
def _decayed_gradient(param, grad, weight_decay, out):
    """out = grad + weight_decay·param, the gradient of the loss and weight_decay/2·sum(param²)."""
    decay = param.dtype.type(weight_decay)
    for i in range(param.size):
        out[i] = grad[i] + decay * param[i]


@twin_of(_decayed_gradient)
def decayed_gradient(param: Array, grad: Array, weight_decay: float, out: Array) -> None:
    out[...] = grad + weight_decay * param


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
    return to_kernel(array, dtype), to_kernel(grad, dtype)


def _decayed(param: Array, grad: Array, weight_decay: float) -> Array:
    """The gradient with that of weight_decay/2·sum(param²) added, a new array."""
    decayed = np.empty_like(grad)
    decayed_gradient.of(param.dtype)(param, grad, weight_decay, decayed)
    return decayed


def _is_weight(key: str) -> bool:
    """Whether weight decay applies to a parameter of which only the name is known."""
    return key.startswith("W")


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
