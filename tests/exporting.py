"""Random networks, and exported files as another program uses them."""

from __future__ import annotations

import copy
import ctypes
import math
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from fastbp import Sequential, export
from fastbp.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    LayerNormalization,
    MatMul,
    Pooling,
    Reshape,
    Softmax,
    SoftmaxWithLoss,
)
from fastbp.ops.contract import ACTIVATIONS, LAYERS, Shape, settings_of

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]


def compiler(name: str) -> str:
    """A compiler; a test without it is skipped."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


def by_numpy(network: Any, folder: Path, x: Any, **arguments: Any) -> Any:
    """The outputs of the Python file."""
    export.to_numpy(network, folder / "network.py", **arguments)
    return runpy.run_path(str(folder / "network.py"))["predict"](x)


def by_onnx(network: Any, folder: Path, x: Any, **arguments: Any) -> Any:
    """The outputs of the ONNX model in onnxruntime."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    export.to_onnx(network, folder / "network.onnx", **arguments)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "network.onnx", options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def by_c(network: Any, folder: Path, x: Any, *flags: str, compiled_by: str = "gcc", **arguments: Any) -> Any:
    """The outputs of the C file, a call for each sample."""
    export.to_c(network, folder / "network.c", **arguments)
    return call(compiled(folder / "network.c", *flags, compiled_by=compiled_by), x)


def compiled(source: Path, *flags: str, compiled_by: str = "gcc") -> Any:
    """The library of a C file. Each has a path of its own, as a process loads a path once."""
    library = source.with_name(f"{source.stem}-{len([*source.parent.iterdir()])}.so")
    command = [compiler(compiled_by), *STRICT, *flags, "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def call(library: Any, x: Any) -> Any:
    """The outputs for samples x, as rows, with memory behind them that must stay as it is."""
    rows = []
    for sample in np.ascontiguousarray(x, np.float32).reshape(len(x), -1):
        out = np.full(4096, 7, np.float32)
        library.predict(sample.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
        rows.append(out)
    return np.array(rows)


def assert_close(got: Any, expected: Any, tolerance: float) -> None:
    """Equal in shape, and in values relative to the largest of them."""
    assert got.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def assert_c_close(got: Any, expected: Any, tolerance: float) -> None:
    """The same for what `call` returned; nothing behind the outputs was written."""
    rows = expected.reshape(len(expected), -1)
    assert_close(got[:, : rows.shape[1]], rows, tolerance)
    assert (got[:, rows.shape[1] :] == 7).all()


class Builder:
    """Draws layers that fit each other, with parameters of a seed."""

    def __init__(self, draw: Any, dtype: str) -> None:
        self.draw, self.dtype = draw, np.dtype(dtype)
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def normal(self, *shape: int) -> Any:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def spread(self, shape: int | Shape) -> Any:
        return self.rng.uniform(0.5, 2, shape).astype(self.dtype)

    def weights(self, D: int, M: int) -> Any:
        """(D, M); sums over D are about as large as what is summed."""
        return self.normal(D, M) / self.dtype.type(D**0.5)

    def layer(self, shape: Shape) -> Any:
        """A layer for samples of a shape."""
        kinds = [self.affine, self.activation, self.dropout, self.batch_normalization, self.layer_normalization]
        images = [self.convolution, self.convolution, self.pooling, self.flatten]
        return self.draw(st.sampled_from(kinds + (images if len(shape) == 3 else [self.matmul, self.softmax])))(shape)

    def affine(self, shape: Shape) -> Any:
        M = self.draw(st.integers(1, 9))
        return Affine(self.weights(math.prod(shape), M), self.normal(M))

    def matmul(self, shape: Shape) -> Any:
        return MatMul(self.weights(math.prod(shape), self.draw(st.integers(1, 9))))

    def softmax(self, shape: Shape) -> Any:
        return Softmax()

    def dropout(self, shape: Shape) -> Any:
        return Dropout(0.3, seed=0)

    def flatten(self, shape: Shape) -> Any:
        C, H, W = shape
        return self.draw(st.sampled_from([Flatten(), Reshape(-1), Reshape((1, H, C * W))]))

    def batch_normalization(self, shape: Shape) -> Any:
        C = shape[0]
        return BatchNormalization(self.spread(C), self.normal(C), 0.9, self.normal(C), self.spread(C))

    def layer_normalization(self, shape: Shape) -> Any:
        axes = shape[-self.draw(st.integers(1, len(shape))) :]
        return LayerNormalization(self.spread(axes), self.normal(*axes))

    def pooling(self, shape: Shape) -> Any:
        sides = st.integers(1, min(3, *shape[1:]))
        window = self.draw(st.tuples(sides, sides))
        pad = self.draw(st.integers(0, min(window) - 1))
        return Pooling(*window, self.draw(st.integers(1, 3)), pad, self.draw(st.sampled_from(["max", "average"])))

    def convolution(self, shape: Shape) -> Any:
        stride, pad, F = (self.draw(st.integers(*ends)) for ends in ((1, 3), (0, 2), (1, 4)))
        sides = st.integers(1, min(3, *(size + 2 * pad for size in shape[1:])))
        window = self.draw(st.tuples(sides, sides))
        W = self.weights(shape[0] * math.prod(window), F).T.reshape(F, shape[0], *window)
        return Convolution(W, self.normal(F), stride, pad)

    def activation(self, shape: Shape) -> Any:
        record = ACTIVATIONS[self.draw(st.sampled_from(sorted(ACTIVATIONS)))]
        settings = [self.draw(st.sampled_from([0.0, 0.01, 0.3, 1.5])) for _ in settings_of(record, record.layer())]
        return record.layer(*settings)


def is_well_conditioned(network: Sequential, x: Any) -> bool:
    """Whether float32 predicts about what float64 does.

    Else the normalization of numbers that are nearly alike makes much of their last digits, of which all targets have
    others.
    """
    exact = copy.deepcopy(network)
    for layer in exact.layers.values():
        for name in LAYERS[type(layer)].arrays:
            setattr(layer, name, getattr(layer, name).astype(np.float64))
    expected = exact.predict(x.astype(np.float64))
    error = np.abs(network.predict(x) - expected).max(initial=0)
    return bool(error <= 5e-7 * max(1.0, np.abs(expected).max(initial=0)))


@st.composite
def networks(draw: Any, dtype: str = "float32") -> tuple[Sequential, Any]:
    """A network with a convolution or without, with a normalization, and samples for it."""
    build = Builder(draw, dtype)
    images = st.tuples(st.integers(1, 3), st.integers(3, 8), st.integers(3, 8))
    shape: Shape = draw(st.one_of(images, st.tuples(st.integers(1, 12))))
    x = build.normal(draw(st.integers(1, 4)), *shape)
    first = [build.batch_normalization, build.convolution] if len(shape) == 3 else [build.batch_normalization]
    layers: list[Any] = []
    for kind in [*first, *[build.layer] * draw(st.integers(1, 6))]:
        layers.append(kind(shape))
        shape = Sequential(layers, SoftmaxWithLoss()).predict(x).shape[1:]
    network = Sequential(layers, SoftmaxWithLoss())
    assume(is_well_conditioned(network, x))
    return network, x
