"""A network as one file of C99 that needs nothing but the C library."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastbp._version import __version__
from fastbp.checks import FLOAT32, Array
from fastbp.export import steps
from fastbp.export.expressions import SIGNS, Expression, bare, written
from fastbp.export.walk import Exported, Program, walk
from fastbp.files import FilePath, replace
from fastbp.ops.contract import Shape

LARGEST_STACK = 16384
"""Bytes of scratch up to which it is on the stack."""

A_LINE = 8
"""Numbers of a parameter in a line."""


def to_c(network: Any, path: FilePath, *, sample_shape: Shape | None = None, end: str | None = None) -> None:
    """Write what a network predicts as one file of C99 with a function `void predict(const float *x, float *y)`.

    x is one sample in C order, y its output. Indices for `Embedding` are floats, too; one out of range makes NaN. The
    file has the parameters in it, needs `math.h` alone and allocates nothing. A network of float32 computes in float.
    Another computes in double, and rounds its outputs to float. Up to 16 KiB of scratch are on the stack, and several
    threads may call `predict` at once. A larger scratch is static: then one thread at a time may. The file says which.

    Parameters
    ----------
    network : Sequential, or a network of `fastbp.book`
        Nothing of it is changed.
    path : path
        The file is replaced at once or stays as it was.
    sample_shape : tuple of int, optional
        The shape of one sample, such as (1, 28, 28). Needed where images of several sizes fit the layers.
    end : {"softmax", "sigmoid"}, optional
        What follows the last layer: probabilities in the place of what the loss takes.

    Raises
    ------
    TypeError
        For a layer of another class; the message has its name and its place.
    ValueError
        If the shape of a sample must be given, or does not fit.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> fastbp.export.to_c(network, "network.c")
    >>> from pathlib import Path
    >>> Path("network.c").read_text().splitlines()[0]
    '/* TwoLayerNet in C99: 4 numbers -> 2 numbers.'
    """
    replace(path, _File(walk(network, sample_shape, end)).text().encode())


class _File:
    """The text of a program, collected step by step."""

    def __init__(self, program: Program) -> None:
        self.program, self.is_double = program, program.dtype != FLOAT32
        self.functions = program.functions()
        self.sizes: dict[str, int] = {}
        self.parameters: dict[str, Array] = {}
        self.used: set[str] = set()
        # Which of the two buffers has the values, and the largest number of them in each.
        self.now, self.room = "a", {"a": math.prod(program.shape), "b": 0}
        self.calls: list[str] = []
        for layer in program.layers:
            self.calls.append(f"/* {layer}: {' x '.join(map(str, layer.out)) or 1} */")
            for step in layer.steps:
                _CALLS[type(step)](self, layer, step)

    def text(self) -> str:
        parts = [
            self._comment(),
            "#include <math.h>",
            f"typedef {'double' if self.is_double else 'float'} number;",
            self._constants(),
            "void predict(const float *x, float *y);",
            self._multiply_add(),
            "\n".join(f"static const number {name}[{array.size}];" for name, array in self.parameters.items()),
            *(self._library(source) for name, source in _FUNCTIONS.items() if name in self.used),
            *(self._function(name, expression) for name, expression in self.functions.values()),
            self._predict(),
            *(self._initialized(name, array) for name, array in self.parameters.items()),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def size(self, layer: Exported, name: str, value: int) -> str:
        """A named constant of a layer."""
        name = f"{layer.symbol}_{name}".upper()
        self.sizes[name] = value
        return name

    def parameter(self, layer: Exported, name: str, array: Array) -> str:
        """An array of a layer."""
        name = f"{layer.symbol}_{name}"
        self.parameters[name] = array
        return name

    def call(self, function: str, *arguments: str) -> None:
        """Call a function of `_FUNCTIONS`."""
        self.used.add(function)
        self.calls += textwrap.wrap(
            f"{function}({', '.join(arguments)});", 110, subsequent_indent="    ", break_long_words=False
        )

    def moved(self, out: Shape) -> tuple[str, str]:
        """The buffer that has the values, and the one that will have those of a shape."""
        before, self.now = self.now, "b" if self.now == "a" else "a"
        self.room[self.now] = max(self.room[self.now], math.prod(out))
        return before, self.now

    def library(self, name: str) -> str:
        """A function of the C library in the type of the numbers."""
        return name if self.is_double else f"{name}f"

    def number(self, value: float) -> str:
        """A constant."""
        if math.isnan(value):
            return "NAN"
        if math.isinf(value):
            return "INFINITY" if value > 0 else "-INFINITY"
        return repr(value) if self.is_double else f"{np.float32(value)!s}f"

    def _comment(self) -> str:
        program = self.program
        x, y = math.prod(program.shape), math.prod(program.out)
        bytes_ = sum(self.room.values()) * program.dtype.itemsize
        threads = (
            f"The {bytes_:,} bytes of scratch are on the stack: several threads may call predict at once."
            if self._is_on_stack()
            else f"The {bytes_:,} bytes of scratch are static: one thread at a time may call predict."
        )
        lines = [
            f"{program.network} in C99: {x} numbers -> {y} numbers.",
            f"Exported by fastbp {__version__}.",
            "",
            *(f"    {row}" for row in program.table()),
            "",
            f"predict(x, y) reads one sample x[{x}] and writes its output y[{y}], in C order. Nothing is allocated.",
            *(["x are indices as floats; one out of range makes NaN."] if program.takes_indices else []),
            threads,
            "",
            "    cc -std=c99 -O3 -march=native -c FILE.c    (link with -lm)",
        ]
        return "/* " + "\n".join(f" * {line}".rstrip() for line in lines)[3:] + "\n */"

    def _constants(self) -> str:
        shapes = {"X_SIZE": math.prod(self.program.shape), "Y_SIZE": math.prod(self.program.out)}
        rooms = {f"{name.upper()}_SIZE": size for name, size in self.room.items() if size}
        rows = [f"    {name} = {value}" for name, value in {**shapes, **self.sizes, **rooms}.items()]
        return "enum {\n" + ",\n".join(rows) + "\n};"

    def _is_on_stack(self) -> bool:
        return sum(self.room.values()) * self.program.dtype.itemsize <= LARGEST_STACK

    def _predict(self) -> str:
        storage = "" if self._is_on_stack() else "static "
        buffers = ", ".join(f"{name}[{name.upper()}_SIZE]" for name, size in self.room.items() if size)
        lines = [
            f"{storage}number {buffers};",
            "",
            "for (int i = 0; i < X_SIZE; i++) a[i] = x[i];",
            *self.calls,
            f"for (int i = 0; i < Y_SIZE; i++) y[i] = {'(float)' if self.is_double else ''}{self.now}[i];",
        ]
        return "void predict(const float *x, float *y)\n{\n" + textwrap.indent("\n".join(lines), "    ") + "\n}"

    def _multiply_add(self) -> str:
        if not self.used & {"affine", "matmul", "convolution"}:
            return ""
        f = "" if self.is_double else "f"
        return _MULTIPLY_ADD.replace("{F}", f.upper()).replace("{f}", f)

    def _library(self, source: str) -> str:
        """A function of `_FUNCTIONS` in the type of the numbers."""
        return re.sub(r"\b(exp|sqrt)\(", lambda found: f"{self.library(found[1])}(", source)

    def _function(self, name: str, expression: Expression) -> str:
        values, result = written(expression, self._operation, self.number)
        lines = [f"const number t{count} = {bare(value)};" for count, value in enumerate(values, 1)]
        body = textwrap.indent("\n".join([*lines, f"return {bare(result)};"]), "    ")
        return f"static number {name}(number x)\n{{\n{body}\n}}"

    def _operation(self, function: str, operands: Sequence[str]) -> str:
        first, *others = operands
        if function in SIGNS:
            return f"({first} {SIGNS[function]} {others[0]})"
        if function == "where":
            return f"({first} ? {others[0]} : {others[1]})"
        if function == "negative":
            return f"(-{first})"
        if function == "square":
            return f"({first} * {first})"
        if function in ("maximum", "minimum"):  # of a NaN and a number NaN, as in NumPy
            sign = ">" if function == "maximum" else "<"
            return f"({first} {sign} {others[0]} || {first} != {first} ? {first} : {others[0]})"
        return f"{self.library(_LIBRARY.get(function, function))}({', '.join(map(bare, operands))})"

    def _initialized(self, name: str, array: Array) -> str:
        numbers = [self.number(value) for value in array.ravel().tolist()]
        lines = (", ".join(numbers[start : start + A_LINE]) for start in range(0, len(numbers), A_LINE))
        return f"static const number {name}[{array.size}] = {{\n    " + ",\n    ".join(lines) + "\n};"


_LIBRARY = {"absolute": "fabs", "power": "pow"}

_MULTIPLY_ADD = """/* Rounds once, as fastbp does, where the processor has it; then predictions are closer. */
#ifdef FP_FAST_FMA{F}
#define MULTIPLY_ADD(a, b, c) fma{f}(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif"""

