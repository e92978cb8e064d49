"""Exported networks predict what the network does, and what cannot be exported is refused with its name."""

import inspect
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from bench import cases
from fastbp import Sequential, export
from fastbp.export.walk import walk
from fastbp.layers import (
    IdentityWithLoss,
    MatMul,
)
from fastbp.ops.contract import LAYERS
from tests.exporting import assert_c_close, assert_close, by_c, by_numpy, by_onnx, networks

EXAMPLES = {"derandomize": True, "database": None, "deadline": None}
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
WRITERS = [export.to_onnx, export.to_c, export.to_numpy]
BY_WRITER = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


def stands_in_a_network(kind):
    """Whether `forward` takes one array, as that of a layer between others."""
    arguments = [name for name in inspect.signature(kind.forward).parameters if name not in ("self", "train_flg")]
    return len(arguments) == 1


def kind_of(case):
    return type(case.layer(SMALL))


SMALL = cases.Draw("float32", (5, 6, 4))
KINDS = [kind for kind in LAYERS if stands_in_a_network(kind)]
LAYER_CASES = [case for case in cases.LAYERS if stands_in_a_network(kind_of(case))]

# Operators that onnxruntime has in float32 alone.
FLOAT32_ALONE = {"Convolution", "GELU"}


def test_every_kind_of_layer_has_a_case():
    assert {kind_of(case) for case in LAYER_CASES} == set(KINDS)
    assert len(KINDS) >= 20


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)
def test_every_kind_of_layer_is_exported_to_every_target(case, dtype, tmp_path):
    draw = cases.Draw(dtype, (5, 6, 4))
    (x,) = case.inputs(draw)
    if x.dtype.kind == "f":
        x = x.astype(np.float32).astype(dtype)  # as C takes it
    stack = [case.layer(draw)]
    if x.ndim == 2 and x.dtype.kind == "f":
        stack.insert(0, MatMul(np.eye(x.shape[1], dtype=dtype)))  # its parameters say the dtype
    network = Sequential(stack, IdentityWithLoss())
    expected, shape = network.predict(x), x.shape[1:]
    assert_c_close(by_c(network, tmp_path, x, sample_shape=shape), expected, 2e-6)
    if walk(network, shape).dtype != dtype:
        return  # it has no parameters
    assert_close(by_numpy(network, tmp_path, x, sample_shape=shape), expected, TOLERANCE[dtype])
    if dtype == "float32" or case.name not in FLOAT32_ALONE:
        assert_close(by_onnx(network, tmp_path, x, sample_shape=shape), expected, TOLERANCE[dtype])


@settings(max_examples=100, **EXAMPLES)
@given(case=networks())
def test_any_network_predicts_the_same_in_onnxruntime(case):
    network, x = case
    with TemporaryDirectory() as folder:
        got = by_onnx(network, Path(folder), x, sample_shape=x.shape[1:])
    assert got.dtype == np.float32
    assert_close(got, network.predict(x), 2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=100, **EXAMPLES)
@given(data=strategies.data())
def test_any_network_predicts_the_same_in_numpy(dtype, data):
    network, x = data.draw(networks(dtype))
    with TemporaryDirectory() as folder:
        got = by_numpy(network, Path(folder), x, sample_shape=x.shape[1:])
    assert got.dtype == dtype
    assert_close(got, network.predict(x), TOLERANCE[dtype])


@settings(max_examples=25, **EXAMPLES)
@given(case=networks())
def test_any_network_predicts_the_same_in_c(case):
    network, x = case
    with TemporaryDirectory() as folder:
        got = by_c(network, Path(folder), x, sample_shape=x.shape[1:])
    assert_c_close(got, network.predict(x), 2e-6)
