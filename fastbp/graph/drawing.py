"""Drawing a graph as the book does: operations in circles, values along the arrows, gradients under them.

`draw` gathers the nodes, arrows and texts; `fastbp.graph.layout` says where they go, `fastbp.graph.pictures` writes
the file.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from fastbp.graph import composites, operations
from fastbp.graph.elementwise import Value
from fastbp.graph.layout import Edge, Item, place
from fastbp.graph.nodes import Variable, behind, chain_rule
from fastbp.graph.operations import Operation
from fastbp.graph.pictures import BACKWARD, FONT_SIZE, FORWARD, Arrow, Box, Circle, Picture, Shape, Text, text_width

# Of a dict, a key (x, y) is the arrow from x to the operation that computes y.
Gradients = str | Mapping[Any, str] | None

RADIUS = 20.0
DOT = 3.0
LABEL_HEIGHT = 2 * FONT_SIZE + 14
MARGIN = 14.0

# Beyond this an SVG in a notebook is no longer a picture that one can read.
_NOTEBOOK_LIMIT = 200
# And beyond this nobody can read anything, and the layout would take minutes.
_DRAWING_LIMIT = 2000


def draw(
    y: Variable,
    path: str | Path | None = None,
    *,
    gradients: Gradients = "numbers",
    shapes: bool = False,
    step: int | None = None,
) -> Drawing:
    """Draw the graph behind `y`: values flow left to right above the arrows, gradients back below them.

    Parameters
    ----------
    y : Variable
        A computed variable. Its `grad`, if `backward` was called on it, is what flows back, else 1.
    path : str or Path, optional
        File to save: `.svg`, `.png` (needs matplotlib), `.html` (a page with a slider through the steps), `.dot`
        (Graphviz) or `.mmd` (Mermaid).
    gradients : {"numbers", "formulas"}, None, or dict of Variable to str
        What is below the arrows: numbers; formulas such as ∂L/∂x, where values that have no name are called h1,
        h2, ...; nothing; or the texts in a dict, by variable, or by (variable, computed variable) for one arrow of
        a variable that is used several times.
    shapes : bool
        Show the shapes of arrays in the place of their values.
    step : int, optional
        Draw only what has happened by then: first the operations one by one, then the gradient of the result, then
        the operations backwards; `Drawing.steps` is the last step.

    Returns
    -------
    Drawing
        Displays itself in a notebook; `.svg`, `.html`, `.dot` and `.mermaid` are texts.

    Raises
    ------
    RuntimeError
        If `y` was not computed from others, or its graph was cleared.
    ValueError
        For an unknown file type, option or step.

    Examples
    --------
    >>> draw(price * number * tax, "apples.svg")
    """
    if not isinstance(y, Variable):
        raise TypeError(f"y: expected a Variable, got {type(y).__name__}; draw the result of a computation")
    if not (gradients is None or gradients in ("numbers", "formulas") or isinstance(gradients, Mapping)):
        raise ValueError(
            f'gradients: expected "numbers", "formulas", None or a dict of texts, got {gradients!r}; choose one'
        )
    size = len(behind(y)[0])
    if size > _DRAWING_LIMIT:
        raise ValueError(
            f"y: expected a graph of at most {_DRAWING_LIMIT:,} operations, got {size:,}; draw a part of it, or the "
            f"same formula on arrays"
        )
    drawing = Drawing(_Gathering(y, gradients, shapes).diagram(), step)
    if path is not None:
        drawing.save(path)
    return drawing


def notebook_svg(y: Variable) -> str | None:
    """What a notebook shows for a variable: its graph, if there is one of a readable size."""
    try:
        size = len(behind(y)[0])
    except RuntimeError:
        return None
    return draw(y).svg if size <= _NOTEBOOK_LIMIT else None


@dataclass
class Node:
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

    nodes: list[Node] = field(default_factory=list)
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
        self.nodes.append(Node(kind, text, step, item, opens))
        return len(self.nodes) - 1

    def add_flow(
        self, source: int, target: int, forward: str, backward: str, forward_step: int, backward_step: int
    ) -> None:
        """Add an arrow."""
        width = max(text_width(forward), text_width(backward), 16.0) + 6
        self.flows.append(
            Flow(Edge(source, target, width, LABEL_HEIGHT), forward, backward, forward_step, backward_step)
        )


class _Gathering:
    """The nodes and arrows of a graph, and the texts on them."""

    def __init__(self, y: Variable, gradients: Gradients, shapes: bool) -> None:
        self._y, self._mode, self._shapes = y, gradients, shapes
        order, reached = behind(y)
        self._forward = order[::-1]
        self._passed: dict[tuple[Variable, int], Value] = {}
        self._totals: dict[Variable, Value] = {}
        if gradients is not None:
            self._totals = chain_rule(y, order, 1 if y.grad is None else y.grad, self._passed)
        count = len(order)
        self._made_at = {variable: step for step, variable in enumerate(self._forward, start=1)}
        self._passed_at = {variable: count + 2 + i for i, variable in enumerate(order)}
        self._uses: dict[Variable, list[Variable]] = {variable: [] for variable in reached}
        for variable in self._forward:
            for operand in variable._operands:
                if operand is not None:
                    self._uses[operand].append(variable)
        self._names = self._all_names()
        self._diagram = Diagram(steps=2 * count + 1 if gradients is not None else count)

    def _all_names(self) -> dict[Variable, str]:
        names = {variable: variable.name for variable in self._uses if variable.name}
        if self._mode == "formulas":
            names.setdefault(self._y, "L")
            unnamed = [variable for variable in self._forward if variable not in names]
            names |= {variable: f"h{number}" for number, variable in enumerate(unnamed, start=1)}
        return names

    def diagram(self) -> Diagram:
        """The whole drawing."""
        sources: dict[Variable, int] = {}
        diagram = self._diagram
        nodes = {
            variable: diagram.add_node("operation", _label(variable), step, composites.is_composite(variable))
            for variable, step in self._made_at.items()
        }
        for variable in self._forward:
            operation = cast(Operation, variable._operation)
            for position, (operand, argument) in enumerate(zip(variable._operands, variable._arguments, strict=True)):
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

    def _add_source(self, operand: Variable, nodes: dict[Variable, int]) -> int:
        """The node that an operand's arrows start from: its operation, its name, or a dot where it branches."""
        diagram = self._diagram
        source = nodes[operand] if operand in nodes else diagram.add_node("variable", operand.name or "·", 0)
        if len(self._uses[operand]) < 2:
            return source
        dot = diagram.add_node("branch", "", self._made_at.get(operand, 0))
        last = max(self._passed_at[user] for user in self._uses[operand])
        diagram.add_flow(source, dot, self._value(operand), self._total(operand), self._made_at.get(operand, 0), last)
        return dot

    def _value(self, variable: Variable) -> str:
        text = _number(variable._value, self._shapes)
        if variable in self._names and variable._operation is not None:
            return f"{self._names[variable]} {text}" if text.startswith("(") else f"{self._names[variable]} = {text}"
        return text

    def _gradient(self, operand: Variable, user: Variable, position: int, one_of_several: bool) -> str:
        """What is below an arrow from `operand` to the operation that made `user`."""
        if (user, position) not in self._passed:
            return ""
        if isinstance(self._mode, Mapping):
            return self._mode.get((operand, user), self._mode.get(operand, ""))
        passed = self._passed[user, position]
        if self._mode == "numbers":
            return _number(passed, self._shapes)
        formula = self._formula(operand)
        if one_of_several:
            formula = f"{self._formula(user)}·∂{self._names[user]}/∂{self._name(operand)}"
        return f"{formula} {_number(passed, True)}" if self._shapes else formula

    def _total(self, variable: Variable) -> str:
        if variable not in self._totals:
            return ""
        if isinstance(self._mode, Mapping):
            return self._mode.get(variable, "")
        total = self._totals[variable]
        if self._mode == "numbers":
            return _number(total, self._shapes)
        formula = self._formula(variable)
        return f"{formula} {_number(total, True)}" if self._shapes else formula

    def _formula(self, variable: Variable) -> str:
        return f"∂{self._names[self._y]}/∂{self._name(variable)}"

    def _name(self, variable: Variable) -> str:
        return self._names.get(variable, "x")


