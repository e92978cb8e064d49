"""`fit`, the loop of gradients and updates, and the reference train any convolutional network alike."""

import functools
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from fastbp import Sequential, num_threads, use_reference
from fastbp.layers import (
    GELU,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    IdentityWithLoss,
    LayerNormalization,
    MatMul,
    Pooling,
    ReLU,
    Reshape,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.ops.contract import ACTIVATIONS
from fastbp.optimizers import OPTIMIZERS, Adam

# Rates are drawn, and some are too large.
pytestmark = pytest.mark.filterwarnings("ignore:fit. expected a loss that falls")

CLASSES = 3
STEPS = 50


def drawn(rng, *shape):
    return rng.standard_normal(shape) / max(1.0, np.prod(shape[1:])) ** 0.5


def convolution(FN, FH, FW, stride, pad):
    def make(rng, shape):
        if len(shape) != 3 or shape[1] + 2 * pad < FH or shape[2] + 2 * pad < FW:
            return None
        return Convolution(drawn(rng, FN, shape[0], FH, FW), 0.1 * drawn(rng, FN), stride, pad)

    return make


def pooling(pool_h, pool_w, stride, pad, mode):
    pad = min(pad, pool_h - 1, pool_w - 1)

    def make(rng, shape):
        if len(shape) != 3 or shape[1] + 2 * pad < pool_h or shape[2] + 2 * pad < pool_w:
            return None
        return Pooling(pool_h, pool_w, stride, pad, mode)

    return make


def affine(M):
    return lambda rng, shape: Affine(drawn(rng, M, int(np.prod(shape))).T.copy(), 0.1 * drawn(rng, M))


def matmul(M):
    return lambda rng, shape: MatMul(drawn(rng, M, int(np.prod(shape))).T.copy())


def batch_normalization(momentum):
    def make(rng, shape):
        if len(shape) == 2:
            return None
        return BatchNormalization(1 + drawn(rng, shape[0]), drawn(rng, shape[0]), momentum)

    return make


def layer_normalization(axes):
    return lambda rng, shape: LayerNormalization(1 + drawn(rng, *shape[-axes:]), drawn(rng, *shape[-axes:]))


def dropout(ratio, seed):
    return lambda rng, shape: Dropout(ratio, seed)


def other(kind):
    return lambda rng, shape: kind()


def turned(rng, shape):
    return Reshape(shape[::-1])


def layers():
    """Functions that make a layer for samples of a shape; None where there is none."""
    few = st.integers(1, 3)
    return st.one_of(
        st.builds(convolution, st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), few, st.integers(0, 3)),
        st.builds(convolution, st.integers(1, 9), few, few, st.just(1), st.integers(0, 2)),
        st.builds(pooling, few, few, few, st.integers(0, 1), st.sampled_from(["max", "average"])),
        st.builds(affine, st.integers(1, 20)),
        st.builds(matmul, st.integers(1, 20)),
        st.builds(batch_normalization, st.sampled_from([0.0, 0.9])),
        st.builds(layer_normalization, few),
        st.builds(dropout, st.floats(0, 0.6), st.integers(0, 2**63 - 1)),
        st.builds(other, st.sampled_from([Flatten, *(record.layer for record in ACTIVATIONS.values())])),
        st.just(turned),
    )


@st.composite
def groups(draw):
    """One such function, or those of a convolution, an activation and a pooling that may be computed together."""
    if draw(st.integers(0, 3)):
        return [draw(layers())]
    size, few, pool = draw(st.tuples(st.integers(1, 17), st.integers(1, 3), st.integers(1, 3)))
    activations = [other(record.layer) for record in ACTIVATIONS.values()]
    before, after = (draw(st.lists(st.sampled_from(activations), max_size=1)) for _ in range(2))
    first = convolution(size, few, few, draw(st.integers(1, 2)), draw(st.integers(0, 1)))
    return [first, *before, pooling(pool, pool, pool, 0, "max"), *after]


