"""The drawings of the pages: a graph for the first one, and those of "How it works"."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from fastbp import graph
from fastbp.runtime.groups import GROUPS

INK, PALE = "#1f2933", "#d9dee4"
BLUE, ORANGE, GREEN, RED = "#2f6fb0", "#e08a1e", "#3c9357", "#b5403a"
AVX512_TILE = 8, 3  # rows of A, registers of B: as on a CPU with 32 registers of 64 bytes


def save_all(folder: Path) -> None:
    """Save every drawing as SVG."""
    folder.mkdir(exist_ok=True)
    graph.figures.figure("apples-gradients").draw(folder / "apples.svg")
    for draw in (tile, lanes, offsets, regions, bits, cache):
        draw().savefig(folder / f"{draw.__name__}.svg")


def _canvas(width, height, xlim, ylim):
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=xlim, ylim=ylim)
    axes.axis("off")
    return figure, axes


def _cells(axes, x, y, rows, columns, size, color=None, edge="#9aa5b1"):
    """A grid of squares; `color` is one, or a function of row and column."""
    for i in range(rows):
        for j in range(columns):
            fill = color(i, j) if callable(color) else color or "white"
            axes.add_patch(
                Rectangle((x + j * size, y - (i + 1) * size), size, size, facecolor=fill, edgecolor=edge, lw=0.6)
            )


def _box(axes, x, y, width, height, text, fill, size=9):
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=fill, edgecolor=INK, lw=0.8))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=INK)


def _arrow(axes, start, end, color=INK):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0})


def _text(axes, x, y, text, size=9, **options):
    axes.text(x, y, text, fontsize=size, color=INK, **{"ha": "center", "va": "center"} | options)


def tile():
    """A tile of C, what it reads of A and B, and the registers that it takes."""
    rows, registers = AVX512_TILE
    figure, axes = _canvas(9.5, 4.6, (0, 19), (-1.2, 8))
    size = 0.4
    _cells(axes, 0.6, 4.5, 8, 6, size, lambda i, j: BLUE if 2 <= i < 6 else "white")
    _cells(axes, 3.4, 7.3, 6, 12, size, lambda i, j: ORANGE if 4 <= j < 8 else "white")
    _cells(axes, 3.4, 4.5, 8, 12, size, lambda i, j: GREEN if 2 <= i < 6 and 4 <= j < 8 else "white")
    for x, y, name in ((1.8, 0.8, "A"), (5.8, 7.65, "B"), (5.8, 0.8, "C")):
        _text(axes, x, y, name, 13)
    _text(axes, 4.4, -0.1, "k runs along A and down B; the tile of C stays where it is", 9)
    for start, end, place in (((0.7, 4.75), (2.9, 4.75), (0.5, 4.75)), ((3.15, 7.2), (3.15, 5.0), (3.15, 7.45))):
        _arrow(axes, start, end)
        _text(axes, *place, "k", 10, style="italic")

    left, width, height = 9.2, 2.2, 0.55
    _text(axes, left + 4.4, 7.7, "32 vector registers, 64 bytes each", 10)
    names = [(f"C {i},{j}", GREEN) for i in range(rows) for j in range(registers)]
    names += [(f"B k,{j}", ORANGE) for j in range(registers)] + [("A i,k", BLUE)]
    names += [("", PALE)] * (32 - len(names))
    for number, (name, color) in enumerate(names):
        x, y = left + (number % 4) * width, 6.7 - number // 4 * (height + 0.2)
        axes.add_patch(Rectangle((x, y), width - 0.15, height, facecolor=color, edgecolor=INK, lw=0.6, alpha=0.75))
        _text(axes, x + width / 2 - 0.07, y + height / 2, name, 8)
    count = rows * registers
    _text(
        axes, left + 4.4, 0.55, f"a turn of k: {registers} loads of B, {rows} broadcasts of A, {count} multiply-adds", 9
    )
    _text(axes, left + 4.4, -0.1, f"{count} chains that do not wait for each other; 8 fill the two units", 9)
    return figure


def lanes():
    """A layer of 10 outputs with the samples in rows, and along the lanes of a vector."""
    figure, axes = _canvas(9.5, 3.6, (0, 19), (0, 7.2))
    size = 0.5
    _text(axes, 4.4, 6.8, "samples in rows: a vector holds 10 outputs of a sample", 10)
    _cells(axes, 0.4, 6.2, 6, 16, size, lambda i, j: BLUE if j < 10 else PALE)
    for i in range(6):
        _text(axes, 0.15, 6.2 - (i + 0.5) * size, f"{i}", 8)
    _text(axes, 4.4, 2.7, "6 of 16 lanes compute nothing", 9)
    _text(axes, 14.4, 6.8, "samples along the lanes: one output of 16 samples", 10)
    _cells(axes, 10.4, 6.2, 10, 16, size, lambda i, j: GREEN)
    for i in range(10):
        _text(axes, 10.1, 6.2 - (i + 0.5) * size, f"{i}", 8)
    _text(axes, 4.4, 2.0, "(N, C): row = sample, column = output", 8, style="italic")
    _text(axes, 14.4, 0.8, "every lane full, for any number of outputs", 9)
    _text(axes, 14.4, 0.25, "(C, S): row = output, column = sample", 8, style="italic")
    return figure


def offsets():
    """A convolution on lines of pixels with the samples side by side: the place of a filter is an offset."""
    figure, axes = _canvas(9.5, 3.4, (0, 19), (0, 6.8))
    size, samples = 0.28, 4
    colors = ("#c9ddf0", "#8fb8de", "#5b93c9", "#2f6fb0")
    _text(axes, 9.5, 6.5, "one line of the image: pixels one after the other, each with 4 samples side by side", 10)

    def pixel(i, j):
        return colors[j % samples]

    _cells(axes, 2, 5.9, 1, 12 * samples, size, pixel)
    for p in range(12):
        x = 2 + p * samples * size
        axes.plot([x, x], [5.55, 6.0], color=INK, lw=1)
        _text(axes, x + samples * size / 2, 5.35, f"{p}", 8)
    run = 10 * samples
    for place in range(3):
        x, y = 2 + place * samples * size, 4.6 - place * 0.75
        _cells(axes, x, y, 1, run, size, pixel)
        _text(axes, 1.0, y - 0.15, f"w[{place}] ·", 10)
        _text(axes, 17.2, y - 0.15, f"offset {place}·4", 9)
    axes.plot([1.6, 16.4], [2.2, 2.2], color=INK, lw=1)
    _cells(axes, 2, 1.9, 1, run, size, GREEN)
    _text(axes, 1.0, 1.75, "out", 10)
    _text(axes, 9.5, 0.75, "the line of outputs is one run: vectors of it do not know where a pixel ends,", 9)
    _text(axes, 9.5, 0.25, "so they are full for any number of samples, and no matrix of windows is built", 9)
    return figure


def regions():
    """A step of training on two threads."""
    figure, axes = _canvas(9.5, 3.4, (0, 19), (0, 6.6))
    parts = (
        (1.8, 2.3, "gather\nrows of x", "#e8f0fe"),
        (4.1, 3.2, "forward\nlayer by layer", "#cfe0f4"),
        (7.3, 1.3, "loss", "#f7e3c4"),
        (8.6, 2.5, "backward\nto the deltas", "#f3c9a5"),
    )
    for thread, y in enumerate((3.6, 1.6)):
        _text(axes, 0.8, y + 0.7, f"thread {thread}", 10)
        for x, width, text, fill in parts:
            _box(axes, x, y, width - 0.06, 1.4, text, fill)
        _box(axes, 11.9, y, 3.4, 1.4, "gradient of its\nrows of every W", "#d5ecd9")
        _box(axes, 15.35, y, 2.4, 1.4, "update of\nthe same rows", "#b8dfc0")
    for x in (11.45, 18.1):
        axes.plot([x, x], [1.3, 5.3], color=RED, lw=2)
    _text(axes, 6.4, 5.7, "first region: a share of the batch", 10)
    _text(axes, 14.8, 5.7, "second region: a share of the weights", 10)
    _text(axes, 11.45, 0.9, "all wait", 9)
    _text(axes, 18.1, 0.9, "next step", 9)
    _text(axes, 6.4, 0.9, "no thread writes what another one reads", 9)
    return figure


def bits():
    """Threads divide the elements of a result; an element is one chain."""
    figure, axes = _canvas(9.5, 4.4, (0, 19), (0, 8.4))
    size = 0.42
    _text(axes, 2.9, 8.0, "on one thread", 10)
    _text(axes, 8.2, 8.0, "on two", 10)
    _text(axes, 13.6, 8.0, "on three", 10)
    fills = (BLUE, ORANGE, GREEN)
    for x, threads in ((1.2, 1), (6.5, 2), (11.9, 3)):
        _cells(axes, x, 7.6, 6, 8, size, lambda i, j, threads=threads: fills[i * threads // 6])
        axes.add_patch(Rectangle((x + 5 * size, 7.6 - 3 * size), size, size, fill=False, edgecolor=RED, lw=2.2))
    _text(axes, 17.2, 6.4, "elements of C,\nby the thread\nthat computes them", 9)
    _text(axes, 9.5, 4.6, "the marked element is the same chain everywhere:", 9)
    for k in range(6):
        x = 1.2 + k * 2.8
        text = "b" if k == 0 else f"+ a{k}·w{k}" if k < 5 else "…"
        _box(axes, x, 3.4, 2.1, 0.8, text, "white", 10)
        if k:
            _arrow(axes, (x - 0.7, 3.8), (x, 3.8))
    _text(axes, 9.5, 2.7, f"a sum over the batch: at most {GROUPS} fixed groups of samples, added in their order", 9)
    for group in range(GROUPS):
        x = 1.2 + group * 1.04
        axes.add_patch(Rectangle((x, 1.4), 0.86, 0.7, facecolor=PALE, edgecolor=INK, lw=0.6))
        _text(axes, x + 0.43, 1.75, f"{group}", 8)
        if group:
            _arrow(axes, (x - 0.18, 1.2), (x + 0.2, 1.2))
    _text(axes, 9.5, 0.6, "whoever forms a group, its samples and its place in the sum are the same", 9)
    return figure


def cache():
    """How a kernel is found, or compiled and kept."""
    figure, axes = _canvas(9.5, 3.8, (0, 19), (0, 7.4))
    _box(axes, 0.3, 5.4, 4.2, 1.5, "every source of\nengine, ops, runtime", "#e8f0fe")
    _box(axes, 0.3, 2.9, 4.2, 1.5, "versions of Python,\nNumPy, Numba, llvmlite", "#e8f0fe")
    _box(axes, 6.2, 4.1, 3.0, 1.6, "digest\n= folder", "#f7e3c4")
    _arrow(axes, (4.5, 6.1), (6.2, 5.2))
    _arrow(axes, (4.5, 3.6), (6.2, 4.6))
    _box(axes, 11.0, 4.1, 3.4, 1.6, "a file for each\nkernel and types", "#d5ecd9")
    _arrow(axes, (9.2, 4.9), (11.0, 4.9))
    _box(axes, 15.8, 5.4, 3.0, 1.3, "whole:\nload it", "#b8dfc0")
    _box(axes, 15.8, 3.1, 3.0, 1.3, "missing, damaged:\ncompile", "#f3c9a5")
    _arrow(axes, (14.4, 5.2), (15.8, 6.0))
    _arrow(axes, (14.4, 4.6), (15.8, 3.8))
    _box(axes, 9.4, 0.9, 6.6, 1.2, "write aside, with a checksum; then rename", "#f6f6f6")
    axes.plot([17.3, 17.3], [3.1, 1.5], color=INK, lw=1)
    _arrow(axes, (17.3, 1.5), (16.0, 1.5))
    _arrow(axes, (12.7, 2.1), (12.7, 4.1))
    return figure
