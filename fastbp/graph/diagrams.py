"""What is in a drawing: the nodes and arrows of a graph, the texts on them, and the steps at which they appear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from fastbp.graph.elementwise import Value
from fastbp.graph.layout import Edge, Item
from fastbp.graph.operations import Index, Operation
from fastbp.graph.pictures import FONT_SIZE, text_width
from fastbp.graph.structure import Node, behind, chain_rule

# Of a dict, a key (x, y) is the arrow from x to the operation that computes y.
Gradients = str | Mapping[Any, str] | None

RADIUS = 20.0
DOT = 3.0
LABEL_HEIGHT = 2 * FONT_SIZE + 14


@dataclass
class DrawnNode:
    """A node of a drawing: an operation, a first variable, a point where a value branches, or the end."""

    kind: str
    text: str
    step: int
    item: Item
    opens: bool = False


@dataclass
class Flow:
    """An arrow with its two texts, and the steps at which they come."""

    edge: Edge
    forward: str
    backward: str
    forward_step: int
    backward_step: int


@dataclass
class Diagram:
    """What is drawn, before it has a place."""

    nodes: list[DrawnNode] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    steps: int = 0

    def add_node(self, kind: str, text: str, step: int, opens: bool = False) -> int:
        """Add a node and return its index."""
        if kind == "operation":
            width = 2 * RADIUS if text_width(text) <= 1.8 * RADIUS else text_width(text) + 24
            item = Item(width, 2 * RADIUS)
        elif kind == "variable":
            item = Item(text_width(text) + 4, FONT_SIZE + 6)
        else:
            item = Item(2 * DOT, 2 * DOT)
        self.nodes.append(DrawnNode(kind, text, step, item, opens))
        return len(self.nodes) - 1

    def add_flow(
        self, source: int, target: int, forward: str, backward: str, forward_step: int, backward_step: int
    ) -> None:
        """Add an arrow."""
        width = max(text_width(forward), text_width(backward), 16.0) + 6
        self.flows.append(
            Flow(Edge(source, target, width, LABEL_HEIGHT), forward, backward, forward_step, backward_step)
        )


def diagram_of(y: Node, gradients: Gradients, shapes: bool) -> Diagram:
    """Return what `draw` shows of the graph behind `y`."""
    return _Gathering(y, gradients, shapes).diagram()


class _Gathering:
    """Gathers the nodes and arrows of a graph, and the texts on them."""

    def __init__(self, y: Node, gradients: Gradients, shapes: bool) -> None:
        self._y, self._mode, self._shapes = y, gradients, shapes
        order, reached = behind(y)
        self._forward = order[::-1]
        self._passed: dict[tuple[Node, int], Value] = {}
        self._totals: dict[Node, Value] = {}
        if gradients is not None:
            self._totals = chain_rule(y, order, 1 if y.grad is None else y.grad, self._passed)
        count = len(order)
        self._made_at = {variable: step for step, variable in enumerate(self._forward, start=1)}
        self._passed_at = {variable: count + 2 + i for i, variable in enumerate(order)}
        self._uses: dict[Node, list[Node]] = {variable: [] for variable in reached}
        for variable in self._forward:
            for operand in variable.operands:
                if operand is not None:
                    self._uses[operand].append(variable)
        self._names = self._all_names()
        self._diagram = Diagram(steps=2 * count + 1 if gradients is not None else count)

    def _all_names(self) -> dict[Node, str]:
        names = {variable: variable.name for variable in self._uses if variable.name}
        if self._mode == "formulas":
            names.setdefault(self._y, "L")
            unnamed = [variable for variable in self._forward if variable not in names]
            names |= {variable: f"h{number}" for number, variable in enumerate(unnamed, start=1)}
        return names

    def diagram(self) -> Diagram:
        """The whole drawing."""
        sources: dict[Node, int] = {}
        diagram = self._diagram
        nodes = {
            variable: diagram.add_node(
                "operation", _label(variable), step, cast(Operation, variable.operation).inside is not None
            )
            for variable, step in self._made_at.items()
        }
        for variable in self._forward:
            operation = cast(Operation, variable.operation)
            for position, (operand, argument) in enumerate(variable.pairs):
                if operand is None:
                    if not isinstance(argument, float | np.generic):
                        self._add_constant(operation, position, argument, nodes[variable])
                    continue
                if operand not in sources:
                    sources[operand] = self._add_source(operand, nodes)
                one_of_several = len(self._uses[operand]) > 1
                self._diagram.add_flow(
                    sources[operand],
                    nodes[variable],
                    self._value(operand),
                    self._gradient(operand, variable, position, one_of_several),
                    self._made_at.get(operand, 0),
                    self._passed_at[variable],
                )
        end = diagram.add_node("end", "", 0)
        backward = self._total(self._y)
        first_back = len(self._forward) + 1
        diagram.add_flow(nodes[self._y], end, self._value(self._y), backward, self._made_at[self._y], first_back)
        return diagram

    def _add_constant(self, operation: Operation, position: int, argument: Value, target: int) -> None:
        name = operation.operand_names[position] if position < len(operation.operand_names) else ""
        source = self._diagram.add_node("variable", name or "constant", 0)
        self._diagram.add_flow(source, target, _number(argument, self._shapes), "", 0, 0)

    def _add_source(self, operand: Node, nodes: dict[Node, int]) -> int:
        """The node that an operand's arrows start from: its operation, its name, or a dot where it branches."""
        diagram = self._diagram
        source = nodes[operand] if operand in nodes else diagram.add_node("variable", operand.name or "·", 0)
        if len(self._uses[operand]) < 2:
            return source
        dot = diagram.add_node("branch", "", self._made_at.get(operand, 0))
        last = max(self._passed_at[user] for user in self._uses[operand])
        diagram.add_flow(source, dot, self._value(operand), self._total(operand), self._made_at.get(operand, 0), last)
        return dot

    def _value(self, variable: Node) -> str:
        text = _number(variable.data, self._shapes)
        if variable in self._names and variable.operation is not None:
            return f"{self._names[variable]} {text}" if text.startswith("(") else f"{self._names[variable]} = {text}"
        return text

    def _gradient(self, operand: Node, user: Node, position: int, one_of_several: bool) -> str:
        """What is below an arrow from `operand` to the operation that made `user`."""
        if (user, position) not in self._passed:
            return ""
        if isinstance(self._mode, Mapping):
            return self._mode.get((operand, user), self._mode.get(operand, ""))
        formula = self._formula(operand)
        if one_of_several and self._mode == "formulas":
            formula = f"{self._formula(user)}·∂{self._names[user]}/∂{self._name(operand)}"
        return self._number_or(formula, self._passed[user, position])

    def _total(self, variable: Node) -> str:
        if variable not in self._totals:
            return ""
        if isinstance(self._mode, Mapping):
            return self._mode.get(variable, "")
        return self._number_or(self._formula(variable), self._totals[variable])

    def _number_or(self, formula: str, gradient: Value) -> str:
        if self._mode == "numbers":
            return _number(gradient, self._shapes)
        return f"{formula} {_number(gradient, True)}" if self._shapes else formula

    def _formula(self, variable: Node) -> str:
        return f"∂{self._name(self._y)}/∂{self._name(variable)}"

    def _name(self, variable: Node) -> str:
        return self._names.get(variable, "x")


