"""Computational graphs: write arithmetic, run it backwards, draw it as the book does, compile it to one kernel.

    >>> from fastbp.graph import Variable
    >>> price, number, tax = Variable(100, "price"), Variable(2, "number"), Variable(1.1, "tax")
    >>> total = price * number * tax
    >>> total.backward()
    >>> total.draw("apples.svg")

Where things are: `nodes` has `Variable` and the chain rule, `operations` each operation with its local derivative,
`composites` the layers as nodes, `drawing` (with `layout` and `pictures`) the drawings, `figures` those of the
chapter, `compiling` (with `expressions` and `sources`) the compiler.
"""

from fastbp.graph import figures
from fastbp.graph.compiling import Compiled, compile  # noqa: A004
from fastbp.graph.composites import affine, cross_entropy, opened, softmax, softmax_with_loss
from fastbp.graph.drawing import draw
from fastbp.graph.expressions import CompileError
from fastbp.graph.functions import exp, log, maximum, mean, relu, sigmoid, softplus, sqrt, sum, tanh  # noqa: A004
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.operations import Operation

__all__ = [
    "CompileError",
    "Compiled",
    "Operation",
    "Variable",
    "affine",
    "apply",
    "compile",
    "cross_entropy",
    "draw",
    "exp",
    "figures",
    "log",
    "maximum",
    "mean",
    "opened",
    "relu",
    "sigmoid",
    "softmax",
    "softmax_with_loss",
    "softplus",
    "sqrt",
    "sum",
    "tanh",
]
