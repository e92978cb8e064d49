"""The content of a drawing: the nodes and arrows of a graph, their texts, and the steps at which these appear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from fastbp.graph.elementwise import Value
from fastbp.graph.layout import Edge, Item
from fastbp.graph.operations import Operation
from fastbp.graph.structure import Node, behind, chain_rule, described
from fastbp.pictures import FONT_SIZE, text_width

# In a dict, the key (x, y) means the arrow from x to the operation that computes y. Several texts are those of the
# elements of a vector, whose arrows are drawn apart.
Gradients = str | Mapping[Any, str | Sequence[str]] | None
# Pairs (x, y): x is not joined to the operation that computes y, but appears again beside it.
Again = Collection[tuple[Node, Node]]

RADIUS = 20.0
DOT = 3.0
# Between arrows that enter a node or leave it.
ARROW_GAP = 12.0
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
    """An arrow with its two texts, and the steps at which they appear."""

    edge: Edge
    forward: str
    backward: str
    forward_step: int
    backward_step: int
    mark: str = ""


@dataclass
class Diagram:
    """The content of a drawing, before the layout sets the places."""

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
        self,
        source: int,
        target: int,
        forward: str,
        backward: str,
        forward_step: int,
        backward_step: int,
        mark: str = "",
        span: int = 2,
    ) -> None:
        """Add an arrow."""
        width = max(text_width(forward), text_width(backward), 16.0) + 6
        self.flows.append(
            Flow(Edge(source, target, width, LABEL_HEIGHT, span), forward, backward, forward_step, backward_step, mark)
        )

    def make_room(self) -> None:
        """Make boxes as high as their arrows need."""
        for ends in ([flow.edge.source for flow in self.flows], [flow.edge.target for flow in self.flows]):
            for number, count in Counter(ends).items():
                node = self.nodes[number]
                if node.kind == "operation" and node.item.width > 2 * RADIUS:
                    node.item.height = max(node.item.height, ARROW_GAP * count + 4)


def diagram_of(y: Node, gradients: Gradients, shapes: bool, again: Again = ()) -> Diagram:
    """Return the content of a drawing of the graph behind `y`."""
    return _Builder(y, gradients, shapes, again).diagram()


class _Builder:
    """Builds the diagram of a graph."""

    def __init__(self, y: Node, gradients: Gradients, shapes: bool, again: Again) -> None:
        self._y, self._mode, self._shapes, self._again = y, gradients, shapes, set(again)
        order, reached = behind(y)
        self._forward = order[::-1]
        self._passed: dict[tuple[Node, int], Value] = {}
        self._totals: dict[Node, Value] = {}
        if gradients is not None:
            self._totals = chain_rule(y, order, 1 if y.grad is None else y.grad, self._passed)
        count = len(order)
        # The steps at which each node is computed, and at which it passes its gradient back.
        self._computed_at = {node: step for step, node in enumerate(self._forward, start=1)}
        self._passed_at = {node: step for step, node in enumerate(order, start=count + 2)}
        self._uses: dict[Node, list[Node]] = {node: [] for node in reached}
        for node in self._forward:
            for operand in node.operands:
                if operand is not None:
                    self._uses[operand].append(node)
        self._names = self._all_names()
        self._diagram = Diagram(steps=2 * count + 1 if gradients is not None else count)

    def _all_names(self) -> dict[Node, str]:
        names = {node: node.name for node in self._uses if node.name}
        if self._mode == "formulas":
            names.setdefault(self._y, "L")
            unnamed = [node for node in self._forward if node not in names]
            names |= {node: f"h{number}" for number, node in enumerate(unnamed, start=1)}
        return names

    def diagram(self) -> Diagram:
        """Return the whole diagram."""
        sources: dict[Node, int] = {}
        diagram, y = self._diagram, self._y
        numbers: dict[Node, int] = {}
        for node, step in self._computed_at.items():
            opens = cast(Operation, node.operation).inside is not None
            numbers[node] = diagram.add_node("operation", _label(node), step, opens)
        for node, number in numbers.items():
            operation = cast(Operation, node.operation)
            for position, (operand, argument) in enumerate(node.pairs):
                mark = "" if self._has_number(node) else operation.mark(position)
                if operand is None:
                    if not isinstance(argument, float | np.generic):
                        self._add_constant(operation, position, argument, number, mark)
                elif self._texts_apart(operand) is not None:
                    self._add_apart(operand, node, position, numbers)
                else:
                    self._add_arrow(operand, node, position, numbers, sources, mark)
        end = diagram.add_node("end", "", 0)
        step = len(numbers)
        diagram.add_flow(numbers[y], end, self._value(y), self._total(y), step, step + 1)
        diagram.make_room()
        return diagram

    def _has_number(self, node: Node) -> bool:
        """Return whether the operation has a number beside its sign, which says which operand is which."""
        return any(operand is None and isinstance(argument, float | np.generic) for operand, argument in node.pairs)

    def _add_arrow(
        self, operand: Node, node: Node, position: int, numbers: dict[Node, int], sources: dict[Node, int], mark: str
    ) -> None:
        """Add the arrow from an operand to the operation that computes `node`."""
        since, passed_at = self._computed_at.get(operand, 0), self._passed_at[node]
        backward = self._gradient(operand, node, position)
        if (operand, node) in self._again:
            start = self._diagram.add_node("variable", self._name(operand), since)
            value = _number(operand.held, self._shapes)
            self._diagram.add_flow(start, numbers[node], value, backward, since, passed_at, mark)
            return
        if operand not in sources:
            sources[operand] = self._add_source(operand, numbers)
        # Names that stand again are nearer than what is computed, which then finds its way around them.
        span = 4 if any(user is node for _, user in self._again) else 2
        value, start = self._value(operand), sources[operand]
        self._diagram.add_flow(start, numbers[node], value, backward, since, passed_at, mark, span)

    def _texts_apart(self, operand: Node) -> Sequence[str] | None:
        """Return the texts of the elements of a vector whose arrows are drawn apart, None for any other operand."""
        texts = self._mode.get(operand) if isinstance(self._mode, Mapping) else None
        if texts is None or isinstance(texts, str):
            return None
        shape = np.shape(operand.held)
        if len(shape) != 1 or len(texts) != shape[0] or len(self._uses[operand]) != 1:
            raise ValueError(
                f"gradients: expected a text, or a text for each element of a vector that is used once, got "
                f"{len(texts)} texts for {described(operand)} of shape {shape}; give one text"
            )
        return texts

    def _add_apart(self, operand: Node, node: Node, position: int, numbers: dict[Node, int]) -> None:
        """Add an arrow for each element of a vector."""
        diagram, since = self._diagram, self._computed_at.get(operand, 0)
        name = self._names.get(operand, "")
        for number, (element, text) in enumerate(zip(operand.held, self._texts_apart(operand) or (), strict=True), 1):
            forward = _number(element)
            if operand in numbers:
                start, forward = numbers[operand], f"{name}{number} = {forward}" if name else forward
            else:
                start = diagram.add_node("variable", f"{name}{number}" if name else "·", 0)
            backward = text if (node, position) in self._passed else ""
            diagram.add_flow(start, numbers[node], forward, backward, since, self._passed_at[node])

    def _add_constant(self, operation: Operation, position: int, argument: Value, target: int, mark: str) -> None:
        name = operation.operand_names[position] if position < len(operation.operand_names) else ""
        source = self._diagram.add_node("variable", name or "constant", 0)
        self._diagram.add_flow(source, target, _number(argument, self._shapes), "", 0, 0, mark)

    def _add_source(self, operand: Node, numbers: dict[Node, int]) -> int:
        """Return the start of an operand's arrows: its operation, its name, or a dot where its value branches."""
        diagram, step = self._diagram, self._computed_at.get(operand, 0)
        source = numbers[operand] if operand in numbers else diagram.add_node("variable", operand.name or "·", 0)
        if len(self._uses[operand]) < 2:
            return source
        dot = diagram.add_node("branch", "", step)
        last = max(self._passed_at[user] for user in self._uses[operand])
        diagram.add_flow(source, dot, self._value(operand), self._total(operand), step, last)
        return dot

    def _value(self, node: Node) -> str:
        text = _number(node.held, self._shapes)
        if node in self._names and node.operation is not None:
            return f"{self._names[node]} {text}" if text.startswith("(") else f"{self._names[node]} = {text}"
        return text

    def _gradient(self, operand: Node, user: Node, position: int) -> str:
        """Return the text below an arrow from `operand` to the operation that computes `user`."""
        if (user, position) not in self._passed:
            return ""
        if isinstance(self._mode, Mapping):
            return cast(str, self._mode.get((operand, user), self._mode.get(operand, "")))
        formula = self._formula(operand)
        if len(self._uses[operand]) > 1:
            formula = f"{self._formula(user)}·∂{self._name(user)}/∂{self._name(operand)}"
        return self._number_or(formula, self._passed[user, position])

    def _total(self, node: Node) -> str:
        """Return the text for the whole gradient of a node."""
        if node not in self._totals:
            return ""
        if isinstance(self._mode, Mapping):
            return cast(str, self._mode.get(node, ""))
        return self._number_or(self._formula(node), self._totals[node])

    def _number_or(self, formula: str, gradient: Value) -> str:
        if self._mode == "numbers":
            return _number(gradient, self._shapes)
        return f"{formula} {_number(gradient, True)}" if self._shapes else formula

    def _formula(self, node: Node) -> str:
        return f"∂{self._name(self._y)}/∂{self._name(node)}"

    def _name(self, node: Node) -> str:
        return self._names.get(node, "x")


def _label(node: Node) -> str:
    """Return the text in a node: the operation, with a number that is one of its operands."""
    operation = cast(Operation, node.operation)
    text = operation.symbol
    numbers = {
        position: _number(argument)
        for position, (operand, argument) in enumerate(node.pairs)
        if operand is None and isinstance(argument, float | np.floating)
    }
    if not numbers:
        return text
    if len(text) > 2:
        return f"{text}({', '.join(numbers.get(position, '·') for position in range(len(node.operands)))})"
    if 0 in numbers:
        return f"{numbers[0]}{text}"
    return f"{text}({numbers[1]})" if numbers[1].startswith("−") else f"{text}{numbers[1]}"


def _number(value: Value, shapes: bool = False) -> str:
    """Return a number with up to five digits, the numbers of a short array, or the shape of a longer array."""
    if shapes or np.ndim(value) > 1 or np.size(value) > 4:
        return str(np.shape(value))
    if isinstance(value, np.ndarray):
        return f"[{', '.join(_number(element) for element in value)}]"
    text = f"{float(value):.5g}".replace("-", "−")
    return "0" if text == "−0" else text
