"""The drawing of the house in architecture.md, which is written in Mermaid's language, without Mermaid's script."""

import re
import textwrap
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

WIDTH, LINE, GAP = 10.0, 0.19, 0.42
FILLS = {"box": "#e8f0fe", "group": "#f6f6f6"}


class Mermaid(Directive):
    """A flow chart from top to bottom: boxes, one group of boxes, and arrows down."""

    has_content = True

    def run(self):
        """Draw the chart into a file beside the page's other drawings."""
        folder = Path(self.state.document.settings.env.srcdir) / "drawings"
        folder.mkdir(exist_ok=True)
        draw(*parsed("\n".join(self.content))).savefig(folder / "house.svg")
        picture = nodes.image(uri="drawings/house.svg", alt="The parts of fastbp; imports go down", width="100%")
        return [picture]


def parsed(text):
    """Return the boxes (key: title and text), the keys in the group, its name and title, and the arrows."""
    boxes = {}
    for key, content in re.findall(r'(\w+)\["(.*)"\]', text):
        title = "".join(re.findall(r"<b>(.*?)</b>", content))
        rest = re.sub(r"<b>.*?</b>", "", content).replace("<br/>", "\n").strip(", \n")
        boxes[key] = title, rest.replace("\n", " ")
    name, title, inside = re.search(r'subgraph (\w+) \["(.*?)"\]\n(.*?)\n\s*end', text, re.DOTALL).groups()
    grouped = re.findall(r'(\w+)\["', inside)
    return boxes, grouped, (name, title), re.findall(r"(\w+) --> (\w+)", text)


def rows_of(keys, arrows):
    """The keys by the length of the longest way from the top."""
    rank = dict.fromkeys(keys, 0)
    for _ in keys:
        for above, below in arrows:
            rank[below] = max(rank[below], rank[above] + 1)
    return [[key for key in keys if rank[key] == number] for number in range(max(rank.values()) + 1)]


def draw(boxes, grouped, group, arrows):
    """Return the figure."""
    name, title = group
    rows = rows_of([key for key in boxes if key not in grouped] + [name], arrows)
    half = -(-len(grouped) // 2)
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    places, top = {}, 0.0
    for row in rows:
        if name in row:
            parts = grouped[:half], grouped[half:]
            heights = [max(_height(boxes[key], WIDTH / half - 0.3) for key in part) for part in parts]
            places[name] = (0.1, top - sum(heights) - 0.75, WIDTH - 0.2, sum(heights) + 0.75)
            _box(axes, places[name], FILLS["group"])
            axes.text(WIDTH / 2, top - 0.18, title, ha="center", va="center", fontsize=9, style="italic")
            below = top - 0.35
            for part, height in zip(parts, heights, strict=True):
                _row(axes, boxes, part, below, height, places, margin=0.25)
                below -= height + 0.15
            top = places[name][1] - GAP
        else:
            height = max(_height(boxes[key], WIDTH / len(row) - 0.3) for key in row)
            _row(axes, boxes, row, top, height, places, margin=0.1)
            top -= height + GAP
    for above, below in arrows:
        _arrow(axes, places[above], places[below])
    axes.set(xlim=(0, WIDTH), ylim=(top + GAP - 0.1, 0.1))
    axes.axis("off")
    figure.set_size_inches(WIDTH, 0.2 - top - GAP)
    return figure


def _lines(box, width):
    title, text = box
    return textwrap.wrap(title, int(width * 11)), textwrap.wrap(text, int(width * 13))


def _height(box, width):
    return LINE * sum(map(len, _lines(box, width))) + 0.2


def _row(axes, boxes, keys, top, height, places, margin):
    width = (WIDTH - 2 * margin + 0.2) / len(keys)
    for number, key in enumerate(keys):
        place = places[key] = (margin + number * width, top - height, width - 0.2, height)
        _box(axes, place, FILLS["box"])
        bold, plain = _lines(boxes[key], WIDTH / len(keys) - 0.3)
        y = top - (height - LINE * (len(bold) + len(plain))) / 2 - LINE / 2
        for text, weight in [(line, "bold") for line in bold] + [(line, "normal") for line in plain]:
            axes.text(place[0] + place[2] / 2, y, text, ha="center", va="center", fontsize=8.5, weight=weight)
            y -= LINE


def _box(axes, place, fill):
    x, y, width, height = place
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=fill, edgecolor="#5f6b7a"))


def _arrow(axes, above, below):
    """An arrow from the lower edge of one box to the upper edge of another, as straight as both allow."""
    left, right = max(above[0], below[0]), min(above[0] + above[2], below[0] + below[2])
    if left < right:
        x = ends = (left + right) / 2
    else:
        x, ends = above[0] + above[2] / 2, below[0] + below[2] / 2
    arrow = {"arrowstyle": "-|>", "color": "#5f6b7a", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (ends, below[1] + below[3]), (x, above[1]), arrowprops=arrow)


def setup(app):
    """Give Sphinx the directive."""
    app.add_directive("mermaid", Mermaid)
