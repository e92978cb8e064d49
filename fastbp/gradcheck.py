"""Numerical differentiation, and the check of backpropagation against it (sections 4.3 and 5.7.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import FLOAT32, FLOAT64, Array, as_array, scalar

__all__ = ["GradientCheck", "ParameterCheck", "gradient_check", "numerical_gradient", "numerical_gradient_2d"]


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at x by central differences, (f(x + h) - f(x - h))/2h for each element.

    Parameters
    ----------
    f : callable
        Takes x and returns a number. It may ignore its argument and read x itself, as the book's
        `lambda W: network.loss(x, t)` does: x is changed in place, one element at a time. Every element is put back
        exactly, also when f raises.
    x : ndarray of float64 or float32
        Any shape. In float32 the result is only good to about three digits.
    h : float
        Half the distance of the two points.

    Returns
    -------
    ndarray
        A new array in the shape and dtype of x.

    Raises
    ------
    TypeError
        If x is not an array of float64 or float32, or f(x) not a real number.
    ValueError
        If x is read-only, or f(x) more than one number.

    Examples
    --------
    >>> numerical_gradient(lambda x: np.sum(x**2), np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    """
    if not isinstance(x, np.ndarray) or as_array("x", x).dtype not in (FLOAT32, FLOAT64):
        got = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(
            f"x: expected an array of float64 or float32, got {got}; convert with np.array(x, dtype=np.float64)"
        )
    if not x.flags.writeable:
        raise ValueError("x: expected an array that can be written to, got a read-only one; pass a copy")
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        try:
            x[index] = value + h
            above = scalar("f(x)", f(x))
            x[index] = value - h
            below = scalar("f(x)", f(x))
        finally:
            x[index] = value
        gradient[index] = (above - below) / (2 * h)
    return gradient


