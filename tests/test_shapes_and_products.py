"""MatMul is Affine without its bias; Reshape and Flatten change the shape of each sample and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Sequential, gradient_check
from fastbp.layers import Affine, Convolution, Flatten, MatMul, Reshape, SoftmaxWithLoss, Tanh
from tests.compare import assert_same


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(0, 20), st.integers(0, 30), st.integers(0, 20)),
    *(st.sampled_from(["float16", "float32", "float64", "int32", "uint8", ">f4"]) for _ in range(2)),
    st.integers(0, 2**31),
)
def test_matmul_is_affine_with_a_bias_of_zeros(size, x_dtype, W_dtype, seed):
    (N, D, M), rng = size, np.random.default_rng(seed)
    x, W = (3 * rng.random((N, D))).astype(x_dtype), (3 * rng.random((D, M))).astype(W_dtype)
    product, affine = MatMul(W), Affine(W, np.zeros(M, W_dtype))
    out = product.forward(x)
    assert_same(out, affine.forward(x))
    assert_same(product.backward(out), affine.backward(out))
    assert_same(product.dW, affine.dW)


def test_matmul_equals_that_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    x, W, dout = rng.random((7, 5)), rng.random((5, 3)), rng.random((7, 3))
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, W)]
    out = tensors[0] @ tensors[1]
    out.backward(torch.tensor(dout))
    layer = MatMul(W)
    np.testing.assert_allclose(layer.forward(x), out.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(layer.backward(dout), tensors[0].grad.numpy(), rtol=1e-13)
    np.testing.assert_allclose(layer.dW, tensors[1].grad.numpy(), rtol=1e-13)


def test_matmul_takes_one_sample_and_images(rng):
    layer = MatMul(rng.random((12, 5)))
    images = rng.random((3, 2, 2, 3))
    out = layer.forward(images)
    assert layer.backward(out).shape == images.shape
    assert_same(layer.forward(images[0].reshape(12)), out[0])
    assert_same(layer.backward(out[0]), layer.W @ out[0])
    assert_same(layer.dW, np.outer(images[0], out[0]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=4),
    st.sampled_from(["float32", "int8", ">f8", "bool"]),
    st.sampled_from(["C", "F"]),
)
def test_reshape_and_flatten_are_those_of_numpy(shape, dtype, order):
    x = np.array(np.arange(np.prod(shape)).reshape(shape), dtype, order=order)
    sample = tuple(shape[1:])
    flat, back = Flatten(), Reshape(sample)
    rows = flat.forward(x)
    assert_same(rows, x.reshape(shape[0], int(np.prod(sample))).astype(x.dtype.newbyteorder("=")))
    assert_same(back.forward(rows), np.asarray(x, x.dtype.newbyteorder("=")))
    assert_same(flat.backward(rows), back.forward(rows))
    assert_same(back.backward(x), rows)


def test_one_axis_is_what_is_left():
    x = np.arange(24.0).reshape(2, 12)
    assert Reshape((3, -1)).forward(x).shape == (2, 3, 4)
    assert Reshape(-1).forward(x[:0]).shape == (0, 12)
    assert Reshape([2, 6]).shape == (2, 6)


def test_one_sample_goes_through_reshape_and_flatten_as_through_affine(rng):
    x, layer = rng.random(12), Reshape((3, -1))
    assert_same(layer.forward(x), x.reshape(3, 4))
    assert_same(layer.backward(x.reshape(3, 4)), x)
    assert_same(Flatten().forward(x), x)
    affine = Affine(rng.random((12, 5)), rng.random(5))
    np.testing.assert_array_equal(Sequential([Flatten(), affine], SoftmaxWithLoss()).predict(x), affine.forward(x))


def network():
    rng = np.random.default_rng(0)
    layers = [
        Reshape((1, 4, -1)), Convolution(rng.standard_normal((2, 1, 3, 3)), np.zeros(2)), Tanh(), Flatten(),
        MatMul(0.3 * rng.standard_normal((12, 5))), Tanh(), MatMul(rng.standard_normal((5, 3))),
    ]  # fmt: skip
    return Sequential(layers, SoftmaxWithLoss())


def test_the_gradient_of_a_network_is_that_of_differences(rng):
    net = network()
    assert list(net.params) == ["W1", "b1", "W2", "W3"]
    assert [net.params.decays(key) for key in net.params] == [True, False, True, True]
    gradient_check(net, rng.standard_normal((4, 20)), rng.integers(0, 3, 4)).raise_if_failed()


@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_fit_trains_it_and_a_file_holds_it(rng, tmp_path):
    net, x, t = network(), rng.standard_normal((30, 20)), rng.integers(0, 3, 30)
    before = net.loss(x, t)
    net.fit(x, t, epochs=5, batch_size=10, optimizer="adam", seed=0)
    assert net.loss(x, t) < before
    fastbp.save(net, tmp_path / "net")
    loaded = fastbp.load(tmp_path / "net")
    assert loaded.layers["Reshape1"].shape == (1, 4, -1)
    assert_same(loaded.predict(x), net.predict(x))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: MatMul([[1.0]]), TypeError, "W: expected a NumPy array"),
        (lambda: MatMul(np.ones(3)), ValueError, "W: expected 2 dimensions"),
        (lambda: MatMul(np.ones((3, 2))).forward(np.ones((2, 4))), ValueError, r"x: expected one sample \(3,\)"),
        (lambda: Reshape((-1, -1)), ValueError, "shape: expected -1 at most once"),
        (lambda: Reshape((-2,)), ValueError, "shape: expected at least -1, got -2"),
        (lambda: Reshape(2.5), TypeError, "shape: expected an integer, got float"),
        (lambda: Reshape((2, 3)).forward(np.ones((4, 5))), ValueError, r"fill the shape \(2, 3\), got shape \(4, 5\)"),
        (lambda: Reshape((2, -1)).forward(np.ones((4, 5))), ValueError, r"fill the shape \(2, -1\)"),
        (lambda: Flatten().forward(3.0), ValueError, "x: expected samples"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
