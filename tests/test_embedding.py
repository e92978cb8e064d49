"""Embedding: a row of W for each index, as the product of one-hot rows with W gives it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Sequential, gradient_check, use_reference
from fastbp.layers import Affine, Embedding, Flatten, SoftmaxWithLoss
from tests.compare import assert_same

INTEGERS = st.sampled_from(["int8", "uint8", "int64", "uint64", ">i4"])
FLOATS = st.sampled_from(["float16", "float32", "float64", ">f8", "int32"])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=3).map(tuple),
    st.tuples(st.integers(1, 9), st.integers(0, 6)),
    INTEGERS,
    FLOATS,
    st.integers(0, 2**31),
)
def test_embedding_is_the_product_of_one_hot_rows(shape, size, index_dtype, dtype, seed):
    rng, (V, D) = np.random.default_rng(seed), size
    x, W = np.array(rng.integers(0, V, shape), index_dtype, order="F"), (5 * rng.standard_normal(size)).astype(dtype)
    dout = (5 * rng.standard_normal((*shape, D))).astype(dtype)
    layer, rows = Embedding(W), x.reshape(-1).astype(int)
    one_hot = np.eye(V)[rows]
    assert_same(layer.forward(x), (one_hot @ W).reshape(*shape, D).astype(W.dtype.newbyteorder("=")))
    dx = layer.backward(dout)
    assert_same(layer.dW, (one_hot.T @ dout.reshape(x.size, D)).astype(W.dtype.newbyteorder("=")))
    assert dx.shape == shape
    assert not dx.any()
    with use_reference():
        again = Embedding(W)
        assert_same(again.forward(x), layer.forward(x))
        again.backward(dout)
        assert_same(layer.dW, again.dW)


def test_embedding_equals_that_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    x, W, dout = rng.integers(0, 6, (5, 4)), rng.random((6, 3)), rng.random((5, 4, 3))
    table = torch.tensor(W, requires_grad=True)
    out = torch.nn.functional.embedding(torch.tensor(x), table)
    out.backward(torch.tensor(dout))
    layer = Embedding(W)
    np.testing.assert_array_equal(layer.forward(x), out.detach().numpy())
    layer.backward(dout)
    np.testing.assert_allclose(layer.dW, table.grad.numpy(), rtol=1e-14)


def test_indices_changed_after_forward_do_no_harm():
    x, layer = np.array([1, 0, 1]), Embedding(np.ones((2, 3)))
    layer.forward(x)
    x[:] = 10**12
    layer.backward(np.ones((3, 3)))
    assert layer.dW.tolist() == [[1, 1, 1], [2, 2, 2]]


def network(dtype="float64"):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    return Sequential([Embedding(draw(9, 4)), Flatten(), Affine(draw(12, 3), np.zeros(3, dtype))], SoftmaxWithLoss())


def test_the_gradient_of_a_network_is_that_of_differences(rng):
    net = network()
    assert list(net.params) == ["W1", "W2", "b2"]
    gradient_check(net, rng.integers(0, 9, (5, 3)), rng.integers(0, 3, 5)).raise_if_failed()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("index_dtype", ["uint8", "int64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_gives_it_the_indices(dtype, index_dtype, rng, tmp_path):
    net, x, t = network(dtype), rng.integers(0, 9, (40, 3)).astype(index_dtype), rng.integers(0, 3, 40)
    before = net.loss(x, t)
    net.fit(x, t, epochs=5, batch_size=10, optimizer="adam", seed=0, validation_data=(x, t))
    assert net.loss(x, t) < before
    fastbp.save(net, tmp_path / "net")
    assert_same(fastbp.load(tmp_path / "net").predict(x), net.predict(x))


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        ([0, 3], ValueError, "x: expected indices from 0 to 2, as W has 3 rows, got 3"),
        ([[-1]], ValueError, "x: expected indices from 0 to 2, as W has 3 rows, got -1"),
        (np.array([2**64 - 1], np.uint64), ValueError, "got 18446744073709551615"),
        ([1.0], TypeError, "x: expected integers, the indices of rows of W, got float64"),
        ([True], TypeError, "x: expected integers"),
    ],
)
def test_what_is_no_index_is_refused(x, error, says):
    layer = Embedding(np.ones((3, 2)))
    with pytest.raises(error, match=says):
        layer.forward(x)
    with use_reference(), pytest.raises(error, match=says):
        layer.forward(x)
