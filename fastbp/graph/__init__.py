"""Computational graphs: write arithmetic, run it backwards, draw it, compile it to one kernel."""

from fastbp.graph.functions import exp, log, maximum, mean, relu, sigmoid, softplus, sqrt, sum, tanh  # noqa: A004
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.operations import Operation

__all__ = [
    "Operation",
    "Variable",
    "apply",
    "exp",
    "log",
    "maximum",
    "mean",
    "relu",
    "sigmoid",
    "softplus",
    "sqrt",
    "sum",
    "tanh",
]