class Drawing:
    """A drawn graph.

    Attributes
    ----------
    steps : int
        The last step: one for each operation forward, one for the gradient of the result, one for each operation
        backward.
    picture : Picture
        The shapes and where they are.
    """

    def __init__(self, diagram: Diagram, step: int | None = None) -> None:
        self.steps = diagram.steps
        self._diagram = diagram
        self._step = None if step is None else _checked_step(step, self.steps)
        self.picture = _picture(diagram)

    @property
    def svg(self) -> str:
        """The drawing as SVG."""
        return self.picture.svg(self._step)

    @property
    def html(self) -> str:
        """A page with the drawing and a slider through its steps."""
        start = self.steps if self._step is None else self._step
        return _PAGE % {"svg": self.picture.svg(), "steps": self.steps, "start": start, "backward": BACKWARD}

    @property
    def dot(self) -> str:
        """The graph in Graphviz's language."""
        shapes = {"operation": "circle", "variable": "plaintext", "branch": "point", "end": "none"}
        lines = ["digraph {", "  rankdir=LR"]
        for number, node in enumerate(self._diagram.nodes):
            lines.append(f"  n{number} [shape={shapes[node.kind]}, label={json.dumps(node.text, ensure_ascii=False)}]")
        for flow in self._diagram.flows:
            label = json.dumps("\n".join(self._texts(flow)), ensure_ascii=False)
            lines.append(f"  n{flow.edge.source} -> n{flow.edge.target} [label={label}]")
        return "\n".join([*lines, "}\n"])

    @property
    def mermaid(self) -> str:
        """The graph in Mermaid's language."""
        frames = {"operation": '(("%s"))', "variable": '["%s"]', "branch": '((" "))', "end": '[" "]'}
        lines = ["flowchart LR"]
        for number, node in enumerate(self._diagram.nodes):
            frame = frames[node.kind]
            lines.append(f"  n{number}{frame % _in_mermaid(node.text) if '%s' in frame else frame}")
        for flow in self._diagram.flows:
            label = "<br/>".join(_in_mermaid(text) for text in self._texts(flow))
            arrow = f'-->|"{label}"|' if label else "-->"
            lines.append(f"  n{flow.edge.source} {arrow} n{flow.edge.target}")
        return "\n".join([*lines, ""])

    def save(self, path: str | Path) -> None:
        """Save the drawing in the format that the file's ending names.

        Raises
        ------
        ValueError
            For another ending than .svg, .png, .html, .dot and .mmd.
        ImportError
            For .png without matplotlib.
        """
        path = Path(path)
        texts = {".svg": "svg", ".html": "html", ".dot": "dot", ".mmd": "mermaid"}
        suffix = path.suffix.lower()
        if suffix == ".png":
            self.picture.png(path, self._step)
        elif suffix in texts:
            path.write_text(getattr(self, texts[suffix]), encoding="utf-8")
        else:
            raise ValueError(
                f"path: expected a file ending in .svg, .png, .html, .dot or .mmd, got {path}; name a .svg"
            )

    def _texts(self, flow: Flow) -> list[str]:
        step = self.steps if self._step is None else self._step
        texts = [(flow.forward, flow.forward_step), (flow.backward, flow.backward_step)]
        return [text for text, since in texts if text and since <= step]

    def _repr_svg_(self) -> str:
        return self.svg


