"""A network as a Python file that needs NumPy alone."""

from __future__ import annotations

import base64
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastbp._version import __version__
from fastbp.checks import Array
from fastbp.export import numpy_functions, steps
from fastbp.export.expressions import SIGNS, Expression, bare, written
from fastbp.export.walk import Program, walk
from fastbp.files import FilePath, replace
from fastbp.ops.contract import Shape, batch_of


def to_numpy(network: Any, path: FilePath, *, sample_shape: Shape | None = None, end: str | None = None) -> None:
    """Write what a network predicts as a Python file with a function `predict(x)`, which needs NumPy alone.

    The parameters are in the file, as text of 4/3 of their size. Samples are converted to float32 or float64, as the
    parameters are.

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
    >>> fastbp.export.to_numpy(network, "network.py")
    >>> import runpy
    >>> predict = runpy.run_path("network.py")["predict"]
    >>> np.allclose(predict(x), network.predict(x))
    True
    """
    replace(path, _text(walk(network, sample_shape, end)).encode())


def _text(program: Program) -> str:
    names = program.functions()
    calls, arrays, used = [], [], set[str]()
    for layer in program.layers:
        calls.append(f"    # {layer}")
        for step in layer.steps:
            if isinstance(step, steps.Elementwise):
                call = f"{names[step.name, step.settings][0]}(x)"
            else:
                call = _CALLS[type(step)](step, layer.symbol)
            used.update(name for name in _SOURCES if f"{name}(" in call)
            calls += textwrap.wrap(f"    x = {call}", 110, subsequent_indent=" " * 8, break_long_words=False)
            arrays += [_assigned(f"{layer.symbol}_{name}", array) for name, array in _arrays(step)]
    functions = [_function(name, expression) for name, expression in names.values()]
    used.update(name for name in _SOURCES if any(f" {name}(" in text for text in functions))
    if used & {"convolution", "max_pooling", "average_pooling"}:
        used.add("windows_of")
    carried = [source for name, source in _SOURCES.items() if name in used]
    kind = "int64" if program.takes_indices else str(program.dtype)
    convert = f"np.asarray(x, np.{kind})" if not program.takes_indices else "_indices(x)"
    parts = [
        _HEAD.format(
            network=program.network,
            version=__version__,
            shape=batch_of(program.shape),
            out=batch_of(program.out),
            dtype=program.dtype,
            kind=kind,
            table=textwrap.indent("\n".join(program.table()), "    "),
            imports="".join(f"import {name}\n" for name, has in (("base64", arrays), ("math", "erf" in used)) if has),
            convert=convert,
            sample=program.shape,
            calls="\n".join(calls),
        ),
        *([_INDICES] if program.takes_indices else []),
        *functions,
        *carried,
        *([_PARAMETERS.format(dtype=program.dtype, code=program.dtype.newbyteorder("<").str)] if arrays else []),
    ]
    return "\n\n".join(parts) + "".join(f"\n{array}" for array in arrays)


_HEAD = '''"""{network} as fastbp {version} exported it: predict(x) needs NumPy alone.

    x  {shape}, {kind}
{table}
    y  {out}, {dtype}
"""

{imports}
import numpy as np


def predict(x):
    """The outputs {out} for a batch of samples {shape}."""
    x = {convert}
    if x.shape[1:] != {sample}:
        raise ValueError(f"x: expected a batch {shape}, got shape {{x.shape}}")
{calls}
    return x
'''

_INDICES = """def _indices(x):
    x = np.asarray(x)
    if x.size and x.dtype.kind not in "iu":
        raise TypeError(f"x: expected integers, got {x.dtype}")
    return x.astype(np.int64)
"""

_PARAMETERS = '''def _array(shape, text):
    """A parameter from its bytes in base64."""
    return np.frombuffer(base64.b64decode(text), "{code}").astype(np.{dtype}).reshape(shape)

'''

_SOURCES = {
    name: inspect.getsource(function)
    for name, function in vars(numpy_functions).items()
    if inspect.isfunction(function) and function.__module__ == numpy_functions.__name__
}


def _assigned(name: str, array: Array) -> str:
    """The statement that makes a parameter."""
    content = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    lines = "\n".join(content[start : start + 116] for start in range(0, len(content), 116))
    return f'{name} = _array({array.shape}, """\n{lines}\n""")'


def _arrays(step: steps.Step) -> Iterator[tuple[str, Array]]:
    for name, array in step.arrays():
        yield ("std", np.sqrt(array)) if name == "var" else (name, array)


def _function(name: str, expression: Expression) -> str:
    values, result = written(expression, _call, repr)
    lines = [f"t{number} = {value}" for number, value in enumerate(values, 1)] + [f"return {bare(result)}"]
    return f"def {name}(x):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"


def _call(function: str, operands: Sequence[str]) -> str:
    if function in SIGNS:
        return f"({operands[0]} {SIGNS[function]} {operands[1]})"
    if function == "negative":
        return f"(-{operands[0]})"
    prefix = "" if function == "erf" else "np."
    return f"{prefix}{function}({', '.join(map(bare, operands))})"


def _of_product(step: steps.Product, symbol: str) -> str:
    return f"x @ {symbol}_W" + ("" if step.b is None else f" + {symbol}_b")


def _of_correlation(step: steps.Correlation, symbol: str) -> str:
    return f"convolution(x, {symbol}_W, {symbol}_b, stride={step.stride}, pad={step.pad})"


def _of_pooling(step: steps.Pooled, _: str) -> str:
    height, width = step.window
    name = "max_pooling" if step.is_max else "average_pooling"
    return f"{name}(x, {height}, {width}, stride={step.stride}, pad={step.pad})"


def _of_normalized_over_sample(step: steps.NormalizedOverSample, symbol: str) -> str:
    return f"normalize_samples(x, {symbol}_gamma, {symbol}_beta, {step.eps!r})"


_CALLS: dict[type[steps.Step], Callable[[Any, str], str]] = {
    steps.Reshaped: lambda step, _: f"x.reshape(len(x), {', '.join(map(str, step.out))})",
    steps.Product: _of_product,
    steps.Lookup: lambda _, symbol: f"lookup(x, {symbol}_W)",
    steps.Correlation: _of_correlation,
    steps.Pooled: _of_pooling,
    steps.Normalized: lambda _, symbol: f"normalize(x, {symbol}_gamma, {symbol}_beta, {symbol}_mean, {symbol}_std)",
    steps.NormalizedOverSample: _of_normalized_over_sample,
    steps.SoftmaxAlong: lambda step, _: f"softmax(x, {step.axis + 1})",
}
