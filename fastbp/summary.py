"""What a network is, in text: a line for each layer, and a table of shapes, parameters, arithmetic and memory."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbp.checks import Array, whole_number
from fastbp.contents import Stack
from fastbp.engine.table import Mapped, Table, arranged, is_small, mapped
from fastbp.ops.contract import LAYERS, Shape, by, loss_of, shown, takes_indices
from fastbp.ops.state import LANES, ROWS

__all__ = ["Line", "Summary", "described", "sample_shape_of", "shapes", "summary"]

# The longest sequences, and the most pixels across images, that are tried.
_LONGEST = 300
_LAYOUTS = {ROWS: "rows", LANES: "lanes"}
_MEANINGS = {
    "rows": "rows, each sample's numbers side by side",
    "lanes": "lanes, the same number of many samples side by side",
}
_UNITS = "B", "kB", "MB", "GB", "TB"


@dataclass(frozen=True)
class Line:
    """What a summary says of a layer.

    Attributes
    ----------
    name, kind : str
        The layer's name in the network, and its class.
    output : tuple of int or None
        The shape of what it makes of one sample; None where that is not known.
    parameters : int
        How many numbers are trained.
    flops : int or None
        Multiplications and additions of the layer's product for one sample, forward.
    layout : str
        How `fit` lays out the samples that the layer takes: "rows", each sample's numbers side by side, or "lanes", the
        same number of many samples side by side. "" where the layer does nothing in `fit`, or is of another class.
    memory : int or None
        Bytes of the parameters and of the outputs for a batch.
    """

    name: str
    kind: str
    output: Shape | None
    parameters: int
    flops: int | None
    layout: str
    memory: int | None


@dataclass(frozen=True)
class Summary:
    """A network as a table: text to print, HTML in a notebook.

    Attributes
    ----------
    title : str
        The class of the network and its dtype.
    sample : tuple of int or None
        The shape of one sample that the network takes; None where that is not known.
    batch_size : int
        For the memory.
    lines : tuple of Line
        One for each layer, in order.
    loss : str
        The class of the loss.
    memory : int or None
        Bytes that `fit` takes beside the layers and the data for such a batch: a copy of the parameters, activations
        and their gradients, without the optimizer's state. None where the engine does not train the network.
    """

    title: str
    sample: Shape | None
    batch_size: int
    lines: tuple[Line, ...]
    loss: str
    memory: int | None

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(line.parameters for line in self.lines)

    @property
    def flops(self) -> int | None:
        """Multiplications and additions of all products for one sample, forward."""
        counts = [line.flops for line in self.lines if line.flops is not None]
        return sum(counts) if len(counts) == len(self.lines) else None

    def __repr__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join([name.ljust(widths[0]), *map(str.rjust, row, widths[1:])]) for name, *row in table]
        rule = "-" * len(lines[0])
        body = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        return "\n".join([self.title, *(line.rstrip() for line in body), *self._notes()])

    def _repr_html_(self) -> str:
        head, *body, total = [[html.escape(cell) for cell in row] for row in self._table()]
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in body)
        foot = "".join(f"<th>{cell}</th>" for cell in total)
        notes = "<br>".join(map(html.escape, self._notes()))
        return (
            f"<table>\n<caption>{html.escape(self.title)}</caption>\n"
            f"<thead><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr></thead>\n"
            f"<tbody>\n{rows}</tbody>\n<tfoot><tr>{foot}</tr></tfoot>\n</table>\n<p>{notes}</p>"
        )

    def _table(self) -> list[list[str]]:
        body = [
            [
                f"{line.name} ({line.kind})" if line.name.rstrip("0123456789") != line.kind else line.name,
                "?" if line.output is None else by(line.output),
                f"{line.parameters:,}",
                _count(line.flops),
                line.layout,
                _size(line.memory),
            ]
            for line in self.lines
        ]
        memory = [line.memory for line in self.lines]
        whole = None if None in memory else sum(filter(None, memory))
        total = ["in all", "", f"{self.parameters:,}", _count(self.flops), "", _size(whole)]
        return [["layer", "output", "parameters", "flops", "layout", "memory"], *body, total]

    def _notes(self) -> list[str]:
        sample = "unknown: give sample_shape" if self.sample is None else by(self.sample) or "one number"
        notes = [f"a sample: {sample}; loss: {self.loss}; memory: parameters, and outputs of {self.batch_size} samples"]
        if self.memory is not None:
            notes.append(f"fit takes {_size(self.memory)} for a batch of {self.batch_size}, and the optimizer's state")
        layouts = {line.layout for line in self.lines}
        meanings = [meaning for layout, meaning in _MEANINGS.items() if layout in layouts]
        if meanings:
            notes.append(f"layout in fit: {'; '.join(meanings)}")
        return notes


def summary(self: Stack, sample_shape: Sequence[int] | None = None, *, batch_size: int = 100) -> Summary:
    """Return a table of the layers: output shapes, parameters, arithmetic, layout and memory.

    Nothing is computed and nothing is changed. In a notebook it is a table in HTML.

    flops are the multiplications and additions for one sample, forward. layout is how `fit` keeps the samples of a
    batch that the layer takes: in rows, each sample's numbers side by side, or in lanes, the same number of many
    samples side by side, one for each lane of a vector register. `fit` takes what is faster for the network. Where it
    is empty, the layer has nothing to do in `fit`, or is of another class.

    Parameters
    ----------
    sample_shape : sequence of int, optional
        The shape of one sample, (D,) or (C, H, W), (T,) for indices. Without it, it is the smallest that the layers
        fit, square for images.
    batch_size : int
        Samples of a batch, for layout and memory.

    Returns
    -------
    Summary
        With `lines`, one for each layer, and the totals.

    Raises
    ------
    TypeError, ValueError
        If the layers do not fit the shape, or the sizes are no whole numbers.

    Examples
    --------
    >>> network.summary()
    TwoLayerNet, float64
    layer         output  parameters  flops  layout   memory
    --------------------------------------------------------
    Affine1            3          15     24   lanes  2.52 kB
    Relu1 (ReLU)       3           0      0   lanes   2.4 kB
    Affine2            2           8     12   lanes  1.66 kB
    --------------------------------------------------------
    in all                        23     36          6.58 kB
    a sample: 4; loss: SoftmaxWithLoss; memory: parameters, and outputs of 100 samples
    fit takes 13.2 kB for a batch of 100, and the optimizer's state
    layout in fit: lanes, the same number of many samples side by side
    """
    size = whole_number("batch_size", batch_size, 1, "give the number of samples of a step")
    layers = list(self.layers.values())
    sample = sample_shape_of(layers) if sample_shape is None else _checked(sample_shape)
    outputs = shapes(layers, sample)
    stack = _stack(layers, sample)
    kinds = {parameter.dtype for parameter in self.params.values()}
    dtype = max(kinds, key=lambda kind: kind.itemsize, default=np.dtype(np.float64))
    layouts = _layouts(stack, size)
    lines = []
    for (name, layer), out in zip(self.layers.items(), outputs, strict=True):
        arrays = _parameters(layer)
        of_batch = None if out is None else math.prod(out) * size * dtype.itemsize
        lines.append(
            Line(
                name,
                type(layer).__name__,
                out,
                sum(array.size for array in arrays.values()),
                _flops(layer, arrays, out),
                layouts.get(id(layer), ""),
                None if of_batch is None else of_batch + sum(array.nbytes for array in arrays.values()),
            )
        )
    title = ", ".join([type(self).__name__, *sorted(map(str, kinds))])
    memory = _memory_of_fit(layers, self.last_layer, sample, size, dtype) if stack else None
    return Summary(title, sample, size, tuple(lines), type(self.last_layer).__name__, memory)


def described(self: Stack) -> str:
    """The layers of a network with the shapes of their arrays and their settings, a line for each."""
    layers = [*self.layers.items(), ("loss", self.last_layer)]
    return "\n".join([f"{type(self).__name__}(", *(f"  {name}: {shown(layer)}" for name, layer in layers), ")"])


def sample_shape_of(layers: Sequence[Any]) -> Shape | None:
    """The smallest shape of a sample that layers fit, square for images; None where there is none.

    Layers of other classes, and those after them, are not asked.
    """
    known = _known(layers)
    return next((shape for shape in _candidates(known) if _fits(known, shape)), None)


def shapes(layers: Sequence[Any], sample: Shape | None) -> list[Shape | None]:
    """What each layer makes of a sample, None from the first one on that is of another class."""
    if sample is None:
        return [None] * len(layers)
    known = _known(layers)
    return [*(each.out for each in mapped(known, sample)), *[None] * (len(layers) - len(known))]


def _known(layers: Sequence[Any]) -> list[Any]:
    """The layers before the first of another class."""
    unknown = (number for number, layer in enumerate(layers) if type(layer) not in LAYERS)
    return list(layers[: next(unknown, len(layers))])


def _checked(shape: Iterable[object]) -> Shape:
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"sample_shape: expected a tuple of sizes, got {type(shape).__name__}; give one such as (784,)")
    return tuple(whole_number("sample_shape", size, 1, "give sizes such as (1, 28, 28)") for size in shape)


def _candidates(layers: Sequence[Any]) -> Iterator[Shape]:
    if takes_indices(layers):
        yield ()
        yield from ((length,) for length in range(1, _LONGEST))
        return
    first = next((array for layer in layers for array in _parameters(layer).values()), None)
    if first is None:
        return
    channels = first.shape[1] if first.ndim == 4 else len(first)
    yield (channels,)
    for pixels in range(1, _LONGEST):
        yield channels, pixels, pixels
    for pixels in range(1, _LONGEST):
        yield 1, pixels, pixels


def _fits(layers: Sequence[Any], shape: Shape) -> bool:
    try:
        return all(min(each.out, default=1) > 0 for each in mapped(layers, shape))
    except (TypeError, ValueError):
        return False


def _stack(layers: Sequence[Any], sample: Shape | None) -> list[Mapped]:
    """The layers as the engine takes them, none where it does not train them."""
    return [*mapped(layers, sample)] if sample is not None and len(_known(layers)) == len(layers) else []


def _layouts(stack: list[Mapped], batch_size: int) -> dict[int, str]:
    """How the samples lie that each layer takes, by its id."""
    if not stack:
        return {}
    found: dict[int, str] = {}
    for row in arranged(stack, lambda kind: kind.forward is not None):
        layout = LANES if is_small(stack, batch_size) else row.layout
        found |= {id(each.layer): _LAYOUTS[layout] for each in (row.layer, row.activation) if each is not None}
    return found


def _memory_of_fit(layers: Sequence[Any], loss: object, sample: Any, batch_size: int, dtype: Any) -> int | None:
    record = loss_of(loss)
    if record is None or type(loss) not in LAYERS:
        return None
    table = Table(layers, sample, batch_size, dtype, record.takes_lanes)
    sizes = table.parameters.size, table.work.size, table.sums.size, table.statistics.size
    return int(sum(sizes)) * int(dtype.itemsize)


def _parameters(layer: Any) -> dict[str, Array]:
    return {name: getattr(layer, name) for name in getattr(layer, "parameter_names", ())}


def _flops(layer: Any, arrays: dict[str, Array], out: Shape | None) -> int | None:
    """Two for each element of W at each place of the output where the layer has a product, else 0."""
    W = arrays.get("W")
    if type(layer) not in LAYERS or out is None:
        return None
    if W is None or takes_indices([layer]):
        return 0
    outputs = W.shape[0] if W.ndim == 4 else W.shape[-1]
    return int(2 * W.size * math.prod(out) // outputs)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _size(count: int | None) -> str:
    """Bytes as a person reads them."""
    if count is None:
        return "?"
    size, units = float(count), iter(_UNITS)
    unit = next(units)
    while size >= 1000 and unit != _UNITS[-1]:
        size, unit = size / 1000, next(units)
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
