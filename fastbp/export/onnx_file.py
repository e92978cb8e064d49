"""A network as an ONNX model, in the operators that runtimes know best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastbp._version import __version__
from fastbp.checks import FLOAT32, FLOAT64, DType
from fastbp.export import steps
from fastbp.export.expressions import Expression
from fastbp.export.walk import Program, sizes, walk
from fastbp.extras import require
from fastbp.files import FilePath, replace
from fastbp.ops.contract import Shape

OPSET, IR_VERSION = 17, 8
"""Of ONNX 1.12; runtimes since 2022 read them."""


def to_onnx(network: Any, path: FilePath, *, sample_shape: Shape | None = None, end: str | None = None) -> None:
    """Write what a network predicts as an ONNX model, which onnxruntime and many others run.

    Its input is "x", a batch of any number of samples, its output "y". Samples are float32 or float64, as the
    parameters are, or int64 indices where the network begins with `Embedding`.

    Parameters
    ----------
    network : Sequential, or a network of `fastbp.book`
        Nothing of it is changed.
    path : path
        The file is replaced at once or stays as it was.
    sample_shape : tuple of int, optional
        The shape of one sample, such as (1, 28, 28). Needed where images of several sizes fit the layers.
    end : {"softmax", "sigmoid"}, optional
        What follows the last layer: probabilities in the place of what the loss takes.

    Raises
    ------
    ImportError
        Without the package onnx: ``pip install onnx``.
    TypeError
        For a layer of another class; the message has its name and its place.
    ValueError
        If the shape of a sample must be given, or does not fit.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> fastbp.export.to_onnx(network, "network.onnx", end="softmax")
    """
    onnx = require("onnx")
    model = _Model(onnx, walk(network, sample_shape, end)).made()
    onnx.checker.check_model(model)
    replace(path, model.SerializeToString())


class _Model:
    """Collects the nodes of a program, one value after the other."""

    def __init__(self, onnx: Any, program: Program) -> None:
        self.onnx, self.program, self.dtype = onnx, program, program.dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.symbol, self.count = "", 0

    def made(self) -> Any:
        """The whole model."""
        helper, program = self.onnx.helper, self.program
        value = "x"
        for layer in program.layers:
            self.symbol, self.count = layer.symbol, 0
            for step in layer.steps:
                value = _NODES[type(step)](self, step, value)
        self.symbol = "y"
        self.nodes.append(helper.make_node("Identity", [value], ["y"]))
        kind = helper.np_dtype_to_tensor_dtype
        indices = np.dtype(np.int64)
        x = ("x", kind(indices if program.takes_indices else self.dtype), ["N", *program.shape])
        y = ("y", kind(self.dtype), ["N", *program.out])
        graph = helper.make_graph(
            self.nodes,
            program.network,
            [helper.make_tensor_value_info(*x)],
            [helper.make_tensor_value_info(*y)],
            [*self.constants.values()],
        )
        return helper.make_model(
            graph,
            producer_name="fastbp",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        self.count += 1
        out = f"{self.symbol}_{operator.lower()}_{self.count}"
        self.nodes.append(self.onnx.helper.make_node(operator, [*inputs], [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: Any, dtype: DType | None = None) -> str:
        """Add a parameter of the layer, and return its name."""
        name = f"{self.symbol}_{name}"
        array = np.asarray(value, self.dtype if dtype is None else dtype)
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def number(self, value: float) -> str:
        """Add a number that all layers share."""
        name = f"number_{value!r}"
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(np.asarray(value, self.dtype), name)
        return name


def _reshaped(model: _Model, step: steps.Reshaped, x: str) -> str:
    # 0 keeps the number of samples.
    shape = model.constant(f"shape_{sizes(step.out)}", [0, *step.out], np.dtype(np.int64))
    return model.node("Reshape", x, shape)


def _product(model: _Model, step: steps.Product, x: str) -> str:
    W = model.constant("W", step.W)
    if step.b is None:
        return model.node("MatMul", x, W)
    return model.node("Gemm", x, W, model.constant("b", step.b))


def _lookup(model: _Model, step: steps.Lookup, x: str) -> str:
    return model.node("Gather", model.constant("W", step.W), x)


def _correlation(model: _Model, step: steps.Correlation, x: str) -> str:
    W, b = model.constant("W", step.W), model.constant("b", step.b)
    return model.node("Conv", x, W, b, strides=[step.stride] * 2, pads=[step.pad] * 4)


def _pooled(model: _Model, step: steps.Pooled, x: str) -> str:
    window = {"kernel_shape": step.window, "strides": [step.stride] * 2, "pads": [step.pad] * 4}
    if step.is_max:
        return model.node("MaxPool", x, **window)
    return model.node("AveragePool", x, count_include_pad=1, **window)


def _normalized(model: _Model, step: steps.Normalized, x: str) -> str:
    parameters = [model.constant(name, array) for name, array in step.arrays()]
    return model.node("BatchNormalization", x, *parameters, epsilon=0.0)


def _normalized_over_sample(model: _Model, step: steps.NormalizedOverSample, x: str) -> str:
    gamma, beta = (model.constant(name, array) for name, array in step.arrays())
    if model.dtype == FLOAT32:
        return model.node("LayerNormalization", x, gamma, beta, axis=-step.gamma.ndim, epsilon=step.eps)
    # The operator has its epsilon, and may have its statistics, in float32.
    axes = {"axes": [*range(-step.gamma.ndim, 0)]}
    centered = model.node("Sub", x, model.node("ReduceMean", x, **axes))
    var = model.node("ReduceMean", model.node("Mul", centered, centered), **axes)
    std = model.node("Sqrt", model.node("Add", var, model.number(step.eps)))
    return model.node("Add", model.node("Mul", gamma, model.node("Div", centered, std)), beta)


def _softmax(model: _Model, step: steps.SoftmaxAlong, x: str) -> str:
    return model.node("Softmax", x, axis=step.axis + 1)


# Activations that have an operator, with the attributes that their settings are. Others are written in arithmetic.
_OPERATORS: dict[str, tuple[str, tuple[str, ...], tuple[DType, ...]]] = {
    "relu": ("Relu", (), (FLOAT32, FLOAT64)),
    "sigmoid": ("Sigmoid", (), (FLOAT32, FLOAT64)),
    "tanh": ("Tanh", (), (FLOAT32, FLOAT64)),
    "leaky_relu": ("LeakyRelu", ("alpha",), (FLOAT32,)),
    "elu": ("Elu", ("alpha",), (FLOAT32,)),
    "softplus": ("Softplus", (), (FLOAT32,)),
}


def _elementwise(model: _Model, step: steps.Elementwise, x: str) -> str:
    operator, names, dtypes = _OPERATORS.get(step.name, ("", (), ()))
    if model.dtype in dtypes:
        return model.node(operator, x, **dict(zip(names, step.settings, strict=True)))
    return _Arithmetic(model, x).value(step.expression)


_ARITHMETIC = {
    "absolute": "Abs",
    "add": "Add",
    "divide": "Div",
    "equal": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "log": "Log",
    "maximum": "Max",
    "minimum": "Min",
    "multiply": "Mul",
    "negative": "Neg",
    "power": "Pow",
    "sqrt": "Sqrt",
    "subtract": "Sub",
    "tanh": "Tanh",
    "where": "Where",
}


class _Arithmetic:
    """The nodes of an expression, each once."""

    def __init__(self, model: _Model, x: str) -> None:
        self.model, self.x = model, x
        self.made: dict[int, str] = {}

    def value(self, expression: Expression | float) -> str:
        if not isinstance(expression, Expression):
            return self.model.number(float(expression))
        if expression.function == "x":
            return self.x
        if id(expression) not in self.made:
            operands = [self.value(operand) for operand in expression.operands]
            self.made[id(expression)] = self._node(expression.function, operands)
        return self.made[id(expression)]

    def _node(self, function: str, operands: list[str]) -> str:
        node, one = self.model.node, self.model.number
        if function == "square":
            return node("Mul", *operands, *operands)
        if function == "not_equal":
            return node("Not", node("Equal", *operands))
        if function == "expm1":  # 2t/(1 - t) with t = tanh(x/2), as exp(x) - 1 has few digits near 0
            t = node("Tanh", node("Mul", *operands, one(0.5)))
            return node("Div", node("Add", t, t), node("Sub", one(1.0), t))
        if function == "log1p":
            return node("Log", node("Add", *operands, one(1.0)))
        return node(_ARITHMETIC[function], *operands)


_NODES: dict[type[steps.Step], Callable[[_Model, Any, str], str]] = {
    steps.Reshaped: _reshaped,
    steps.Product: _product,
    steps.Lookup: _lookup,
    steps.Correlation: _correlation,
    steps.Pooled: _pooled,
    steps.Normalized: _normalized,
    steps.NormalizedOverSample: _normalized_over_sample,
    steps.SoftmaxAlong: _softmax,
    steps.Elementwise: _elementwise,
}