_FUNCTIONS = {
    "affine": """/* y = x W + b, where W has a row of `outputs` numbers for each of the inputs. */
static void affine(const number *restrict x, const number *restrict W, const number *restrict b,
                   int inputs, int outputs, number *restrict y)
{
    for (int j = 0; j < outputs; j++) y[j] = b[j];
    for (int i = 0; i < inputs; i++)
        for (int j = 0; j < outputs; j++) y[j] = MULTIPLY_ADD(x[i], W[i * outputs + j], y[j]);
}""",
    "matmul": """/* y = x W */
static void matmul(const number *restrict x, const number *restrict W,
                   int inputs, int outputs, number *restrict y)
{
    for (int j = 0; j < outputs; j++) y[j] = 0;
    for (int i = 0; i < inputs; i++)
        for (int j = 0; j < outputs; j++) y[j] = MULTIPLY_ADD(x[i], W[i * outputs + j], y[j]);
}""",
    "lookup": """/* The row of W for each of `count` indices; NaN where there is none. */
static void lookup(const number *restrict x, const number *restrict W,
                   int count, int words, int features, number *restrict y)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < features; j++)
            y[i * features + j] = x[i] >= 0 && x[i] < (number)words ? W[(int)x[i] * features + j] : NAN;
}""",
    "convolution": """/* x: an image for each channel. W: filters of channels x filter_height x filter_width,
 * on every stride-th pixel. Outside of an image are zeros. y: an image for each filter. */
static void convolution(const number *restrict x, const number *restrict W, const number *restrict b,
                        int channels, int height, int width, int filters, int filter_height, int filter_width,
                        int stride, int pad, int out_height, int out_width, number *restrict y)
{
    for (int f = 0; f < filters; f++, y += out_height * out_width) {
        for (int k = 0; k < out_height * out_width; k++) y[k] = b[f];
        for (int c = 0; c < channels; c++)
            for (int i = 0; i < filter_height; i++)
                for (int j = 0; j < filter_width; j++, W++) {
                    /* Columns begin..end - 1 of the output meet pixels of the image. */
                    const int last = width - 1 + pad - j;
                    const int begin = j < pad ? (pad - j + stride - 1) / stride : 0;
                    const int end = last < 0 ? 0 : last / stride + 1 < out_width ? last / stride + 1 : out_width;
                    for (int row = 0; row < out_height; row++) {
                        const int line = row * stride + i - pad;
                        if (line < 0 || line >= height) continue;
                        const number *pixels = x + (c * height + line) * width;
                        number *out = y + row * out_width;
                        for (int k = begin; k < end; k++)
                            out[k] = MULTIPLY_ADD(*W, pixels[k * stride + j - pad], out[k]);
                    }
                }
    }
}""",
    "max_pooling": """/* The largest pixel of each window; a NaN counts as the largest. */
static void max_pooling(const number *restrict x, int channels, int height, int width,
                        int window_height, int window_width, int stride, int pad,
                        int out_height, int out_width, number *restrict y)
{
    for (int c = 0; c < channels; c++, x += height * width)
        for (int row = 0; row < out_height; row++)
            for (int column = 0; column < out_width; column++) {
                number largest = -INFINITY;
                for (int i = row * stride - pad; i < row * stride - pad + window_height; i++)
                    for (int j = column * stride - pad; j < column * stride - pad + window_width; j++)
                        if (i >= 0 && i < height && j >= 0 && j < width) {
                            const number pixel = x[i * width + j];
                            if (pixel > largest || pixel != pixel) largest = pixel;
                        }
                *y++ = largest;
            }
}""",
    "average_pooling": """/* The mean of each window; outside of the image are zeros. */
static void average_pooling(const number *restrict x, int channels, int height, int width,
                            int window_height, int window_width, int stride, int pad,
                            int out_height, int out_width, number *restrict y)
{
    for (int c = 0; c < channels; c++, x += height * width)
        for (int row = 0; row < out_height; row++)
            for (int column = 0; column < out_width; column++) {
                number sum = 0;
                for (int i = row * stride - pad; i < row * stride - pad + window_height; i++)
                    for (int j = column * stride - pad; j < column * stride - pad + window_width; j++)
                        if (i >= 0 && i < height && j >= 0 && j < width) sum += x[i * width + j];
                *y++ = sum / (number)(window_height * window_width);
            }
}""",
    "normalize": """/* gamma (x - mean) / std + beta for each of `features`, or for the pixels of each channel. */
static void normalize(number *x, int features, int pixels, const number *gamma, const number *beta,
                      const number *mean, const number *std)
{
    for (int c = 0; c < features; c++)
        for (int k = 0; k < pixels; k++, x++) *x = gamma[c] * ((*x - mean[c]) / std[c]) + beta[c];
}""",
    "normalize_rows": """/* gamma (x - mean) / sqrt(var + eps) + beta, with the mean and the variance of each row. */
static void normalize_rows(number *x, int rows, int features, const number *gamma, const number *beta, number eps)
{
    for (int n = 0; n < rows; n++, x += features) {
        number mean = 0, var = 0;
        for (int k = 0; k < features; k++) mean += x[k];
        mean /= (number)features;
        for (int k = 0; k < features; k++) var += (x[k] - mean) * (x[k] - mean);
        const number std = sqrt(var / (number)features + eps);
        for (int k = 0; k < features; k++) x[k] = gamma[k] * ((x[k] - mean) / std) + beta[k];
    }
}""",
    "softmax": """/* exp(x) / sum of exp(x) over `classes`, which lie `step` numbers apart. */
static void softmax(number *x, int groups, int classes, int step)
{
    for (int n = 0; n < groups; n++, x += classes * step)
        for (int k = 0; k < step; k++) {
            number largest = x[k], sum = 0;
            for (int c = 1; c < classes; c++)
                if (x[c * step + k] > largest) largest = x[c * step + k];
            for (int c = 0; c < classes; c++) {
                x[c * step + k] = exp(x[c * step + k] - largest);
                sum += x[c * step + k];
            }
            for (int c = 0; c < classes; c++) x[c * step + k] /= sum;
        }
}""",
}


