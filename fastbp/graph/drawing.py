"""Drawing a graph as the book does: operations in circles, values above the arrows, gradients below them.

`draw` gathers the nodes, arrows and texts; `fastbp.graph.layout` says where they go, `fastbp.pictures` writes
the file.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from fastbp.files import check_place
from fastbp.graph.diagrams import ARROW_GAP, DOT, RADIUS, Again, Diagram, DrawnNode, Flow, Gradients, diagram_of
from fastbp.graph.layout import place
from fastbp.graph.nodes import Variable
from fastbp.graph.structure import Node, behind
from fastbp.pictures import BACKWARD, FONT_SIZE, FORWARD, Arrow, Box, Circle, Picture, Shape, Text, text_width

MARGIN = 14.0
TITLE_SIZE, TITLE_HEIGHT = 17.0, 34.0
MARK_SIZE, MARK_GAP = 11.0, 18.0

# Nobody can read the picture of a larger graph in a notebook.
_NOTEBOOK_LIMIT = 200
# The layout of a larger graph would take minutes.
_DRAWING_LIMIT = 2000


def draw(
    y: Variable,
    path: str | Path | None = None,
    *,
    gradients: Gradients = "numbers",
    shapes: bool = False,
    step: int | None = None,
    title: str = "",
    again: Again = (),
) -> Drawing:
    """Draw the graph behind `y`: values above the arrows from left to right, gradients below them.

    Parameters
    ----------
    y : Variable
        A computed variable. The gradients start from its `grad`, or from 1 before `backward`.
    path : str or Path, optional
        File to save: `.svg`, `.png` (needs matplotlib), `.html` (a page with a slider through the steps), `.dot`
        (Graphviz) or `.mmd` (Mermaid).
    gradients : {"numbers", "formulas"}, None, or dict of Variable to str
        The texts below the arrows: numbers; formulas such as ∂L/∂x, where values without a name are called h1, h2,
        ...; nothing; or the texts of a dict, by variable, or by (variable, computed variable) for one arrow of a
        variable that is used several times. For a vector that is used once, a list with a text for each element: each
        then has an arrow.
    shapes : bool
        Show the shapes of arrays instead of their values.
    step : int, optional
        Draw the graph as it is after this step. The steps are the operations one by one, the gradient of the result,
        and the operations backward. `Drawing.steps` is the last step.
    title : str
        A line above the drawing.
    again : collection of (Variable, Variable)
        Pairs of a variable with a name and one that is computed from it: no line joins them, but the name stands again
        beside the operation. So lines need not cross.

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
    >>> drawing = draw(price * number * tax, "apples.svg")
    """
    if not isinstance(y, Variable):
        raise TypeError(f"y: expected a Variable, got {type(y).__name__}; draw the result of a computation")
    if not (gradients is None or gradients in ("numbers", "formulas") or isinstance(gradients, Mapping)):
        raise ValueError(
            f'gradients: expected "numbers", "formulas", None or a dict of texts, got {gradients!r}; choose one'
        )
    computed, reached = behind(y)
    if not isinstance(title, str):
        raise TypeError(f"title: expected a text, got {type(title).__name__}; pass title=str(title)")
    for pair in again:
        if not _may_stand_again(pair, reached):
            raise ValueError(
                f"again: expected pairs of a variable with a name and one that is computed from it, both in the graph, "
                f"got {pair!r}; leave it out"
            )
    size = len(computed)
    if size > _DRAWING_LIMIT:
        raise ValueError(
            f"y: expected a graph of at most {_DRAWING_LIMIT:,} operations, got {size:,}; draw a part of it, or the "
            f"same formula on arrays"
        )
    drawing = Drawing(diagram_of(y, gradients, shapes, again), step, title)
    if path is not None:
        drawing.save(path)
    return drawing


def notebook_svg(y: Variable) -> str | None:
    """Return the picture of a variable's graph for a notebook, None without a graph or for a large one.

    It shows no gradients before `backward`.
    """
    try:
        size = len(behind(y)[0])
    except RuntimeError:
        return None
    return draw(y, gradients=None if y.grad is None else "numbers").svg if size <= _NOTEBOOK_LIMIT else None


class Drawing:
    """A drawn graph.

    Attributes
    ----------
    steps : int
        The last step. Each operation forward, the gradient of the result, and each operation backward is a step.
    picture : Picture
        The shapes and their places.
    """

    def __init__(self, diagram: Diagram, step: int | None = None, title: str = "") -> None:
        self.steps = diagram.steps
        self._diagram = diagram
        self._step = self.steps if step is None else _checked_step(step, self.steps)
        self.picture = _picture(diagram, title)

    def __repr__(self) -> str:
        return f"Drawing(title={self.picture.title!r}, steps={self.steps})"

    @property
    def svg(self) -> str:
        """The drawing as SVG."""
        return self.picture.svg(self._step)

    @property
    def html(self) -> str:
        """A page with the drawing and a slider through its steps."""
        title = escape(self.picture.title or "Computational graph")
        return _PAGE % {
            "title": title, "svg": self.picture.svg(), "steps": self.steps, "start": self._step, "backward": BACKWARD,
        }  # fmt: skip

    @property
    def dot(self) -> str:
        """The graph in Graphviz's language."""
        shapes = {"operation": "circle", "variable": "plaintext", "branch": "point", "end": "none"}
        lines = ["digraph {", "  rankdir=LR"]
        if self.picture.title:
            lines.append(f"  label={json.dumps(self.picture.title, ensure_ascii=False)} labelloc=t")
        for number, node in enumerate(self._diagram.nodes):
            lines.append(f"  n{number} [shape={shapes[node.kind]}, label={json.dumps(node.text, ensure_ascii=False)}]")
        for flow in self._diagram.flows:
            label = json.dumps("\n".join(self._texts(flow)), ensure_ascii=False)
            mark = f", headlabel={json.dumps(flow.mark, ensure_ascii=False)}" if flow.mark else ""
            lines.append(f"  n{flow.edge.source} -> n{flow.edge.target} [label={label}{mark}]")
        return "\n".join([*lines, "}\n"])

    @property
    def mermaid(self) -> str:
        """The graph in Mermaid's language."""
        frames = {"operation": '(("%s"))', "variable": '["%s"]', "branch": '((" "))', "end": '[" "]'}
        lines = ["---", f"title: {json.dumps(self.picture.title, ensure_ascii=False)}", "---"] * bool(
            self.picture.title
        )
        lines.append("flowchart LR")
        for number, node in enumerate(self._diagram.nodes):
            frame = frames[node.kind]
            lines.append(f"  n{number}{frame % _in_mermaid(node.text) if '%s' in frame else frame}")
        for flow in self._diagram.flows:
            marked = [flow.mark] if flow.mark else []
            label = "<br/>".join(_in_mermaid(text) for text in [*marked, *self._texts(flow)])
            arrow = f'-->|"{label}"|' if label else "-->"
            lines.append(f"  n{flow.edge.source} {arrow} n{flow.edge.target}")
        return "\n".join([*lines, ""])

    def save(self, path: str | Path) -> None:
        """Save the drawing in the format of the file's ending.

        Raises
        ------
        ValueError
            For another ending than .svg, .png, .html, .dot and .mmd.
        OSError
            If there is no such folder, or nothing can be written there.
        ImportError
            For .png without matplotlib.
        """
        path = Path(path)
        texts = {".svg": "svg", ".html": "html", ".dot": "dot", ".mmd": "mermaid"}
        suffix = path.suffix.lower()
        if suffix == ".png" or suffix in texts:
            check_place("path", path)
        if suffix == ".png":
            self.picture.png(path, self._step)
        elif suffix in texts:
            path.write_text(getattr(self, texts[suffix]), encoding="utf-8")
        else:
            raise ValueError(
                f"path: expected a file ending in .svg, .png, .html, .dot or .mmd, got {path}; name a .svg"
            )

    def _texts(self, flow: Flow) -> list[str]:
        texts = [(flow.forward, flow.forward_step), (flow.backward, flow.backward_step)]
        return [text for text, since in texts if text and since <= self._step]

    def _repr_svg_(self) -> str:
        return self.svg


