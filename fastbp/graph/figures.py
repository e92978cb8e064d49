"""The figures of the chapter by name: graphs with the book's numbers, and the options of their drawings.

`fastbp graph NAME` saves one from the command line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from fastbp.checks import closest
from fastbp.graph.composites import SoftmaxWithLoss
from fastbp.graph.drawing import Drawing, draw
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.opening import opened
from fastbp.graph.operations import Divide, Exp, Total
from fastbp.graph.structure import behind


@dataclass(frozen=True)
class Figure:
    """A figure: its title, the result of its graph, and the options of its drawing."""

    title: str
    y: Variable
    options: dict[str, Any] = field(default_factory=dict)

    def draw(self, path: str | Path | None = None) -> Drawing:
        """Draw the figure; see `fastbp.graph.draw`."""
        return draw(self.y, path, title=self.title, **self.options)


def names() -> list[str]:
    """The names of all figures, in the order of the chapter.

    Examples
    --------
    >>> names()[:3]
    ['apples', 'apples-variables', 'plus']
    """
    return list(_FIGURES)


def figure(name: str) -> Figure:
    """Return a figure by its name.

    Raises
    ------
    ValueError
        If no figure has that name.

    Examples
    --------
    >>> figure("apples-gradients").title
    'Buying apples, forward and backward'
    >>> drawing = figure("apples-gradients").draw("apples.svg")
    """
    if name not in _FIGURES:
        raise ValueError(f"figure: expected one of {', '.join(_FIGURES)}, got {name!r}; {closest(name, _FIGURES)}")
    return _FIGURES[name]()


def _apples() -> Figure:
    price = Variable(100, "apple")
    return Figure("Two apples with tax", price * 2 * 1.1, {"gradients": None})


def _bought() -> Variable:
    price, number, tax = Variable(100, "apple"), Variable(2, "number"), Variable(1.1, "tax")
    return price * number * tax


def _apples_variables() -> Figure:
    return Figure("Two apples with tax, the number and the tax as variables", _bought(), {"gradients": None})


def _apples_gradients() -> Figure:
    return Figure("Buying apples, forward and backward", _bought())


def _fruit() -> Figure:
    apple, apples = Variable(100, "apple"), Variable(2, "apples")
    orange, oranges, tax = Variable(150, "orange"), Variable(3, "oranges"), Variable(1.1, "tax")
    return Figure("Apples and oranges, forward and backward", (apple * apples + orange * oranges) * tax)


def _plus() -> Figure:
    z = Variable(10, "x") + Variable(5, "y")
    z.backward(1.3)
    return Figure("The plus node passes a gradient on", z)


def _plus_formulas() -> Figure:
    x, y = Variable(10, "x"), Variable(5, "y")
    z = x + y
    z.name = "z"
    below = {z: "∂L/∂z", x: "∂L/∂z·1", y: "∂L/∂z·1"}
    return Figure("The plus node passes ∂L/∂z on", z, {"gradients": below})


def _times() -> Figure:
    z = Variable(10, "x") * Variable(5, "y")
    z.backward(1.3)
    return Figure("The times node multiplies a gradient by the other operand", z)


def _times_formulas() -> Figure:
    x, y = Variable(10, "x"), Variable(5, "y")
    z = x * y
    z.name = "z"
    below = {z: "∂L/∂z", x: "∂L/∂z·y", y: "∂L/∂z·x"}
    return Figure("The times node multiplies ∂L/∂z by the other operand", z, {"gradients": below})


def _sum_squared() -> tuple[Variable, Variable]:
    t = Variable(1, "x") + Variable(2, "y")
    z = t**2
    t.name, z.name = "t", "z"
    return z, t


def _chain_rule() -> Figure:
    z, t = _sum_squared()
    below: dict[Any, str] = {z: "∂z/∂z", t: "∂z/∂z·∂z/∂t = 2t"}
    below |= {x: f"∂z/∂z·∂z/∂t·∂t/∂{name} = 2(x+y)" for x, name in zip(t.operands, "xy", strict=True)}
    return Figure("(x + y)² through t²: the chain rule", z, {"gradients": below})


def _square() -> Figure:
    return Figure("(x + y)² through t², in numbers", _sum_squared()[0])


def _sigmoid() -> Figure:
    x = Variable(1, "x")
    negated = -x
    e = negated.exp()
    u = e + 1
    y = 1 / u
    y.name = "y"
    below = {
        y: "∂L/∂y",
        u: "−∂L/∂y·y²",
        e: "−∂L/∂y·y²",
        negated: "−∂L/∂y·y²·exp(−x)",
        x: "∂L/∂y·y²·exp(−x) = ∂L/∂y·y(1−y)",
    }
    return Figure("The sigmoid's graph", y, {"gradients": below})


def _sigmoid_node() -> Figure:
    x = Variable(1, "x")
    y = x.sigmoid()
    y.name = "y"
    return Figure("The sigmoid as one node", y, {"gradients": {y: "∂L/∂y", x: "∂L/∂y·y(1−y)"}})


def _affine(*batch: int) -> Figure:
    x = Variable(np.arange(1.0, 1 + 2 * np.prod(batch, dtype=int)).reshape(*batch, 2), "X")
    W, b = Variable(np.arange(6.0).reshape(2, 3) / 10, "W"), Variable(np.array([0.1, 0.2, 0.3]), "B")
    product = x @ W
    y = product + b
    y.name = "Y"
    row, wide = (*batch, 2), (*batch, 3)
    below = {
        y: f"∂L/∂Y {wide}",
        product: f"∂L/∂Y {wide}",
        x: f"∂L/∂Y·Wᵀ {row}",
        W: "Xᵀ·∂L/∂Y (2, 3)",
        b: "sum of ∂L/∂Y's rows (3,)" if batch else "∂L/∂Y (3,)",
    }
    title = "Affine for a batch of five samples" if batch else "Affine for one sample"
    return Figure(f"{title}: shapes", y, {"shapes": True, "gradients": below})


def _loss() -> Variable:
    """Return the loss for logits whose softmax is (0.3, 0.2, 0.5), where the second class is right."""
    L = apply(SoftmaxWithLoss(), Variable(np.log([3.0, 2.0, 5.0]), "a"), Variable(np.array([0.0, 1.0, 0.0]), "t"))
    L.name = "L"
    return L


def _softmax_with_loss() -> Figure:
    L = opened(_loss())
    y, t = cast(tuple[Variable, Variable], L.operands)
    (a,) = y.operands
    y.name = "y"
    below = {
        L: "1",
        y: [f"−t{n}/y{n}" for n in (1, 2, 3)],
        a: [f"y{n} − t{n}" for n in (1, 2, 3)],
        t: ["", "", ""],
    }
    return Figure("Softmax with loss as two nodes: the gradient is y − t", L, {"gradients": below})


def _softmax_with_loss_opened() -> Figure:
    y = opened(_loss(), elements=True)
    exponentials = sorted((node for node in behind(y)[1] if isinstance(node.operation, Exp)), key=lambda e: e.number)
    for n, e in enumerate(exponentials, 1):
        e.name = f"exp(a{n})"
    return Figure("Softmax with loss, opened down to single numbers", y, {"again": _numerators(y)})


def _numerators(y: Variable) -> list[tuple[Variable, Variable]]:
    """Return what a softmax divides, with the quotients: their lines would cross those to the sum."""
    quotients = [cast(Variable, node) for node in behind(y)[0] if isinstance(node.operation, Divide)]
    return [(cast(Variable, quotient.operands[0]), quotient) for quotient in quotients]


# The stages of the derivation and the last step of each. The steps are 15 operations forward, the gradient of the
# loss itself, and the same 15 operations backward.
_STAGES = {
    "forward through the softmax": 7,
    "forward through the loss": 15,
    "backward through the loss": 24,
    "backward through the division and the sum": 28,
    "backward to y − t": 31,
}


def _derivation(title: str = "", step: int | None = None) -> Figure:
    values, targets = np.log([3.0, 2.0, 5.0]), (0.0, 1.0, 0.0)
    a = [Variable(value, f"a{i}") for i, value in enumerate(values, 1)]
    t = [Variable(value, f"t{i}") for i, value in enumerate(targets, 1)]
    e = [a_i.exp() for a_i in a]
    S = apply(Total(), *e)
    S.name = "S"
    y = [e_i / S for e_i in e]
    logs = [y_i.log() for y_i in y]
    products = [t_i * log_i for t_i, log_i in zip(t, logs, strict=True)]
    total = apply(Total(), *products)
    L = -total
    L.name = "L"
    below: dict[Any, str] = {L: "1", total: "−1", S: "1/S"}
    for i in range(3):
        n = i + 1
        y[i].name, e[i].name = f"y{n}", f"exp(a{n})"
        below |= {
            products[i]: "−1",
            logs[i]: f"−t{n}",
            y[i]: f"−t{n}/y{n}",
            (e[i], y[i]): f"−t{n}/exp(a{n})",
            (S, y[i]): f"t{n}/S",
            (e[i], S): "1/S",
            e[i]: f"1/S − t{n}/exp(a{n})",
            a[i]: f"y{n} − t{n}",
        }
    options = {"gradients": below, "again": list(zip(e, y, strict=True)), "step": step}
    return Figure(f"The gradient of softmax with loss{title and f': {title}'}", L, options)


_FIGURES: dict[str, Callable[[], Figure]] = {
    "apples": _apples,
    "apples-variables": _apples_variables,
    "plus": _plus,
    "times": _times,
    "plus-formulas": _plus_formulas,
    "times-formulas": _times_formulas,
    "apples-gradients": _apples_gradients,
    "fruit": _fruit,
    "chain-rule": _chain_rule,
    "square": _square,
    "sigmoid": _sigmoid,
    "sigmoid-node": _sigmoid_node,
    "affine": _affine,
    "affine-batch": functools.partial(_affine, 5),
    "softmax-with-loss": _softmax_with_loss,
    "softmax-with-loss-opened": _softmax_with_loss_opened,
    "derivation": _derivation,
    **{
        f"derivation-{number}": functools.partial(_derivation, title, step)
        for number, (title, step) in enumerate(_STAGES.items(), start=1)
    },
}