def _product(file: _File, layer: Exported, step: steps.Product) -> None:
    W = file.parameter(layer, "W", step.W)
    bias = [] if step.b is None else [file.parameter(layer, "b", step.b)]
    inputs, outputs = _sizes(file, layer, ("inputs", "outputs"), step.W.shape)
    x, y = file.moved(step.out)
    file.call("affine" if bias else "matmul", x, W, *bias, inputs, outputs, y)


def _lookup(file: _File, layer: Exported, step: steps.Lookup) -> None:
    W, count = file.parameter(layer, "W", step.W), file.size(layer, "indices", math.prod(step.shape))
    words, features = _sizes(file, layer, ("words", "features"), step.W.shape)
    x, y = file.moved(step.out)
    file.call("lookup", x, W, count, words, features, y)


_IMAGE = "channels", "height", "width"


def _correlation(file: _File, layer: Exported, step: steps.Correlation) -> None:
    W, b = file.parameter(layer, "W", step.W), file.parameter(layer, "b", step.b)
    image = _sizes(file, layer, _IMAGE, step.shape)
    F, _, *window = step.W.shape
    names = "filters", "filter_height", "filter_width", "stride", "pad", "out_height", "out_width"
    others = _sizes(file, layer, names, (F, *window, step.stride, step.pad, *step.out[1:]))
    x, y = file.moved(step.out)
    file.call("convolution", x, W, b, *image, *others, y)


