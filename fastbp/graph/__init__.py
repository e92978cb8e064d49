"""Computational graphs: write arithmetic, run it backwards, draw it as the book does, compile it to one kernel.

    >>> from fastbp.graph import Variable
    >>> price, number, tax = Variable(100, "price"), Variable(2, "number"), Variable(1.1, "tax")
    >>> total = price * number * tax
    >>> total.backward()
    >>> drawing = total.draw("apples.svg")

The modules in their order. Each imports only from modules above it in this list:

- `layout`: the places of the nodes and arrows of a drawing;
- `expressions`: symbols, which record the arithmetic that is done on them;
- `elementwise`: functions of numbers, arrays and symbols;
- `sources`: the source of a kernel, from expressions;
- `operations`: each operation with its local derivative, and the table of the elementwise operations;
- `places`: the operations that put elements in other places;
- `structure`: nodes, the walks over their operands, and the chain rule;
- `nodes`: `Variable`, a node with arithmetic;
- `composites`: the layers as nodes, and the table of these;
- `functions`: the functions of variables, from both tables;
- `protocol`: NumPy's functions on variables;
- `opening`: composite nodes replaced by what is inside them;
- `compiling`: a graph as one kernel;
- `diagrams`: the content of a drawing;
- `drawing`: `draw`, and the drawing in each format;
- `figures`: the figures of the chapter.

This module puts the package together: it gives `Variable` its functions, NumPy's and its drawing.
"""

from typing import TYPE_CHECKING, Any

from fastbp.graph import figures, functions, protocol
from fastbp.graph.compiling import Compiled, compile  # noqa: A004
from fastbp.graph.drawing import draw, notebook_svg
from fastbp.graph.expressions import CompileError
from fastbp.graph.functions import *  # noqa: F403
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.opening import opened
from fastbp.graph.operations import ELEMENTWISE, Operation

for _name in (*ELEMENTWISE, "clip", "max", "mean", "min", "sum"):
    setattr(Variable, _name, getattr(functions, _name))
Variable.draw = draw
Variable._repr_svg_ = notebook_svg
Variable.__array_ufunc__ = protocol.array_ufunc
Variable.__array_function__ = protocol.array_function

__all__ = [  # noqa: PLE0604 - the tables hold strings
    "CompileError",
    "Compiled",
    "Operation",
    "Variable",
    "apply",
    "compile",
    "draw",
    "figures",
    "opened",
    *functions.__all__,
]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
