"""The source of a kernel, generated from the expressions of a graph.

Each expression that a result needs becomes one line, in the order of the record. The loads, stores and sums around
these lines are those of `fastbp.runtime.generated`.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastbp.checks import DType
from fastbp.graph.elementwise import COMPILED, COSTS
from fastbp.graph.expressions import INVERSE_SIZE, REDUCTIONS, Expression
from fastbp.runtime import generated

# The cost of an operation in multiply-adds, by which threads are chosen. Any other operation costs 1.
_COST = {"/": 4, "**": 60}

_LINES = {
    "negative": "-{0}",
    "where": "{1} if {0} else {2}",
    **{sign: f"{{0}} {sign} {{1}}" for sign in ("+", "-", "*", "/", "**", "<", "<=", ">", ">=", "==", "!=", "|")},
}

# The number of the value among the outputs of a program. The gradients have the numbers from 0.
VALUE = -1


@dataclass(frozen=True)
class Code:
    """A generated source and the meaning of its arguments."""

    source: str
    dtype: DType
    # The numbers of the outputs that are arrays, and of those that are sums.
    outputs: tuple[int, ...]
    sums: tuple[int, ...]
    cost: int


class Program:
    """The expressions of a graph: its inputs by their names, its value, and its gradients by the inputs."""

    def __init__(
        self, names: list[str], value: Expression, inputs: list[Expression], gradients: list[Expression]
    ) -> None:
        self.names = names
        self.reduction = value.kind if value.kind in REDUCTIONS else None
        self.value: Expression = value.operands[0] if self.reduction else value
        self.gradients = gradients
        needed = {expression.index for expression in _needed([self.value])}
        self.used = [symbol.index in needed for symbol in inputs]

    def code(self, scalars: tuple[bool, ...], gradients: bool, dtype: DType) -> Code:
        """Return the source of a kernel; `scalars` says which inputs are numbers."""
        wanted = {VALUE: self.value}
        if gradients:
            wanted |= {n: e for n, e in enumerate(self.gradients) if self.used[n] or scalars[n]}
        sums = tuple(n for n in wanted if (self.reduction if n == VALUE else scalars[n]))
        outputs = tuple(n for n in wanted if n not in sums)
        return _Writer(self, scalars, dtype).code(wanted, outputs, sums)


class _Writer:
    """Writes the source of one kernel."""

    def __init__(self, program: Program, scalars: tuple[bool, ...], dtype: DType) -> None:
        self._program, self._scalars, self._dtype = program, scalars, dtype
        self._taken = {*generated.NAMES, *COMPILED}
        self._names = [self._free(name) for name in program.names]
        self._texts: dict[int, str] = {}

    def _free(self, name: str) -> str:
        """Return `name`, or a similar name where the source uses `name` for something else."""
        name = name if name.isidentifier() and name.isascii() and not keyword.iskeyword(name) else "x"
        while name in self._taken or name.endswith("_array") or (name[:1] == "t" and name[1:].isdigit()):
            name += "_"
        self._taken.add(name)
        return name

    def code(self, wanted: dict[int, Expression], outputs: tuple[int, ...], sums: tuple[int, ...]) -> Code:
        used = self._program.used
        arrays = [n for n, scalar, is_used in zip(self._names, self._scalars, used, strict=True) if is_used > scalar]
        numbers = [name for name, scalar in zip(self._names, self._scalars, strict=True) if scalar]
        results = {n: "value" if n == VALUE else f"d{self._names[n]}" for n in wanted}
        body, cost = self._body(_needed(wanted.values()))
        written = len(outputs) + len(sums)
        pointers = ["scalars", *(f"{name}_array" for name in arrays), *(f"{results[n]}_array" for n in outputs)]
        lines = [
            f"# {self._dtype}",
            "def kernel(first, last, size, addresses):",
            *(f"    {pointer} = array(addresses, {k}, T(0))" for k, pointer in enumerate(pointers)),
            f"    sums = array(addresses, {len(pointers)}, 0.0)",
            "    blocks = (size + BLOCK - 1) // BLOCK",
            *(f"    {name} = load(scalars, {k})" for k, name in enumerate(numbers)),
            "    room = min(size, BLOCK)",
            *([f"    terms = allocate(scalars, {len(sums)} * room)"] if sums else []),
            "    for block in range(first, last):",
            "        start = block * BLOCK",
            "        count = min(room, size - start)",
            "        for i in range(count):",
            *(f"            {name} = load({name}_array, start + i)" for name in arrays),
            *(f"            {line}" for line in body),
            *(
                f"            store({results[n]}_array, start + i, {self._texts[wanted[n].index]}, {k})"
                for k, n in enumerate(outputs)
            ),
            *(
                f"            store(terms, {k} * room + i, {self._texts[wanted[n].index]}, {len(outputs) + k})"
                for k, n in enumerate(sums)
            ),
            *(
                f"        store(sums, {k} * blocks + block, total(terms, {k} * room, count), {written})"
                for k in range(len(sums))
            ),
            *(["    release(terms)"] if sums else []),
        ]
        return Code("\n".join([*lines, ""]), self._dtype, outputs, sums, cost)

    def _body(self, expressions: list[Expression]) -> tuple[list[str], int]:
        """Return a line for each expression that is not a name or a number, and the cost of all lines."""
        lines: list[str] = []
        cost = 2
        names = dict(zip(self._program.names, self._names, strict=True))
        for expression in expressions:
            if expression.kind == "symbol":
                name = expression.operands[0]
                self._texts[expression.index] = "T(1.0 / size)" if name == INVERSE_SIZE else names[name]
            elif expression.number is not None:
                self._texts[expression.index] = _literal(expression.number)
            else:
                operands = [self._texts[operand.index] for operand in expression.operands]
                text = f"t{len(lines)}"
                line = _LINES.get(expression.kind, f"{expression.kind}({', '.join(operands)})")
                lines.append(f"{text} = {line.format(*operands)}")
                self._texts[expression.index] = text
                cost += COSTS.get(expression.kind, _COST.get(expression.kind, 1))
        return lines, cost


def _literal(number: float) -> str:
    if np.isnan(number):
        return "T(NAN)"
    if np.isinf(number):
        return "T(INF)" if number > 0 else "T(-INF)"
    return f"T({number!r})"


def _needed(results: Iterable[Expression]) -> list[Expression]:
    """Return the results and all expressions behind them, operands first."""
    found: dict[int, Expression] = {}
    waiting = list(results)
    while waiting:
        expression = waiting.pop()
        if expression.index not in found:
            found[expression.index] = expression
            waiting += [operand for operand in expression.operands if isinstance(operand, Expression)]
    return [found[index] for index in sorted(found)]
