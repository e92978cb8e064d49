"""Batch normalization: equal to its reference and to PyTorch, with running statistics that are kept and put back."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Sequential, gradient_check, use_reference
from fastbp.layers import Affine, BatchNormalization, Convolution, IdentityWithLoss, ReLU, SoftmaxWithLoss
from fastbp.optimizers import SGD
from tests.compare import assert_same

SHAPES = st.one_of(
    st.tuples(st.sampled_from([0, 1, 2, 7, 100, 200]), st.integers(1, 9)),
    st.tuples(st.sampled_from([0, 1, 2, 30, 100]), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
)
MEMORY = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "last axis first": lambda x: np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(-1, *range(x.ndim - 1)),
    "reversed": lambda x: x[:, ::-1].copy()[:, ::-1],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
}


def numbers(rng, dtype, *shape):
    return (2 * rng.standard_normal(shape) + 0.5).astype(dtype)


def trained(shape, dtype, memory, seed):
    """Everything that two batches and a prediction hand out."""
    rng, place = np.random.default_rng(seed), MEMORY[memory]
    layer, found = BatchNormalization(numbers(rng, dtype, shape[1]), numbers(rng, dtype, shape[1]), 0.75), []
    for train_flg in (True, True, False):
        found.append(layer.forward(place(numbers(rng, dtype, *shape)), train_flg))
        found.append(layer.backward(place(numbers(rng, dtype, *shape))))
        found += [layer.dgamma, layer.dbeta, layer.running_mean, layer.running_var]
    return found


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.sampled_from(["float32", "float64", "int64"]), st.sampled_from(list(MEMORY)), st.integers(0, 2**31))
def test_batch_normalization_equals_the_reference(shape, dtype, memory, seed):
    got = trained(shape, dtype, memory, seed)
    with use_reference():
        expected = trained(shape, dtype, memory, seed)
    magnitude = max(1.0, *(float(np.abs(each).max()) for each in expected if each.size))
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        # With one sample or two, dx is a difference of numbers that are a thousand times larger.
        tolerance = 1e-4 if dtype == "float32" else 1e-11
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * magnitude)


@settings(max_examples=60, deadline=None)
@given(SHAPES.filter(lambda shape: shape[0] > 1), st.booleans(), st.integers(0, 2**31))
def test_batch_normalization_equals_that_of_pytorch(shape, train_flg, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x, dout = numbers(rng, "float64", *shape), numbers(rng, "float64", *shape)
    gamma, beta, mean = (numbers(rng, "float64", shape[1]) for _ in range(3))
    var = 0.5 + rng.random(shape[1])
    given = [torch.tensor(array, requires_grad=True) for array in (x, gamma, beta)]
    out = torch.nn.functional.batch_norm(
        given[0], torch.tensor(mean), torch.tensor(var), *given[1:], training=train_flg, eps=1e-6
    )
    out.backward(torch.tensor(dout))
    layer = BatchNormalization(gamma, beta, 0.9, mean, var)
    got = layer.forward(x, train_flg), layer.backward(dout), layer.dgamma, layer.dbeta
    scale = 1e3 if len(x) < 7 else 1  # of few samples dx is a small difference of large numbers
    for mine, theirs in zip(got, (out.detach(), *(each.grad for each in given)), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-10, atol=1e-10 * scale)


def test_a_batch_gets_mean_beta_and_deviation_gamma(rng):
    layer = BatchNormalization(np.array([1.0, 3.0]), np.array([0.0, 5.0]))
    out = layer.forward(rng.standard_normal((500, 2)) * 7 + 2)
    np.testing.assert_allclose(out.mean(axis=0), [0, 5], atol=1e-12)
    np.testing.assert_allclose(out.std(axis=0), [1, 3], rtol=1e-6)
    images = layer.forward(rng.standard_normal((20, 2, 4, 5)) + 9)
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), [0, 5], atol=1e-12)


def test_the_first_batch_begins_the_running_statistics_and_later_ones_move_them():
    layer = BatchNormalization(np.ones(1), np.zeros(1), momentum=0.75)
    np.testing.assert_allclose(layer.forward([[3.0]], train_flg=False), [[3 / np.sqrt(1 + 1e-6)]])
    layer.forward([[0.0], [2.0]])
    assert (layer.running_mean, layer.running_var, layer.step) == ([1.0], [1.0], 1)
    layer.forward([[5.0], [5.0]])
    assert (layer.running_mean, layer.running_var, layer.step) == ([2.0], [0.75], 2)
    layer.forward(np.zeros((0, 1)))
    assert (layer.running_mean, layer.step) == ([2.0], 2)


def test_given_running_statistics_are_moved_from_the_first_batch_on():
    mean, var = np.array([8.0]), np.array([4.0])
    layer = BatchNormalization(np.ones(1), np.zeros(1), 0.5, mean, var)
    layer.forward([[0.0], [2.0]])
    assert (layer.running_mean, layer.running_var) == ([4.5], [2.5])
    assert (mean, var) == ([8.0], [4.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(dtype, rng):
    x, layer = rng.standard_normal((64, 8, 20, 20)).astype(dtype), BatchNormalization(*np.ones((2, 8), dtype))
    found = []
    for threads in (1, 2, 5):
        with fastbp.num_threads(threads):
            results = layer.forward(x), layer.backward(x), layer.dgamma, layer.dbeta
            found.append([result.tobytes() for result in results])
    assert found[0] == found[1] == found[2]


def network(dtype="float64"):
    rng = np.random.default_rng(0)
    draw = lambda *shape: (0.4 * rng.standard_normal(shape)).astype(dtype)  # noqa: E731
    ones, zeros = (lambda n: np.ones(n, dtype)), (lambda n: np.zeros(n, dtype))
    conv = Convolution(draw(3, 1, 3, 3), zeros(3))
    hidden = [conv, BatchNormalization(ones(3), zeros(3)), ReLU(), Affine(draw(27, 5), zeros(5))]
    return Sequential([*hidden, BatchNormalization(ones(5), zeros(5)), Affine(draw(5, 3), zeros(3))], SoftmaxWithLoss())


def data(n=24):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 1, 5, 5)), rng.integers(0, 3, n)


def test_the_gradient_of_a_network_is_that_of_differences_and_leaves_its_statistics():
    net = network()
    before = copy.deepcopy(net)
    gradient_check(net, *data(6)).raise_if_failed()
    assert set(net.params) == {"W1", "b1", "gamma2", "beta2", "W3", "b3", "gamma4", "beta4", "W5", "b5"}
    net.numerical_gradient(*data(6))
    mine, theirs = (list(each.layers.values())[1] for each in (net, before))
    assert mine.step <= theirs.step + 1


def statistics(net):
    return [
        (layer.running_mean.tolist(), layer.running_var.tolist(), layer.step)
        for layer in net.layers.values()
        if isinstance(layer, BatchNormalization)
    ]


def same(one, other):
    assert statistics(one) == statistics(other)
    for key, value in one.params.items():
        np.testing.assert_array_equal(value, other.params[key])


SETTINGS = {"batch_size": 8, "seed": 0, "optimizer": "adam"}
LAYER_BY_LAYER = pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")


@LAYER_BY_LAYER
def test_fit_trains_it_and_a_file_holds_it(tmp_path):
    (x, t), net = data(), network()
    net.fit(x, t, epochs=3, **SETTINGS)
    fastbp.save(net, tmp_path / "net")
    loaded = fastbp.load(tmp_path / "net")
    same(net, loaded)
    np.testing.assert_array_equal(net.predict(x), loaded.predict(x))
    for each in (net, loaded):
        each.fit(x, t, epochs=1, **SETTINGS)
    same(net, loaded)


@LAYER_BY_LAYER
def test_a_resumed_run_is_the_whole_run(tmp_path):
    x, t = data()
    whole, halved, resumed = network(), network(), network()
    whole.fit(x, t, epochs=4, **SETTINGS)
    halved.fit(x, t, epochs=2, checkpoint=tmp_path / "run", **SETTINGS)
    resumed.fit(x, t, epochs=4, resume=tmp_path / "run", **SETTINGS)
    same(whole, resumed)


@LAYER_BY_LAYER
def test_patience_puts_the_statistics_of_the_best_epoch_back():
    (x, t), found = data(), []
    net = network()
    history = net.fit(
        x,
        t,
        epochs=12,
        validation_data=data(9),
        patience=2,
        on_epoch=lambda _: found.append(statistics(net)),
        **SETTINGS,
    )
    best = int(np.argmin(history["val_loss"]))
    assert [each[:2] for each in statistics(net)] == [each[:2] for each in found[best]]


@LAYER_BY_LAYER
def test_a_step_that_is_not_done_leaves_the_statistics():
    (x, t), net = data(8), network()
    net.fit(x, t, epochs=1, **SETTINGS)
    before = statistics(net)
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(FloatingPointError):
        net.fit(x, t, epochs=1, batch_size=8, optimizer=SGD(0.1), seed=0)
    assert statistics(net) == before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BatchNormalization(np.ones((2, 2)), np.zeros(2)), ValueError, "gamma: expected 1 dimension"),
        (lambda: BatchNormalization(np.ones(2), np.zeros(3)), ValueError, r"beta: expected shape \(2,\), as gamma"),
        (lambda: BatchNormalization([1.0], np.zeros(1)), TypeError, "gamma: expected a NumPy array"),
        (lambda: BatchNormalization(np.ones(2), np.zeros(2), 1.0), ValueError, "momentum: expected a number"),
        (lambda: BatchNormalization(np.ones(2), np.zeros(2), 0.9, np.zeros(1)), ValueError, "running_mean: expected"),
    ],
)
def test_what_is_no_layer_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_does_not_fit_is_refused_and_leaves_the_layer_as_it_was(rng):
    layer = BatchNormalization(np.ones(3), np.zeros(3))
    with pytest.raises(RuntimeError, match="expected forward to have run"):
        layer.backward(np.ones((2, 3)))
    x = rng.standard_normal((4, 3))
    expected, before = layer.backward(layer.forward(x)), layer.running_mean
    for bad in (x[:, :2], x[0], x.reshape(4, 3, 1)):
        with pytest.raises(ValueError, match=r"x: expected \(N, 3\) or images \(N, 3, H, W\)"):
            layer.forward(bad)
    with pytest.raises(TypeError, match="x: expected real numbers"):
        layer.forward(x.astype(complex))
    with pytest.raises(ValueError, match=r"dout: expected shape \(4, 3\)"):
        layer.backward(x[:1])
    assert layer.running_mean is before
    assert expected.shape == (4, 3)


def test_a_stack_for_numbers_predicts_the_same_for_a_sample_alone():
    rng = np.random.default_rng(0)
    net = Sequential(
        [BatchNormalization(np.ones(3), np.zeros(3)), Affine(rng.random((3, 2)), np.zeros(2))], IdentityWithLoss()
    )
    x = rng.random((5, 3))
    net.gradient(x, rng.random((5, 2)))
    assert_same(net.predict(x[:1]), net.predict(x)[:1])