def numerical_gradient_2d(f: Callable[[Array], Any], X: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at each row of X by central differences (the book's `common/gradient.py`).

    Parameters
    ----------
    f : callable
        Takes a row of X and returns a number. The row is X's own memory, changed in place, one element at a time.
        Every element is put back exactly, also when f raises.
    X : ndarray of float64 or float32
        Points (N, D), or one point (D,).
    h : float
        Half the distance of the two points.

    Returns
    -------
    ndarray
        A new array in the shape and dtype of X; row i is the gradient of f at X[i].

    Raises
    ------
    TypeError, ValueError
        As `numerical_gradient`; and ValueError if X has another number of axes.

    Examples
    --------
    >>> numerical_gradient_2d(lambda x: np.sum(x**2), np.array([[3.0, 4.0], [0.0, 2.0]])).round(6)
    array([[6., 8.],
           [0., 4.]])
    """
    if isinstance(X, np.ndarray) and X.ndim not in (1, 2):
        raise ValueError(
            f"X: expected points (N, D) or one point (D,), got shape {X.shape}; for one function of all of X take "
            f"numerical_gradient"
        )
    if not isinstance(X, np.ndarray) or X.ndim == 1 or len(X) == 0:
        return numerical_gradient(f, X, h)
    return np.array([numerical_gradient(f, row, h) for row in X])


@dataclass(frozen=True)
class ParameterCheck:
    """How the two gradients of one parameter differ.

    Attributes
    ----------
    name : str
    largest, mean : float
        Absolute difference.
    worst_index : tuple of int
        Where the difference is largest.
    backpropagation, numerical : float
        The two gradients there.

    Examples
    --------
    >>> first = gradient_check(network, x, t).parameters[0]
    >>> first.name, first.mean <= first.largest
    ('W1', True)
    """

    name: str
    largest: float
    mean: float
    worst_index: tuple[int, ...]
    backpropagation: float
    numerical: float


@dataclass(frozen=True)
class GradientCheck:
    """The report of `gradient_check`; prints as a table.

    Attributes
    ----------
    parameters : tuple of ParameterCheck
        In the network's order.
    tolerance : float
        The largest difference that passes.

    Examples
    --------
    >>> check = gradient_check(network, x, t)
    >>> check.raise_if_failed()
    >>> check.passed, check.worst.largest < 1e-8
    (True, True)
    """

    parameters: tuple[ParameterCheck, ...]
    tolerance: float

    @property
    def worst(self) -> ParameterCheck:
        """The parameter with the largest difference; a NaN counts as the largest."""
        return max(self.parameters, key=lambda check: np.inf if np.isnan(check.largest) else check.largest)

    @property
    def passed(self) -> bool:
        """Whether no difference is larger than the tolerance."""
        return self.worst.largest <= self.tolerance

    def raise_if_failed(self) -> None:
        """Raise `ValueError` with the worst entry unless the check passed."""
        if self.passed:
            return
        worst = self.worst
        raise ValueError(
            f"gradient of {worst.name}: expected backpropagation within {self.tolerance:g} of numerical "
            f"differentiation, got a difference of {worst.largest:.3g} at index {worst.worst_index} "
            f"({worst.backpropagation:.6g} against {worst.numerical:.6g}); check the backward of its layer "
            f"and of the layers after it"
        )

    def __str__(self) -> str:
        lines = [f"{'parameter':<12}{'mean difference':>18}{'largest':>12}  worst index"]
        for check in self.parameters:
            lines.append(f"{check.name:<12}{check.mean:>18.2e}{check.largest:>12.2e}  {check.worst_index}")
        verdict = "passed" if self.passed else "FAILED"
        return "\n".join(
            [*lines, f"{verdict}: largest difference {self.worst.largest:.2e}, allowed {self.tolerance:.0e}"]
        )


class _Network(Protocol):
    @property
    def params(self) -> Mapping[str, Array]: ...

    def gradient(self, x: ArrayLike, t: ArrayLike) -> dict[str, Array]: ...

    def numerical_gradient(self, x: ArrayLike, t: ArrayLike) -> dict[str, Array]: ...


def gradient_check(
    network: _Network, x: ArrayLike, t: ArrayLike, *, tolerance: float = 1e-6, raise_on_failure: bool = False
) -> GradientCheck:
    """Compare the gradients by backpropagation and by numerical differentiation, parameter by parameter.

    The numerical gradient is wrong where it crosses the kink of a ReLU: choose inputs whose pre-activations
    are not within 1e-4 of zero. It takes two losses for each element of every parameter.

    Parameters
    ----------
    network : Sequential
        With float64 parameters; in float32 the numerical gradient says too little.
    x, t : array_like
        A few samples and their targets.
    tolerance : float
        The largest absolute difference that passes.
    raise_on_failure : bool
        Raise `ValueError`, naming the worst entry, if the check fails.

    Returns
    -------
    GradientCheck

    Raises
    ------
    TypeError
        If a parameter is not float64.
    ValueError
        If the network has no parameters, or the check fails and `raise_on_failure` is set.

    Examples
    --------
    >>> gradient_check(network, x, t).passed
    True
    """
    for name, value in network.params.items():
        if value.dtype != FLOAT64:
            raise TypeError(f"params[{name!r}]: expected float64, got {value.dtype}; build the network in float64")
    backpropagation = network.gradient(x, t)
    numerical = network.numerical_gradient(x, t)
    checks = tuple(_compare(name, backpropagation[name], numerical[name]) for name in backpropagation)
    if not checks:
        raise ValueError("network: expected at least one parameter, got none; add an Affine layer")
    report = GradientCheck(checks, tolerance)
    if raise_on_failure:
        report.raise_if_failed()
    return report


def _compare(name: str, backpropagation: Array, numerical: Array) -> ParameterCheck:
    difference = np.abs(backpropagation - numerical)
    if difference.size == 0:
        return ParameterCheck(name, 0.0, 0.0, (), 0.0, 0.0)
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    largest, mean = float(difference[worst]), float(difference.mean())
    return ParameterCheck(name, largest, mean, worst, float(backpropagation[worst]), float(numerical[worst]))