def _picture(diagram: Diagram) -> Picture:
    width, height = place([node.item for node in diagram.nodes], [flow.edge for flow in diagram.flows])
    items = [node.item for node in diagram.nodes] + [item for flow in diagram.flows for item in flow.edge.items]
    for item in items:
        item.x += MARGIN
        item.y += MARGIN
    shapes: list[Shape] = []
    arriving: dict[int, list[Flow]] = {}
    for flow in diagram.flows:
        arriving.setdefault(flow.edge.target, []).append(flow)
    for target, flows in arriving.items():
        flows.sort(key=lambda flow: flow.edge.items[-1].y)
        for rank, flow in enumerate(flows):
            shapes += _flow_shapes(diagram, flow, _port(diagram.nodes[target], rank, len(flows)))
    for node in diagram.nodes:
        shapes += _node_shapes(node)
    return Picture(width + 2 * MARGIN, height + 2 * MARGIN, shapes)


def _port(node: Node, rank: int, count: int) -> tuple[float, float]:
    """Where the arrow number `rank` of `count` from above enters a node."""
    item = node.item
    offset = (rank - (count - 1) / 2) * min(12.0, item.height / count)
    if node.kind != "operation":
        return item.x - item.width / 2, item.y
    if item.width > 2 * RADIUS:
        return item.x - item.width / 2, item.y + offset
    offset = max(-0.9 * RADIUS, min(0.9 * RADIUS, offset))
    return item.x - math.sqrt(RADIUS**2 - offset**2), item.y + offset


