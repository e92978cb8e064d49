"""Layer normalization: each sample alone gets mean 0 and variance 1, as its reference and PyTorch have it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Sequential, gradient_check, use_reference
from fastbp.layers import Affine, LayerNormalization, SoftmaxWithLoss, Tanh
from tests.compare import assert_same

SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)
DTYPES = st.sampled_from(["float16", "float32", "float64", "int64", ">f4"])


def everything(layer, x, dout):
    return layer.forward(x), layer.backward(dout), layer.dgamma, layer.dbeta


def numbers(rng, dtype, shape):
    return (3 * rng.standard_normal(shape) + 0.5).astype(dtype)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100), SHAPES, st.integers(1, 3), DTYPES, st.sampled_from("CF"), st.integers(0, 2**31))
def test_layer_normalization_equals_the_reference(N, shape, axes, dtype, order, seed):
    rng, shape = np.random.default_rng(seed), (N, *shape)
    x, dout = (np.array(numbers(rng, dtype, shape), order=order) for _ in range(2))
    gamma, beta = (numbers(rng, dtype, shape[1:][-axes:]) for _ in range(2))
    layer = LayerNormalization(gamma, beta, eps=rng.choice([0.1, 1e-5]).item())
    got = everything(layer, x, dout)
    with use_reference():
        expected = everything(layer, x, dout)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        # Of few features dx is a small difference of large numbers.
        tolerance = {"float16": 0.1, "float32": 3e-4, ">f4": 3e-4}.get(dtype, 1e-9)
        magnitude = max(1.0, float(np.abs(theirs).max(initial=0)))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * magnitude)


@pytest.mark.parametrize("shape", [(5, 7), (1, 12), (4, 3, 8), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_normalization_equals_that_of_pytorch(shape, axes, eps, rng):
    torch = pytest.importorskip("torch")
    inner = shape[-axes:]
    x, dout, gamma, beta = (numbers(rng, "float64", each) for each in (shape, shape, inner, inner))
    given = [torch.tensor(array, requires_grad=True) for array in (x, gamma, beta)]
    out = torch.nn.functional.layer_norm(given[0], inner, given[1], given[2], eps)
    out.backward(torch.tensor(dout))
    got = everything(LayerNormalization(gamma, beta, eps), x, dout)
    for mine, theirs in zip(got, (out.detach(), *(each.grad for each in given)), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-10, atol=1e-11)


def test_numbers_that_are_all_alike_become_beta_unless_eps_is_0(rng):
    beta, x = rng.standard_normal(8), np.full((2, 8), 3.0)
    layer = LayerNormalization(np.ones(8), beta)
    np.testing.assert_array_equal(layer.forward(x), [beta, beta])
    layer.eps = 0
    assert np.isnan(layer.forward(x)).all()


def test_a_sample_does_not_depend_on_the_batch(rng):
    layer, x = LayerNormalization(rng.random(9), rng.random(9)), rng.random((6, 9))
    assert_same(layer.forward(x)[2], layer.forward(x[2]))
    np.testing.assert_array_equal(layer.forward(x)[2:3], layer.forward(x[2:3]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(dtype, rng):
    x, found = rng.standard_normal((400, 300)).astype(dtype), []
    layer = LayerNormalization(*rng.random((2, 300)).astype(dtype))
    for threads in (1, 2, 5):
        with fastbp.num_threads(threads):
            found.append([result.tobytes() for result in everything(layer, x, x)])
    assert found[0] == found[1] == found[2]


def network():
    rng = np.random.default_rng(0)
    layers = [
        Affine(rng.standard_normal((6, 5)), np.zeros(5)), LayerNormalization(np.ones(5), np.zeros(5)), Tanh(),
        Affine(rng.standard_normal((5, 3)), np.zeros(3)),
    ]  # fmt: skip
    return Sequential(layers, SoftmaxWithLoss())


def test_the_gradient_of_a_network_is_that_of_differences(rng):
    net = network()
    assert list(net.params) == ["W1", "b1", "gamma2", "beta2", "W3", "b3"]
    assert not net.params.decays("gamma2")
    gradient_check(net, rng.standard_normal((4, 6)), rng.integers(0, 3, 4)).raise_if_failed()


@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_fit_trains_it_and_a_file_holds_it(rng, tmp_path):
    net, x, t = network(), rng.standard_normal((30, 6)), rng.integers(0, 3, 30)
    net.fit(x, t, epochs=3, batch_size=10, optimizer="adam", seed=0)
    assert np.any(net.params["gamma2"] != 1)
    net.layers["LayerNormalization1"].eps = 0.25
    fastbp.save(net, tmp_path / "net")
    assert_same(fastbp.load(tmp_path / "net").predict(x), net.predict(x))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: LayerNormalization([1.0], np.zeros(1)), TypeError, "gamma: expected a NumPy array"),
        (lambda: LayerNormalization(np.ones(()), np.zeros(())), ValueError, "gamma: expected at least 1 dimension"),
        (lambda: LayerNormalization(np.ones(2), np.zeros(3)), ValueError, r"beta: expected shape \(2,\), as gamma"),
        (
            lambda: LayerNormalization(np.ones(2), np.ones(2), -1),
            ValueError,
            "eps: expected a number that is at least 0",
        ),
        (lambda: LayerNormalization(np.ones(2), np.ones(2), "0"), TypeError, "eps: expected a number, got str"),
        (lambda: layer_of(2).forward(np.ones((2, 3))), ValueError, r"x: expected the shape of gamma \(2,\) at its end"),
        (lambda: layer_of(2).forward(1.0), ValueError, r"x: expected the shape of gamma \(2,\) at its end"),
        (lambda: layer_of(2, 3).forward(np.ones(3)), ValueError, r"x: expected the shape of gamma \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()


def layer_of(*shape):
    return LayerNormalization(np.ones(shape), np.zeros(shape))
