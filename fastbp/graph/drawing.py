"""Drawing a graph as the book does: operations in circles, values above the arrows, gradients below them.

`draw` gathers the nodes, arrows and texts; `fastbp.graph.layout` says where they go, `fastbp.graph.pictures` writes
the file.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from pathlib import Path

from fastbp.graph.diagrams import DOT, RADIUS, Diagram, DrawnNode, Flow, Gradients, diagram_of
from fastbp.graph.layout import place
from fastbp.graph.nodes import Variable
from fastbp.graph.pictures import BACKWARD, FONT_SIZE, FORWARD, Arrow, Box, Circle, Picture, Shape, Text
from fastbp.graph.structure import behind

MARGIN = 14.0

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
        variable that is used several times.
    shapes : bool
        Show the shapes of arrays instead of their values.
    step : int, optional
        Draw the graph as it is after this step. The steps are the operations one by one, the gradient of the result,
        and the operations backward. `Drawing.steps` is the last step.

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
    size = len(behind(y)[0])
    if size > _DRAWING_LIMIT:
        raise ValueError(
            f"y: expected a graph of at most {_DRAWING_LIMIT:,} operations, got {size:,}; draw a part of it, or the "
            f"same formula on arrays"
        )
    drawing = Drawing(diagram_of(y, gradients, shapes), step)
    if path is not None:
        drawing.save(path)
    return drawing


def notebook_svg(y: Variable) -> str | None:
    """Return the picture of a variable's graph for a notebook, None without a graph or for a large one."""
    try:
        size = len(behind(y)[0])
    except RuntimeError:
        return None
    return draw(y).svg if size <= _NOTEBOOK_LIMIT else None


class Drawing:
    """A drawn graph.

    Attributes
    ----------
    steps : int
        The last step. Each operation forward, the gradient of the result, and each operation backward is a step.
    picture : Picture
        The shapes and their places.
    """

    def __init__(self, diagram: Diagram, step: int | None = None) -> None:
        self.steps = diagram.steps
        self._diagram = diagram
        self._step = self.steps if step is None else _checked_step(step, self.steps)
        self.picture = _picture(diagram)

    @property
    def svg(self) -> str:
        """The drawing as SVG."""
        return self.picture.svg(self._step)

    @property
    def html(self) -> str:
        """A page with the drawing and a slider through its steps."""
        return _PAGE % {"svg": self.picture.svg(), "steps": self.steps, "start": self._step, "backward": BACKWARD}

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
        """Save the drawing in the format of the file's ending.

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
        texts = [(flow.forward, flow.forward_step), (flow.backward, flow.backward_step)]
        return [text for text, since in texts if text and since <= self._step]

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


def _port(node: DrawnNode, rank: int, count: int) -> tuple[float, float]:
    """Return the point where an arrow enters a node: number `rank` from above of `count` arrows."""
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
