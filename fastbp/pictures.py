"""A picture of circles, boxes, texts and arrows, and its formats: SVG by own code, PNG by matplotlib.

Every shape has a step. A picture at a step shows the shapes up to this step.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fastbp.extras import require

FONT_SIZE = 14.0
FORWARD, BACKWARD, PALE, FILL = "#1f2328", "#c2410c", "#d0d7de", "#f6f8fa"
Point = tuple[float, float]

# Widths in DejaVu Sans as parts of the font size. Any other character is about as wide as a letter.
_WIDTHS = {
    **dict.fromkeys("0123456789", 0.64),
    **dict.fromkeys(".,:;| '", 0.32),
    **dict.fromkeys("()[]-ftr", 0.41),
    **dict.fromkeys("ijl/", 0.34),
    **dict.fromkeys("+−=×<>mMwW", 0.86),
}


@dataclass(frozen=True)
class Circle:
    """A node."""

    center: Point
    radius: float
    step: int = 0
    filled: bool = False


@dataclass(frozen=True)
class Box:
    """A node with a long text; a double frame means that the node can be opened."""

    center: Point
    width: float
    height: float
    step: int = 0
    double: bool = False


@dataclass(frozen=True)
class Text:
    """A line of text, given by its center."""

    center: Point
    text: str
    color: str = FORWARD
    step: int = 0
    size: float = FONT_SIZE


@dataclass(frozen=True)
class Arrow:
    """A curve through points, horizontal at each, with a head at its end."""

    points: tuple[Point, ...]
    color: str = FORWARD
    step: int = 0
    head: bool = True


Shape = Circle | Box | Text | Arrow


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Return the approximate width of a text."""
    return size * sum(map(_width, text))


def _width(character: str) -> float:
    if character in _WIDTHS:
        return _WIDTHS[character]
    if unicodedata.combining(character):
        return 0.0
    # Chinese, Japanese and Korean characters are squares.
    return 1.0 if unicodedata.east_asian_width(character) in "WF" else 0.66


@dataclass(frozen=True)
class Picture:
    """Shapes in a rectangle from (0, 0) to (width, height), y downwards."""

    width: float
    height: float
    shapes: Sequence[Shape]
    title: str = ""

    def svg(self, step: float = math.inf) -> str:
        """Return the picture at a step as SVG: texts of later steps are left out, other shapes of later steps pale."""
        width, height = f"{self.width:.0f}", f"{self.height:.0f}"
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, Verdana, sans-serif" '
            f'font-size="{FONT_SIZE:g}" text-anchor="middle">',
            *([f"<title>{escape(self.title)}</title>"] if self.title else []),
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        lines += [_svg_shape(shape, step) for shape in self.shapes if not _is_hidden(shape, step)]
        return "\n".join([*lines, "</svg>\n"])

    def png(self, path: Path, step: float = math.inf) -> None:
        """Save the picture at a step as PNG, which needs matplotlib.

        Warns
        -----
        UserWarning
            Once for characters that no font of this machine has.
        """
        shapes = [shape for shape in self.shapes if not _is_hidden(shape, step)]
        families = _families("".join(shape.text for shape in shapes if isinstance(shape, Text)))
        figure = require("matplotlib.figure").Figure(figsize=(self.width / 100, self.height / 100), dpi=200)
        require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        axes.axis("off")
        for shape in shapes:
            _add_to(axes, shape, step, families)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # `_families` has said it
            figure.savefig(path, format="png")


def _is_hidden(shape: Shape, step: float) -> bool:
    return shape.step > step and (isinstance(shape, Text) or getattr(shape, "color", FORWARD) != FORWARD)


def _color(shape: Shape, color: str, step: float) -> str:
    return PALE if shape.step > step else color


def _svg_shape(shape: Shape, step: float) -> str:
    x, y = shape.points[0] if isinstance(shape, Arrow) else shape.center
    stepped = f'data-step="{shape.step}"'
    if isinstance(shape, Text):
        y += 0.35 * shape.size
        size = "" if shape.size == FONT_SIZE else f'font-size="{shape.size:g}" '
        return f'<text x="{x:.1f}" y="{y:.1f}" {size}fill="{shape.color}" {stepped}>{escape(shape.text)}</text>'
    if isinstance(shape, Circle):
        line = _color(shape, FORWARD, step)
        fill = line if shape.filled else FILL
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shape.radius:.1f}" fill="{fill}" stroke="{line}" {stepped}/>'
    if isinstance(shape, Box):
        return "".join(
            f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="8" '
            f'fill="{FILL}" stroke="{_color(shape, FORWARD, step)}" {stepped}/>'
            for w, h in _frames(shape)
        )
    color = _color(shape, shape.color, step)
    line = f'<path d="{_path(shape.points)}" fill="none" stroke="{color}" {stepped}/>'
    if not shape.head:
        return line
    corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in _head(shape))
    return f'{line}<polygon points="{corners}" fill="{color}" {stepped}/>'