def _picture(diagram: Diagram, title: str) -> Picture:
    width, height = place([node.item for node in diagram.nodes], [flow.edge for flow in diagram.flows])
    room = TITLE_HEIGHT if title else 0.0
    wide = max(width, text_width(title, TITLE_SIZE))
    items = [node.item for node in diagram.nodes] + [item for flow in diagram.flows for item in flow.edge.items]
    for item in items:
        item.x += MARGIN + (wide - width) / 2
        item.y += MARGIN + room
    shapes: list[Shape] = []
    if title:
        shapes.append(Text((MARGIN + wide / 2, MARGIN + TITLE_SIZE / 2), title, size=TITLE_SIZE))
    arriving: dict[int, list[Flow]] = {}
    leaving: dict[int, list[Flow]] = {}
    for flow in diagram.flows:
        arriving.setdefault(flow.edge.target, []).append(flow)
        leaving.setdefault(flow.edge.source, []).append(flow)
    starts: dict[int, tuple[float, float]] = {}
    for source, flows in leaving.items():
        apart = flows if diagram.nodes[source].kind == "operation" else flows[:1]
        apart.sort(key=lambda flow: flow.edge.items[0].y)
        for flow, offset in zip(apart, _offsets(len(apart), diagram.nodes[source], ARROW_GAP), strict=True):
            starts[id(flow)] = _port(diagram.nodes[source], offset, 1)
        for flow in flows:
            starts.setdefault(id(flow), starts[id(apart[0])])
    marks: list[Shape] = []
    for target, flows in arriving.items():
        node = diagram.nodes[target]
        flows.sort(key=lambda flow: flow.edge.items[-1].y)
        gap = MARK_GAP if flows[0].mark else ARROW_GAP
        for flow, offset in zip(flows, _offsets(len(flows), node, gap), strict=True):
            port = _port(node, offset, -1)
            shapes += _flow_shapes(diagram, flow, starts[id(flow)], port)
            marks += _mark_shapes(flow, port)
    for node in diagram.nodes:
        shapes += _node_shapes(node)
    shapes += marks  # on the circles
    return Picture(wide + 2 * MARGIN, height + room + 2 * MARGIN, shapes, title)


