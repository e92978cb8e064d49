"""The layers as nodes of a graph.

A node of a layer computes with its layer, with the layer's exact numbers and speed. `fastbp.graph.opened` replaces it
by the operations that it is made of (section 5.6, appendix A).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastbp import layers
from fastbp.graph.elementwise import Value
from fastbp.graph.expressions import refuse_symbols
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.operations import ADD, EXP, LOG, MATMUL, Gradients, Operation, Sum
from fastbp.graph.structure import shape_of
from fastbp.ops.contract import LOSSES
from fastbp.ops.targets import labels_of_one_class, target

# Every node of a layer, by the name of its function in `fastbp.graph`.
LAYERS: dict[str, type[LayerNode]] = {}


class LayerNode(Operation):
    """A node that a layer computes. A subclass with a name is all that `fastbp.graph` needs of a layer.

    The first operand is the input of the layer. Any other operand is a target, which gets no gradient. The settings of
    the layer come after the operands.
    """

    name = "layer"
    layer: ClassVar[Callable[..., Any]]
    # The names of the operands in the function of `fastbp.graph`.
    parameters: ClassVar[tuple[str, ...]] = ("x",)

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            LAYERS[cls.name] = cls

    def __init__(self, **settings: Any) -> None:
        self._layer = self.layer(**settings)

    def refuse_symbols(self, *operands: Value) -> None:
        """Raise `CompileError` for symbols: a layer computes with whole rows."""
        refuse_symbols(
            self.name, operands, f"call graph.{self.name} itself, and compile what comes before and after it"
        )

    def forward(self, x: Value, *targets: Value) -> Value:
        """Return what the layer computes."""
        self.refuse_symbols(x, *targets)
        return self._layer.forward(x, *(_labels(t, x) for t in targets))

    def backward(self, dout: Value, out: Value, x: Value, *targets: Value) -> Gradients:
        """Return the gradient of the layer's input."""
        return self._layer.backward(dout), *(None for _ in targets)


class Affine(LayerNode):
    """x·W + b as one node, for one sample (D,) or a batch (N, D); W is (D, M), b (M,) (section 5.6).

    Raises as the layer `Affine` does.
    """

    name, symbol = "affine", "Affine"
    parameters = operand_names = ("x", "W", "b")

    def __init__(self) -> None:
        """Make the layer later, from the operands."""

    def forward(self, x: Value, W: Value, b: Value) -> Value:
        self.refuse_symbols(x, W, b)
        self._layer = layers.Affine(W, b)
        return self._layer.forward(x)

    def backward(self, dout: Value, out: Value, x: Value, W: Value, b: Value) -> Gradients:
        dx = self._layer.backward(dout)
        return dx, self._layer.dW, self._layer.db

    def inside(self, x: Any, W: Any, b: Any) -> Variable:
        return apply(ADD, apply(MATMUL, x, W), b)


class Softmax(LayerNode):
    """exp(x)/sum(exp(x)) as one node, along an axis of x, by default the last."""

    name, symbol = "softmax", "Softmax"
    layer = layers.Softmax
    operand_names = ("a",)

    def inside(self, x: Any) -> Variable:
        e = apply(EXP, x)
        return e / apply(Sum(self._layer.axis, keepdims=True), e)


class CrossEntropy(LayerNode):
    """The mean over the batch of −sum(t·log(y)) as one node.

    y is probabilities, (C,) or (N, C); t is integer labels or distributions, and gets no gradient.
    """

    name, symbol = "cross_entropy", "Cross Entropy"
    layer = layers.CrossEntropyError
    parameters = operand_names = ("y", "t")

    def inside(self, y: Any, t: Any) -> Variable:
        loss = -apply(Sum(), _distribution(t, y) * apply(LOG, y))
        return loss if len(shape_of(y)) == 1 else loss / float(shape_of(y)[0])


class SoftmaxWithLoss(LayerNode):
    """The cross entropy of softmax(x) as one node, by the exact log-sum-exp.

    x is logits, (C,) or (N, C); t is integer labels or distributions, and gets no gradient.
    """

    name, symbol = "softmax_with_loss", "Softmax with Loss"
    layer = layers.SoftmaxWithLoss
    parameters, operand_names = ("x", "t"), ("a", "t")

    def inside(self, x: Any, t: Any) -> Variable:
        return apply(CrossEntropy(), apply(Softmax(), x), t)


def _of_loss(kind: type) -> None:
    """Make the node of a loss of `fastbp.layers` that has no class here, exp_with_loss of ExpWithLoss."""
    name = "_".join(re.findall("[A-Z][a-z]*", kind.__name__)).lower()
    summary = (kind.__doc__ or "").strip().split("\n")[0]
    traits = {"__doc__": summary, "__module__": __name__, "name": name, "symbol": kind.__name__, "layer": kind}
    type(kind.__name__, (LayerNode,), {**traits, "parameters": ("x", "t"), "operand_names": ("x", "t")})


for _record in LOSSES.values():
    if _record.layer is not layers.SoftmaxWithLoss:
        _of_loss(_record.layer)


def _distribution(t: Any, y: Any) -> Any:
    """Return `t` in the shape of y, with labels as one-hot rows."""
    given, shape = t.held if isinstance(t, Variable) else t, shape_of(y)
    labels = _labels(given, y)
    if labels is given and shape_of(given) == shape:
        return t
    labels, _ = target(labels, shape, np.dtype(float))
    return np.eye(shape[-1])[labels].reshape(shape)


def _labels(t: Value, y: Any) -> Any:
    """Return labels as integers, which a layer takes and a graph keeps as floats, and a distribution as it is."""
    array, shape = np.asarray(t), shape_of(y)
    if array.shape == shape and shape[-1] > 1:
        return t
    with np.errstate(invalid="ignore"):  # of NaN
        integers = array.astype(np.intp)
    if array.shape == shape and not labels_of_one_class(integers, shape[-1]):
        return t
    return integers if np.array_equal(integers, array) else t