def _frames(box: Box) -> list[tuple[float, float]]:
    outer = (box.width, box.height)
    return [outer, (box.width - 6, box.height - 6)] if box.double else [outer]


def _path(points: Sequence[Point]) -> str:
    parts = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y0 == y1:
            parts.append(f"L{x1:.1f},{y1:.1f}")
        else:
            middle = (x0 + x1) / 2
            parts.append(f"C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}")
    return " ".join(parts)


def _head(arrow: Arrow) -> list[Point]:
    x, y = arrow.points[-1]
    back = -7.0 if x > arrow.points[-2][0] else 7.0
    return [(x, y), (x + back, y - 3.5), (x + back, y + 3.5)]


# Characters that a warning has named already.
_without_font: set[str] = set()

# Parts of the names of fonts with Chinese, Japanese and Korean characters, which are tried before other fonts.
_WIDE_FONTS = ("CJK", "Gothic", "Hei", "Song", "Hiragino", "Mincho", "PingFang", "Meiryo", "IPA", "Malgun")


def _families(characters: str) -> list[str]:
    """Return matplotlib's font families for characters: DejaVu Sans, and those that have what it lacks."""
    manager = require("matplotlib.font_manager")
    families = ["DejaVu Sans"]
    missing = {ord(character) for character in characters if not character.isspace()}
    missing -= manager.get_font(manager.findfont(families[0])).get_charmap().keys()
    if not missing:
        return families
    fonts = sorted(
        # The font of the last resort has a box for every character.
        (font for font in manager.fontManager.ttflist if font.style == "normal" and "Last Resort" not in font.name),
        key=lambda font: (not any(part in font.name for part in _WIDE_FONTS), font.name),
    )
    for font in fonts:
        found = missing & manager.get_font(font.fname).get_charmap().keys() if font.name not in families else set()
        if found:
            families.append(font.name)
            missing -= found
        if not missing:
            return families
    lacking = "".join(sorted(map(chr, missing)))
    if not _without_font.issuperset(lacking):
        _without_font.update(lacking)
        warnings.warn(
            f"picture: expected a font with {lacking!r}, got none on this machine, so boxes stand in their place; "
            f"install one such as Noto Sans CJK, or save the picture as .svg",
            stacklevel=2,
        )
    return families


def _add_to(axes: Any, shape: Shape, step: float, families: list[str]) -> None:
    """Add a shape to matplotlib's axes."""
    patches = require("matplotlib.patches")
    line_width = 0.72
    if isinstance(shape, Text):
        x, y = shape.center
        look = {"color": shape.color, "fontsize": 0.72 * shape.size, "fontfamily": families}
        axes.text(x, y, shape.text, ha="center", va="center_baseline", parse_math=False, **look)
    elif isinstance(shape, Circle):
        line = _color(shape, FORWARD, step)
        fill = line if shape.filled else FILL
        axes.add_patch(patches.Circle(shape.center, shape.radius, facecolor=fill, edgecolor=line, linewidth=line_width))
    elif isinstance(shape, Box):
        line = _color(shape, FORWARD, step)
        for width, height in _frames(shape):
            corner = (shape.center[0] - width / 2, shape.center[1] - height / 2)
            style = "round,pad=0,rounding_size=8"
            axes.add_patch(
                patches.FancyBboxPatch(
                    corner, width, height, boxstyle=style, facecolor=FILL, edgecolor=line, linewidth=line_width
                )
            )
    else:
        color = _color(shape, shape.color, step)
        path = require("matplotlib.path").Path
        corners, codes = [shape.points[0]], [path.MOVETO]
        for (x0, y0), (x1, y1) in itertools.pairwise(shape.points):
            middle = (x0 + x1) / 2
            corners += [(middle, y0), (middle, y1), (x1, y1)]
            codes += [path.CURVE4] * 3
        axes.add_patch(patches.PathPatch(path(corners, codes), facecolor="none", edgecolor=color, linewidth=line_width))
        if shape.head:
            axes.add_patch(patches.Polygon(_head(shape), facecolor=color, edgecolor="none"))