def _offsets(count: int, node: DrawnNode, gap: float) -> list[float]:
    """Return the places of `count` arrows along the side of a node, from its center."""
    if node.kind != "operation":
        return [0.0] * count
    return [(rank - (count - 1) / 2) * min(gap, node.item.height / count) for rank in range(count)]


def _port(node: DrawnNode, offset: float, side: int) -> tuple[float, float]:
    """Return the point where an arrow enters a node (side -1) or leaves it (1)."""
    item = node.item
    if node.kind != "operation" or item.width > 2 * RADIUS:
        return item.x + side * item.width / 2, item.y + offset
    offset = max(-0.9 * RADIUS, min(0.9 * RADIUS, offset))
    return item.x + side * math.sqrt(RADIUS**2 - offset**2), item.y + offset


def _flow_shapes(diagram: Diagram, flow: Flow, start: tuple[float, float], port: tuple[float, float]) -> list[Shape]:
    target = diagram.nodes[flow.edge.target]
    label = flow.edge.items[0]
    points = [start]
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


def _mark_shapes(flow: Flow, port: tuple[float, float]) -> list[Shape]:
    """Return the mark of an operand, inside its operation where the arrow ends."""
    return [Text((port[0] + 6, port[1]), flow.mark, size=MARK_SIZE)] if flow.mark else []


def _node_shapes(node: DrawnNode) -> list[Shape]:
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
    # The text has no step: it is shown from the beginning.
    return [frame, Text(center, node.text)]


def _may_stand_again(pair: Any, reached: set[Node]) -> bool:
    is_pair = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(node, Variable) for node in pair)
    return is_pair and set(pair) <= reached and bool(pair[0].name) and pair[0] in pair[1].operands


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
<title>%(title)s</title>
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