def _flow_shapes(diagram: Diagram, flow: Flow, port: tuple[float, float]) -> list[Shape]:
    source, target = diagram.nodes[flow.edge.source], diagram.nodes[flow.edge.target]
    label = flow.edge.items[0]
    points = [(source.item.x + source.item.width / 2, source.item.y)]
    for item in flow.edge.items:
        points += [(item.x - item.width / 2, item.y), (item.x + item.width / 2, item.y)]
    shapes: list[Shape] = [
        Arrow((*points, port), FORWARD, flow.forward_step, head=target.kind != "branch"),
        Text((label.x, label.y - 0.65 * FONT_SIZE), flow.forward, FORWARD, flow.forward_step),
    ]
    if flow.backward:
        half = label.width / 2 - 2
        back = (label.x + half, label.y + 5), (label.x - half, label.y + 5)
        shapes += [
            Arrow(back, BACKWARD, flow.backward_step),
            Text((label.x, label.y + 5 + 0.75 * FONT_SIZE), flow.backward, BACKWARD, flow.backward_step),
        ]
    return shapes


def _node_shapes(node: Node) -> list[Shape]:
    center = node.item.x, node.item.y
    if node.kind == "branch":
        return [Circle(center, DOT, node.step, filled=True)]
    if node.kind == "variable":
        return [Text(center, node.text, FORWARD, node.step)]
    if node.kind == "end":
        return []
    if node.item.width > 2 * RADIUS:
        frame: Shape = Box(center, node.item.width, node.item.height, node.step, node.opens)
    else:
        frame = Circle(center, RADIUS, node.step)
    # What a node will do is known before it does it.
    return [frame, Text(center, node.text)]


def _label(variable: Variable) -> str:
    """What stands in a node: the operation, with a number that is one of its operands."""
    operation = cast(Operation, variable._operation)
    text = operation.symbol
    if isinstance(operation, operations.Index):
        return f"[{_key(operation.key)}]"
    for position, (operand, argument) in enumerate(zip(variable._operands, variable._arguments, strict=True)):
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


def _checked_step(step: int, steps: int) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(f"step: expected a whole number, got {type(step).__name__}; count steps from 0") from None
    if not 0 <= number <= steps:
        raise ValueError(f"step: expected 0 to {steps}, got {step}; this graph has {steps} steps")
    return number


def _in_mermaid(text: str) -> str:
    return text.replace('"', "#quot;")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Computational graph</title>
<style>
body { font-family: sans-serif; margin: 2em; }
input { width: 30em; max-width: 60%%; vertical-align: middle; }
div { overflow-x: auto; }
</style>
<p><label>step <input id="step" type="range" min="0" max="%(steps)d" value="%(start)d"></label>
<output id="number"></output></p>
<div>%(svg)s</div>
<script>
const slider = document.getElementById("step");
const shapes = document.querySelectorAll("svg [data-step]");
function show() {
  const step = Number(slider.value);
  document.getElementById("number").textContent = step + " of " + slider.max;
  for (const shape of shapes) {
    const pale = shape.tagName === "text" || shape.getAttribute("stroke") === "%(backward)s" ||
      shape.getAttribute("fill") === "%(backward)s" ? 0 : 0.2;
    shape.style.opacity = Number(shape.dataset.step) <= step ? 1 : pale;
  }
}
slider.addEventListener("input", show);
show();
</script>
</html>
"""
