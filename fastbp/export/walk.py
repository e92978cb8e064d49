"""The walk over a network's layers, from which every target takes shapes, parameters and settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastbp.book import layers as book
from fastbp.book.network import Network
from fastbp.checks import FLOAT32, FLOAT64, DType, axis_of, result_dtype, whole_number
from fastbp.export.expressions import Expression, traced
from fastbp.export.steps import (
    Correlation,
    Elementwise,
    Lookup,
    Normalized,
    NormalizedOverSample,
    Pooled,
    Product,
    Reshaped,
    SoftmaxAlong,
    Step,
)
from fastbp.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Embedding,
    Flatten,
    LayerNormalization,
    MatMul,
    Pooling,
    Reshape,
    Sigmoid,
    Softmax,
)
from fastbp.network import Sequential
from fastbp.ops.contract import LAYERS, Shape, batch_of, layer_of_indices, record_of, settings_of, takes_indices
from fastbp.ops.normalization import EPS

ENDS: dict[str, type] = {"softmax": Softmax, "sigmoid": Sigmoid}
"""What may be put at the end of a network, by name."""


class Exported(NamedTuple):
    """A layer of a network.

    Attributes
    ----------
    name, kind : str
        Its own, and that of its class.
    symbol : str
        A name for its parameters that every language takes: affine_1, affine_2.
    """

    name: str
    kind: str
    symbol: str
    shape: Shape
    out: Shape
    steps: list[Step]

    def __str__(self) -> str:
        """Its name, and that of its class where it is another."""
        return self.name if self.kind.lower() in self.name.lower() else f"{self.name} ({self.kind})"


@dataclass(frozen=True)
class Program:
    """A network as targets see it.

    Attributes
    ----------
    network : str
        The name of its class.
    shape, out : tuple of int
        Of a sample and of its output.
    dtype : float32 or float64
        Of parameters and results.
    takes_indices : bool
        Whether the samples are indices.
    """

    network: str
    shape: Shape
    out: Shape
    dtype: DType
    takes_indices: bool
    layers: list[Exported]

    def steps(self) -> Iterator[Step]:
        """All steps in their order."""
        for layer in self.layers:
            yield from layer.steps

    def functions(self) -> dict[tuple[str, tuple[float, ...]], tuple[str, Expression]]:
        """For each elementwise function with its settings a name, such as activation_elu_2, and the expression."""
        found: dict[tuple[str, tuple[float, ...]], tuple[str, Expression]] = {}
        counts = Counter[str]()
        for step in self.steps():
            if isinstance(step, Elementwise) and (step.name, step.settings) not in found:
                counts[step.name] += 1
                number = "" if counts[step.name] == 1 else f"_{counts[step.name]}"
                found[step.name, step.settings] = f"activation_{step.name}{number}", step.expression
        return found

    def table(self) -> list[str]:
        """The architecture, a line for each layer."""
        rows = [(str(each), sizes(each.shape), sizes(each.out)) for each in self.layers]
        widths = [max(len(row[k]) for row in rows) for k in range(2)]
        return [f"{name:<{widths[0]}}  {shape:>{widths[1]}} -> {out}" for name, shape, out in rows]


def sizes(shape: Shape) -> str:
    """A shape in a word, such as 1x28x28."""
    return "x".join(map(str, shape)) or "1"


def walk(network: Any, sample_shape: Shape | None = None, end: str | None = None) -> Program:
    """What a network predicts, layer by layer.

    Parameters
    ----------
    network : Sequential, or a network of `fastbp.book`
    sample_shape : tuple of int, optional
        The shape of one sample. Without it, it is found from the layers.
    end : {"softmax", "sigmoid"}, optional
        What follows the last layer.

    Raises
    ------
    TypeError, ValueError
        If the network, a layer or an argument is none that can be exported.
    """
    layers = _layers(network)
    _check(layers)
    if end is not None:
        if end not in ENDS:
            raise ValueError(f"end: expected one of {', '.join(ENDS)}, got {end!r}; choose one of these, or None")
        layers |= {f"{end}, at the end": ENDS[end]()}
    shape = _given(sample_shape) if sample_shape is not None else _found(layers)
    dtype, first, counts = _dtype(layers), shape, Counter[str]()
    exported: list[Exported] = []
    for name, layer, out in _shapes(layers, shape):
        if 0 in (*shape, *out):
            raise ValueError(
                f"{name}: expected at least one number in each sample, got {batch_of(shape)} and {batch_of(out)}; "
                f"export a network of layers that give some"
            )
        steps = [step.converted(dtype) for step in _steps(name, layer, shape, out)]
        kind = type(layer).__name__
        counts[kind] += 1
        exported.append(Exported(_plain(name), kind, f"{kind.lower()}_{counts[kind]}", shape, out, steps))
        shape = out
    indices = layer_of_indices(layers.values()) is not None
    return Program(_plain(type(network).__name__), first, shape, dtype, indices, exported)


def _layers(network: Any) -> dict[str, Any]:
    """The layers of a network by name."""
    if isinstance(network, Sequential):
        if "predict" in network.own_methods():
            raise TypeError(
                f"network: expected one that predicts by its layers, got {type(network).__name__}, which has a "
                f"predict of its own; export Sequential(network.layers, network.last_layer), and do the rest outside"
            )
        return dict(network.layers)
    if isinstance(network, Network) and type(network).predict is Network.predict:
        layers = network.layers
        named = layers if isinstance(layers, Mapping) else {f"Layer{k}": each for k, each in enumerate(layers, 1)}
        return dict(named)
    raise TypeError(
        f"network: expected a Sequential or another network of layers, got {type(network).__name__}; "
        f"put its layers into fastbp.Sequential"
    )


def _check(layers: Mapping[str, Any]) -> None:
    """Refuse layers that no target knows, with their place."""
    first = layer_of_indices(layers.values())
    for number, (name, layer) in enumerate(layers.items(), 1):
        place = f"{name}, layer {number} of {len(layers)}"
        kind = type(layer)
        if not _is_known(kind):
            raise TypeError(
                f"{place}: expected a layer of fastbp.layers, got {kind.__module__}.{kind.__qualname__}, whose code no "
                f"file can hold; replace it by layers of fastbp, or export the layers before it and those after it"
            )
        if "forward" in vars(layer):
            raise TypeError(
                f"{place}: expected the forward of its class, got one of its own; replace the layer by layers of fastbp"
            )
        if takes_indices([layer]) and layer is not first:
            raise ValueError(
                f"{place}: expected {kind.__name__} to be the first layer, as it takes indices, got floats for it; "
                f"put it first"
            )


def _is_known(kind: type) -> bool:
    record = LAYERS.get(kind)
    return kind in _STEPS or (record is not None and record.activation is not None)


def _dtype(layers: Mapping[str, Any]) -> DType:
    """float64 where a parameter has more digits than float32, and for integers; else float32."""
    records = ((layer, record_of(type(layer))) for layer in layers.values())
    arrays = [getattr(layer, name) for layer, record in records if record is not None for name in record.arrays]
    dtype = result_dtype(*arrays) if arrays else FLOAT32
    return FLOAT32 if dtype.kind == "f" and dtype.itemsize <= FLOAT32.itemsize else FLOAT64


def _plain(name: str) -> str:
    """A name in letters, digits and signs that end no comment in any language."""
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in " _-.,:()") else "_" for letter in name
    )


# The shape of one sample.


def _given(shape: object) -> Shape:
    if not isinstance(shape, tuple | list):
        raise TypeError(
            f"sample_shape: expected a tuple of integers, got {type(shape).__name__}; give the shape of one sample, "
            f"such as (1, 28, 28)"
        )
    return tuple(whole_number("sample_shape", axis, 1, "give the shape of one sample") for axis in shape)


def _shapes(layers: Mapping[str, Any], shape: Shape) -> Iterator[tuple[str, Any, Shape]]:
    """Each layer by name, with the shape that it gives."""
    for name, layer in layers.items():
        record = LAYERS.get(type(layer)) or (None if isinstance(layer, _OF_ANY_SHAPE) else record_of(type(layer)))
        if record is not None and record.map is not None:
            shape = record.map.shape(layer, shape, f"{name}: expected samples")
        yield name, layer, shape


def _found(layers: Mapping[str, Any]) -> Shape:
    """The one shape of samples that fits the layers."""
    candidates = [shape for shape in _candidates(layers) if _fits(layers, shape)]
    rows = [shape for shape in candidates if len(shape) == 1]
    if len(candidates) == 1 or (rows and not takes_indices(layers.values())):
        return (rows or candidates)[0]
    fitting = f"{', '.join(map(str, candidates[:4]))} fit" if candidates else "none of the usual ones fits"
    raise ValueError(
        f"sample_shape: expected the shape of one sample, as the layers do not tell it, got none ({fitting}); "
        f"give it, such as sample_shape=(1, 28, 28), or --shape 1,28,28"
    )


def _candidates(layers: Mapping[str, Any]) -> Iterator[Shape]:
    """Rows as the first layer with parameters or with a shape takes them, or images, or sequences."""
    for layer in layers.values():
        if isinstance(layer, Embedding):
            yield from ((length,) for length in range(1, _LONGEST))
        elif isinstance(layer, Convolution):
            channels = layer.W.shape[1]
            yield from ((channels, pixels, pixels) for pixels in range(1, _LONGEST))
        elif isinstance(layer, Affine | MatMul):
            yield (len(layer.W),)
        elif isinstance(layer, BatchNormalization):
            yield (len(layer.gamma),)
            if not isinstance(layer, book.BatchNormalization):
                yield from ((len(layer.gamma), pixels, pixels) for pixels in range(1, _LONGEST))
        elif isinstance(layer, LayerNormalization):
            yield layer.gamma.shape
        elif isinstance(layer, Reshape) and -1 not in layer.shape:
            yield (math.prod(layer.shape),)
        else:
            continue
        return


# Sequences and images up to this length are tried.
_LONGEST = 300


def _fits(layers: Mapping[str, Any], shape: Shape) -> bool:
    try:
        return all(True for _ in _shapes(layers, shape))
    except ValueError:
        return False


# The steps of each layer.


def _steps(name: str, layer: Any, shape: Shape, out: Shape) -> list[Step]:
    try:
        record = LAYERS.get(type(layer))
        if record is not None and record.activation is not None:
            return _of_activation(layer, shape)
        return _STEPS[type(layer)](layer, shape, out)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _of_activation(layer: Any, shape: Shape) -> list[Step]:
    record = record_of(type(layer))
    function = None if record is None else record.activation
    if record is None or function is None or function.value_twin is None:  # the identity
        return []
    settings = settings_of(record, layer)
    return [Elementwise(shape, shape, function.name, settings, traced(function.value_twin, *settings))]


def _of_product(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    return [*_reshaped(shape, (len(layer.W),)), Product((len(layer.W),), out, layer.W, getattr(layer, "b", None))]


def _reshaped(shape: Shape, out: Shape) -> list[Step]:
    return [] if shape == out else [Reshaped(shape, out)]


def _of_convolution(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    return [Correlation(shape, out, layer.W, layer.b, int(layer.stride), int(layer.pad))]


def _of_pooling(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    window = int(layer.pool_h), int(layer.pool_w)
    return [Pooled(shape, out, window, int(layer.stride), int(layer.pad), layer.mode == "max")]


def _of_books_pooling(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    if layer.border:
        raise ValueError(
            f"pad: expected 0 in a pooling of fastbp.book, got {layer.border}; take fastbp.layers.Pooling, which "
            f"counts the border"
        )
    return _of_pooling(layer, shape, out)


def _of_batch_normalization(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    var = np.add(layer.running_var, EPS, dtype=np.float64)
    return [Normalized(shape, out, layer.gamma, layer.beta, layer.running_mean, var)]


def _of_books_batch_normalization(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    """Every number of a sample is a feature."""
    row = (math.prod(shape),)
    if layer.gamma.shape != row:
        raise ValueError(
            f"gamma: expected {row[0]} numbers, as each sample {shape} has, got {layer.gamma.size}; make it for them"
        )
    return [*_reshaped(shape, row), *_of_batch_normalization(layer, row, row), *_reshaped(row, out)]


def _of_layer_normalization(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    return [NormalizedOverSample(shape, out, layer.gamma, layer.beta, float(layer.eps))]


def _of_softmax(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    axis = axis_of("x", np.empty((0, *shape)), layer.axis)
    if axis == 0:
        raise ValueError(f"axis: expected one of a sample, got {layer.axis}, which mixes samples; take axis -1")
    return [SoftmaxAlong(shape, out, axis - 1)]


def _of_books_dropout(layer: Any, shape: Shape, out: Shape) -> list[Step]:
    share = 1.0 - float(layer.dropout_ratio)
    return [Elementwise(shape, out, "books_dropout", (share,), traced(lambda x: x * share))]


_STEPS: dict[type, Callable[[Any, Shape, Shape], list[Step]]] = {
    Affine: _of_product,
    MatMul: _of_product,
    Convolution: _of_convolution,
    Pooling: _of_pooling,
    BatchNormalization: _of_batch_normalization,
    LayerNormalization: _of_layer_normalization,
    Softmax: _of_softmax,
    Embedding: lambda layer, shape, out: [Lookup(shape, out, layer.W)],
    Reshape: lambda _, shape, out: _reshaped(shape, out),
    Flatten: lambda _, shape, out: _reshaped(shape, out),
    Dropout: lambda *_: [],
    book.Relu: lambda layer, shape, _: _of_activation(layer, shape),
    book.Convolution: _of_convolution,
    book.Pooling: _of_books_pooling,
    book.BatchNormalization: _of_books_batch_normalization,
    book.Dropout: _of_books_dropout,
}
_OF_ANY_SHAPE = book.BatchNormalization, book.Dropout