@st.composite
def images(draw):
    """The first parts of a network, and a function that draws its samples."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(3, 9), st.integers(3, 9)))
    return [], lambda rng, samples: rng.standard_normal((samples, *shape))


def batches():
    """A size of batches, and a number of samples whose last batch is smaller."""
    sizes = st.one_of(st.integers(1, 60), st.integers(48, 60))
    return sizes.flatmap(lambda size: st.tuples(st.just(size), st.integers(size, 2 * size)))


def large_batches():
    """Batches that are divided into fewer groups than a smaller last one may be."""
    return st.integers(257, 700).flatmap(lambda size: st.tuples(st.just(size), st.integers(size + 1, 2 * size)))


@st.composite
def cases(draw, beginnings=images, batches=batches):
    """A function that makes the network, one that makes the optimizer, and the arguments of `fit`."""
    first, drawn_samples = draw(beginnings())
    parts = [part for group in draw(st.lists(groups(), min_size=1, max_size=5)) for part in group]
    weight_seed = draw(st.integers(0, 2**32))
    loss = draw(st.sampled_from([SoftmaxWithLoss, IdentityWithLoss]))
    batch_size, samples = draw(batches())
    data_seed, is_weighted = draw(st.tuples(st.integers(0, 2**32), st.booleans()))
    kind, rate, decay = draw(
        st.tuples(st.sampled_from(OPTIMIZERS), st.floats(1e-4, 5e-3), st.sampled_from([0.0, 0.01]))
    )

    def data():
        rng = np.random.default_rng(data_seed)
        t = rng.integers(0, CLASSES, samples) if loss is SoftmaxWithLoss else rng.standard_normal((samples, CLASSES))
        weights = rng.random(samples) + 0.1 if is_weighted else None
        return {"x": drawn_samples(rng, samples), "t": t, "batch_size": batch_size, "sample_weight": weights}

    def network():
        rng, stack = np.random.default_rng(weight_seed), []
        x = np.zeros_like(drawn_samples(np.random.default_rng(0), 2))
        for part in (*first, *parts, affine(CLASSES)):
            layer = part(rng, run(stack, x).shape[1:])
            if layer is not None:
                stack.append(layer)
        stack = [layer for layer in stack if reset(layer)]
        return Sequential(stack, loss())

    # A bias before a normalization has the gradient 0, up to rounding, which 1/eps would make larger.
    more = {"eps": 1e-2} if "eps" in kind().setting_names() else {}
    return network, lambda: kind(rate, weight_decay=decay, **more), data


def run(stack, x):
    for layer in stack:
        x = layer.forward(x)
    return x


def described(layer):
    shapes = [np.shape(getattr(layer, name)) for name in getattr(layer, "parameter_names", ())]
    numbers = {name: value for name, value in vars(layer).items() if isinstance(value, int | float | str)}
    return type(layer).__name__, *shapes[:1], numbers


def reset(layer):
    """Undo what finding the shapes changed."""
    if isinstance(layer, Dropout | BatchNormalization):
        layer.step = 0
    return True


def looped(network, optimizer, x, t, batch_size, sample_weight, steps=STEPS):
    """Losses of so many steps, as `fit` draws their batches."""
    rng, losses = np.random.default_rng(0), []
    while True:
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            given = {} if sample_weight is None else {"sample_weight": sample_weight[batch]}
            optimizer.update(network.params, network.gradient(x[batch], t[batch], **given))
            losses.append(network.last_layer.loss)
        if len(losses) >= steps:
            return losses


def fitted(network, optimizer, arguments, threads=1, epochs=None):
    """Losses of the steps."""
    steps = -(-len(arguments["x"]) // arguments["batch_size"])
    with num_threads(threads), warnings.catch_warnings():
        warnings.filterwarnings("error", message="fit: this network is trained layer by layer")
        network.fit(**arguments, epochs=epochs or -(-STEPS // steps), optimizer=optimizer, seed=0, record_steps=True)
    return network.history.steps


def arrays(network, optimizer):
    """All that training changes."""
    found = dict(network.params)
    for name in optimizer.state_names():
        found |= {(name, key): value for key, value in (getattr(optimizer, name) or {}).items()}
    for key, layer in network.layers.items():
        for name in ("step", "running_mean", "running_var"):
            if hasattr(layer, name):
                found[key, name] = np.array(getattr(layer, name))
    return found


def assert_alike(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for key, value in got.items():
        assert value.shape == expected[key].shape, key
        assert value.dtype == expected[key].dtype, key
        largest = np.max(np.abs(expected[key]), initial=1.0)
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=tolerance * largest, err_msg=str(key))


def assert_trained_alike(got, expected, case, train):
    """Compare two trainings of a network to 1e-10, where the training itself is that stable.

    Normalizations of a few numbers enlarge rounding by orders of magnitude. Where the parameters differ, `train` says
    whether the case can tell: x that is larger by one bit must not change them as much. More than 1e-6 is always wrong.
    """
    assert_alike(got, expected, 1e-6)
    try:
        assert_alike(got, expected, 1e-10)
    except AssertionError:
        make_network, make_optimizer, make_data = case
        network, optimizer, arguments = make_network(), make_optimizer(), make_data()
        train(network, optimizer, **arguments | {"x": np.nextafter(arguments["x"], np.inf)})
        changed = arrays(network, optimizer)
        assume(all(np.max(np.abs(changed[key] - expected[key]), initial=0) < 1e-11 for key in changed))
        raise


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(case=cases())
def test_fit_and_the_loop_train_any_network_alike(case):
    make_network, make_optimizer, make_data = case
    expected, optimizer, arguments = make_network(), make_optimizer(), make_data()
    note(f"{[described(layer) for layer in expected.layers.values()]}, x {arguments['x'].shape}, {optimizer}")
    losses = looped(expected, optimizer, **arguments)
    assume(np.all(np.isfinite(losses)) and max(losses) < 1e3)
    trained, its_optimizer = make_network(), make_optimizer()
    its_losses = fitted(trained, its_optimizer, arguments)
    assert_trained_alike(arrays(trained, its_optimizer), arrays(expected, optimizer), case, looped)
    np.testing.assert_allclose(its_losses, losses, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, derandomize=True, database=None, deadline=None)
@given(case=cases(batches=large_batches))
def test_batches_of_many_groups_and_a_short_last_one_train_like_the_loop(case):
    """300 samples are 10 groups, and 200 are 13."""
    make_network, make_optimizer, make_data = case
    expected, optimizer, arguments = make_network(), make_optimizer(), make_data()
    note(f"{[described(layer) for layer in expected.layers.values()]}, x {arguments['x'].shape}, {optimizer}")
    losses = looped(expected, optimizer, **arguments, steps=6)
    assume(np.all(np.isfinite(losses)) and max(losses) < 1e3)
    trained, its_optimizer = make_network(), make_optimizer()
    fitted(trained, its_optimizer, arguments, threads=2, epochs=3)
    assert_trained_alike(
        arrays(trained, its_optimizer), arrays(expected, optimizer), case, functools.partial(looped, steps=6)
    )


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(case=cases())
def test_fit_and_the_reference_train_any_network_alike(case):
    """Layers and `fit` share kernels. The reference shares nothing with them."""
    make_network, make_optimizer, make_data = case
    expected, optimizer, arguments = make_network(), make_optimizer(), make_data()
    note(f"{[described(layer) for layer in expected.layers.values()]}, x {arguments['x'].shape}, {optimizer}")
    with use_reference():
        losses = looped(expected, optimizer, **arguments)
    assume(np.all(np.isfinite(losses)) and max(losses) < 1e3)
    trained, its_optimizer = make_network(), make_optimizer()
    fitted(trained, its_optimizer, arguments)
    assert_trained_alike(arrays(trained, its_optimizer), arrays(expected, optimizer), case, looped)


def deep_network(dtype):
    rng = np.random.default_rng(0)
    given = (
        convolution(12, 3, 3, 1, 1), other(ReLU), convolution(8, 3, 3, 2, 1), batch_normalization(0.9), other(Tanh),
        pooling(2, 2, 1, 1, "max"), dropout(0.2, 3), layer_normalization(3), pooling(2, 2, 2, 0, "average"),
        affine(40), batch_normalization(0.9), other(GELU), affine(CLASSES),
    )  # fmt: skip
    shape, stack = (2, 12, 12), []
    for part in given:
        layer = part(rng, shape)
        for name in getattr(layer, "parameter_names", ()):
            setattr(layer, name, getattr(layer, name).astype(dtype))
        if isinstance(layer, BatchNormalization):
            layer.running_mean, layer.running_var = (np.zeros_like(layer.beta), np.ones_like(layer.beta))
        stack.append(layer)
        shape = run([layer], np.zeros((2, *shape), dtype)).shape[1:]
    return Sequential([layer for layer in stack if reset(layer)], SoftmaxWithLoss())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [23, 100, 111])
def test_no_bit_depends_on_the_number_of_threads(dtype, batch_size):
    rng = np.random.default_rng(1)
    x, t = (
        rng.standard_normal((4 * batch_size + 7, 2, 12, 12)).astype(dtype),
        rng.integers(0, CLASSES, 4 * batch_size + 7),
    )
    found = []
    for threads in (1, 2, 3, 7):
        network, optimizer = deep_network(dtype), Adam()
        losses = fitted(network, optimizer, {"x": x, "t": t, "batch_size": batch_size}, threads, epochs=1)
        found.append({**arrays(network, optimizer), "losses": np.array(losses)})
    for others in found[1:]:
        assert_alike(others, found[0], 0.0)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (
            [convolution(3, 2, 2, 1, 0)],
            r"layers: expected outputs \(N, C\) for the loss, got \(N, 3, 4, 4\); .* Flatten",
        ),
        ([other(lambda: Reshape((5, 10)))], r"layers: expected outputs \(N, C\) for the loss, got \(N, 5, 10\)"),
        (
            [affine(1), other(lambda: Reshape(()))],
            r"layers: expected outputs that fill a shape \(\) of at least one axis",
        ),
        ([other(Flatten), lambda *_: Convolution(np.ones((1, 2, 1, 1)), np.zeros(1))], r"got \(N, 50\); reshape them"),
        ([lambda *_: Pooling(9, 9), affine(3)], "x: expected images of at least 9 pixels"),
    ],
)
def test_a_network_that_cannot_predict_is_not_trained(stack, message):
    rng, shape, layers = np.random.default_rng(0), (2, 5, 5), []
    for part in stack:
        layers.append(part(rng, shape))
    network = Sequential(layers, IdentityWithLoss())
    x, t = np.ones((4, *shape)), np.ones((4, 48))
    with pytest.raises(ValueError, match=message):
        network.fit(x, t)


def test_running_statistics_of_another_shape_end_the_run_with_an_error_and_are_left_as_they_are():
    layer = BatchNormalization(np.ones(2), np.zeros(2))
    network = Sequential([layer, Flatten(), Affine(np.ones((50, 1)), np.zeros(1))], IdentityWithLoss())

    def replace(progress):
        layer.running_mean = np.zeros(7)

    with pytest.raises(ValueError, match=r"running_mean: expected shape \(2,\)"):
        network.fit(np.ones((4, 2, 5, 5)), np.ones((4, 1)), epochs=2, on_epoch=replace)
    assert layer.running_mean.shape == (7,)
    assert layer.running_var.shape == (2,)