def _pooled(file: _File, layer: Exported, step: steps.Pooled) -> None:
    names = *_IMAGE, "window_height", "window_width", "stride", "pad", "out_height", "out_width"
    sizes = _sizes(file, layer, names, (*step.shape, *step.window, step.stride, step.pad, *step.out[1:]))
    x, y = file.moved(step.out)
    file.call("max_pooling" if step.is_max else "average_pooling", x, *sizes, y)


def _sizes(file: _File, layer: Exported, names: Sequence[str], values: Sequence[int]) -> list[str]:
    return [file.size(layer, name, value) for name, value in zip(names, values, strict=True)]


def _normalized(file: _File, layer: Exported, step: steps.Normalized) -> None:
    sizes = _sizes(file, layer, ("features", "pixels"), (step.shape[0], math.prod(step.shape[1:])))
    arrays = {"gamma": step.gamma, "beta": step.beta, "mean": step.mean, "std": np.sqrt(step.var)}
    file.call("normalize", file.now, *sizes, *(file.parameter(layer, name, array) for name, array in arrays.items()))


def _normalized_over_sample(file: _File, layer: Exported, step: steps.NormalizedOverSample) -> None:
    features = step.gamma.size
    sizes = _sizes(file, layer, ("rows", "features"), (math.prod(step.shape) // features, features))
    arrays = [file.parameter(layer, name, array) for name, array in step.arrays()]
    file.call("normalize_rows", file.now, *sizes, *arrays, file.number(step.eps))


def _softmax(file: _File, layer: Exported, step: steps.SoftmaxAlong) -> None:
    file.call("softmax", file.now, *_sizes(file, layer, ("groups", "classes", "step"), step.counts))


def _elementwise(file: _File, layer: Exported, step: steps.Elementwise) -> None:
    size, (name, _) = file.size(layer, "size", math.prod(step.shape)), file.functions[step.name, step.settings]
    file.calls.append(f"for (int i = 0; i < {size}; i++) {file.now}[i] = {name}({file.now}[i]);")


_CALLS: dict[type[steps.Step], Callable[[_File, Exported, Any], None]] = {
    steps.Reshaped: lambda *_: None,
    steps.Product: _product,
    steps.Lookup: _lookup,
    steps.Correlation: _correlation,
    steps.Pooled: _pooled,
    steps.Normalized: _normalized,
    steps.NormalizedOverSample: _normalized_over_sample,
    steps.SoftmaxAlong: _softmax,
    steps.Elementwise: _elementwise,
}