def _label(variable: Node) -> str:
    """What stands in a node: the operation, with a number that is one of its operands."""
    operation = cast(Operation, variable.operation)
    text = operation.symbol
    if isinstance(operation, Index):
        return f"[{_key(operation.key)}]"
    for position, (operand, argument) in enumerate(variable.pairs):
        if operand is None and isinstance(argument, float | np.floating):
            number = _number(argument)
            if len(text) > 2:
                return f"{text}({', '.join(['·', number] if position else [number, '·'])})"
            return f"{text}{f'({number})' if argument < 0 else number}" if position else f"{number}{text}"
    return text


def _key(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(
        _slice(part) if isinstance(part, slice) else str(part) if np.ndim(part) == 0 else "…" for part in parts
    )


def _slice(part: slice) -> str:
    ends = [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
    return ":".join("" if end is None else str(end) for end in ends)


def _number(value: Value, shapes: bool = False) -> str:
    """A number with up to five figures; a short array's numbers; a longer array's shape."""
    if isinstance(value, np.ndarray):
        if shapes or value.ndim > 1 or value.size > 4:
            return f"({', '.join(map(str, value.shape))}{',' if value.ndim == 1 else ''})"
        return f"[{', '.join(_number(element) for element in value)}]"
    if shapes:
        return "()"
    text = f"{float(value):.5g}".replace("-", "−")
    return "0" if text == "−0" else text
