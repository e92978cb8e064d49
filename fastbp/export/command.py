"""What `fastbp export` does."""

from __future__ import annotations

from pathlib import Path

from fastbp.export.c_file import to_c
from fastbp.export.numpy_file import to_numpy
from fastbp.export.onnx_file import to_onnx
from fastbp.ops.contract import Shape
from fastbp.saving import load

TARGETS = {"onnx": (to_onnx, ".onnx"), "c": (to_c, ".c"), "numpy": (to_numpy, ".py")}
"""What writes a file, and how its name ends, by the name for --to."""


def export(model: Path, target: str, output: Path | None, sample_shape: Shape | None, end: str | None) -> Path:
    """Write a saved network in another form, and return the path of the file.

    Raises
    ------
    ImportError, OSError, ValueError
        If the network cannot be read, exported or written.
    """
    write, suffix = TARGETS[target]
    path = model.with_suffix(suffix) if output is None else output
    network = load(model)
    if path.exists() and path.samefile(model):
        raise ValueError(f"-o: expected another file than the saved network, got {path} for both; choose a name")
    try:
        write(network, path, sample_shape=sample_shape, end=end)
    except TypeError as error:  # of a layer that stands in no network, but may in a file
        raise ValueError(str(error)) from None
    return path
