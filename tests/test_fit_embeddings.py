"""`fit`, the loop, and the reference train any network that begins with `Embedding` alike; what `fit` refuses."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from fastbp import Sequential, use_reference
from fastbp.layers import Affine, Embedding, Flatten, ReLU, SoftmaxWithLoss, Tanh
from fastbp.optimizers import OPTIMIZERS, SGD, Adam
from tests.compare import assert_same
from tests.test_cache import compiled_signatures
from tests.test_fit_images import CLASSES, arrays, assert_alike, cases, described, drawn, fitted, looped, other

# Rates are drawn, and some are too large.
pytestmark = pytest.mark.filterwarnings("ignore:fit. expected a loss that falls")


@st.composite
def indices(draw):
    """The first parts of a network, and a function that draws its samples."""
    shape = tuple(draw(st.lists(st.integers(1, 6), max_size=2)))
    V, D = draw(st.tuples(st.integers(1, 40), st.integers(1, 9)))
    dtype, reshapes = draw(st.tuples(st.sampled_from(["int8", "uint8", ">i4", "int64", "uint64"]), st.booleans()))
    first = [lambda rng, _: Embedding(drawn(rng, V, D))]
    if reshapes and shape:
        first = [other(Flatten), *first]
    return first, lambda rng, samples: rng.integers(0, V, (samples, *shape)).astype(dtype)


def made(case):
    network, optimizer, arguments = (make() for make in case)
    note(f"{[described(layer) for layer in network.layers.values()]}, x {arguments['x'].shape}, {optimizer}")
    return network, optimizer, arguments


def is_tame(losses):
    return np.all(np.isfinite(losses)) and max(losses) < 1e3


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(case=cases(indices))
def test_fit_and_the_loop_train_any_network_alike(case):
    expected, its_optimizer, arguments = made(case)
    losses = looped(expected, its_optimizer, **arguments)
    assume(is_tame(losses))
    trained, optimizer, _ = made(case)
    np.testing.assert_allclose(fitted(trained, optimizer, arguments), losses, rtol=1e-10, atol=1e-10)
    assert_alike(arrays(trained, optimizer), arrays(expected, its_optimizer), 1e-10)


@settings(max_examples=50, derandomize=True, database=None, deadline=None)
@given(case=cases(indices))
def test_fit_and_the_reference_train_any_network_alike(case):
    expected, its_optimizer, arguments = made(case)
    with use_reference():
        assume(is_tame(looped(expected, its_optimizer, **arguments)))
    trained, optimizer, _ = made(case)
    fitted(trained, optimizer, arguments)
    assert_alike(arrays(trained, optimizer), arrays(expected, its_optimizer), 1e-10)


def network(V=9, D=4, L=3, dtype="float64"):
    rng = np.random.default_rng(0)
    W, b = drawn(rng, L * D, CLASSES).astype(dtype), np.zeros(CLASSES, dtype)
    return Sequential([Embedding(drawn(rng, V, D).astype(dtype)), Flatten(), Affine(W, b)], SoftmaxWithLoss())


def samples(V=9, L=3, count=40, dtype="int64"):
    rng = np.random.default_rng(1)
    return rng.integers(0, V, (count, L)).astype(dtype), rng.integers(0, CLASSES, count)


def trained(net, x, t, optimizer=None, **arguments):
    """All that `fit` changed."""
    optimizer = optimizer or Adam()
    losses = fitted(net, optimizer, {"x": x, "t": t, "batch_size": 10, **arguments}, epochs=3)
    return {**arrays(net, optimizer), "losses": np.array(losses)}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_matrix_that_is_updated_in_pieces_is_trained_as_the_reference_does(kind):
    """200,704 weights are updated at a time."""
    size = {"V": 7000, "L": 5}
    x, t = samples(**size, count=200)
    arguments = {"x": x, "t": t, "batch_size": 200, "sample_weight": None}
    (net, optimizer), (expected, its_optimizer) = ((network(D=30, **size), kind(0.01, weight_decay=0.01)) for _ in "ab")
    net.weight_decay_lambda = expected.weight_decay_lambda = 0.1
    with use_reference():
        loss = expected.loss(x, t)
        looped(expected, its_optimizer, **arguments)
    np.testing.assert_allclose(fitted(net, optimizer, arguments)[0], loss, rtol=1e-12)
    assert_alike(arrays(net, optimizer), arrays(expected, its_optimizer), 1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_no_bit_depends_on_the_number_of_threads(kind, dtype):
    size, found = {"V": 20000, "L": 8}, []
    x, t = samples(**size, count=333)
    for threads in (1, 2, 3, 7):
        net, optimizer = network(D=50, dtype=dtype, **size), kind(0.01)
        losses = fitted(net, optimizer, {"x": x, "t": t, "batch_size": 111}, threads, epochs=4)
        found.append({**arrays(net, optimizer), "losses": np.array(losses)})
    for others in found[1:]:
        assert_alike(others, found[0], 0.0)


def test_indices_that_float32_cannot_hold_are_exact():
    V = 2**24 + 4
    W = np.zeros((V, 1), np.float32)
    affine = Affine(np.array([[1, -1]], np.float32), np.zeros(2, np.float32))
    net = Sequential([Embedding(W), affine], SoftmaxWithLoss())
    net.fit([[V - 1], [V - 3]], [0, 1], batch_size=2, optimizer=SGD(1.0), seed=0)
    assert np.flatnonzero(W).tolist() == [V - 3, V - 1]
    assert W[V - 1, 0] == -W[V - 3, 0] > 0


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_integers_in_any_layout_train_alike(dtype, order):
    x, t = samples()
    expected = trained(network(), x, t)
    given = np.array(x, dtype, order=order)
    given.flags.writeable = False
    assert_alike(trained(network(), given, t), expected, 0.0)
    assert_alike(trained(network(), x[::-1][::-1].tolist(), t), expected, 0.0)


def test_a_sample_may_be_one_index():
    x, t = samples(L=1)
    expected = trained(network(L=1), x, t)
    net = network(L=1)
    assert_alike(trained(net, x[:, 0], t, validation_data=(x[:, 0], t)), expected, 0.0)
    assert net.history["val_loss"][-1] == net.loss(x[:, 0], t)
    with use_reference():
        assert_alike(trained(network(L=1), x[:, 0], t), expected, 1e-10)


@pytest.mark.parametrize("size", [(9, 0, 3), (9, 4, 0), (0, 4, 0)])
def test_nothing_to_look_up_is_no_harm(size):
    V, D, L = size
    x, t = samples(max(V, 1), L)
    with use_reference():
        expected = trained(network(V, D, L), x, t)
    assert_alike(trained(network(V, D, L), x, t), expected, 1e-10)


def changed(place, value, dtype="int64"):
    x, _ = samples(dtype=dtype)
    x[place] = value
    return x


@pytest.mark.parametrize("way", [nullcontext, use_reference])
@pytest.mark.parametrize(
    ("x", "more", "error", "says"),
    [
        (changed((39, 2), 9), {}, ValueError, "x: expected indices from 0 to 8, as W has 9 rows, got 9; make W with"),
        (changed((20, 0), -1), {}, ValueError, "x: expected indices from 0 to 8, as W has 9 rows, got -1"),
        (changed((20, 0), 2**64 - 8, "uint64"), {}, ValueError, f"x: expected indices from 0 to 8.* got {2**64 - 8}; "),
        (samples(dtype="float64")[0], {}, TypeError, "x: expected integers, the indices of rows of W, got float64"),
        (samples(dtype="float16")[0], {}, TypeError, "x: expected integers, the indices of rows of W, got float16"),
        (samples(dtype="bool")[0], {}, TypeError, "x: expected integers, the indices of rows of W, got bool"),
        (samples()[0], {"scale": 0.5}, TypeError, "x: expected integers, the indices of rows of W, got float64"),
        (samples(dtype="uint8")[0], {"scale": 2}, TypeError, "x: expected integers, the indices of rows of W"),
        (samples(L=4)[0], {}, ValueError, r"x: expected sequences \(N, 3\), for whose size .* got \(N, 4\)"),
        (samples()[0][0, 0], {}, ValueError, r"x: expected at least one sample, \(samples, ...\), got shape \(\)"),
        (samples()[0][:0, 0], {}, ValueError, r"x: expected at least one sample, \(samples, ...\), got shape \(0,\)"),
        (
            samples()[0],
            {"validation_data": (samples()[0][:, 0], samples()[1])},
            ValueError,
            "validation_data: x: expected 3 numbers for each sample, as those that are fitted, got 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(x, more, error, says, way):
    net, optimizer, (_, t) = network(), Adam(), samples()
    before = arrays(net, optimizer)
    with way(), pytest.raises(error, match=says):
        net.fit(x, t, optimizer=optimizer, **more)
    assert_alike(arrays(net, optimizer), before, 0.0)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_indices_that_a_callback_changes_are_those_that_were_given(dtype):
    x, t = samples(dtype=dtype)
    expected = trained(network(), x.copy(), t)

    def change(progress):
        x[...] = np.iinfo(dtype).max

    assert_alike(trained(network(), x, t, on_steps=change), expected, 0.0)
    assert x.max() == np.iinfo(dtype).max


def test_a_matrix_of_fewer_rows_ends_the_run_with_an_error_and_one_of_more_is_trained():
    net, (x, t) = network(), samples()

    def replace(progress):
        rows = 20 if progress.epoch == 1 else 5
        net.layers["Embedding1"].W = np.ones((rows, 4))

    with pytest.raises(ValueError, match=r"x: expected indices from 0 to 4, as W has 5 rows, got [5-8]"):
        net.fit(x, t, epochs=5, batch_size=10, seed=0, on_epoch=replace)
    assert len(net.history) == 2
    assert net.params["W1"].shape == (5, 4)


def test_an_embedding_in_the_place_of_another_layer_refuses_the_numbers_that_were_given():
    net = Sequential([Affine(np.ones((3, 12)), np.zeros(12)), Affine(np.ones((12, 3)), np.zeros(3))], SoftmaxWithLoss())
    (x, t), layers = samples(dtype="uint8"), net.layers

    def replace(progress):
        layers["Affine1"] = Embedding(np.ones((9, 4)))

    with pytest.raises(TypeError, match="x: expected integers, the indices of rows of W, got float64"):
        net.fit(x, t, epochs=2, on_epoch=replace)


def test_behind_another_layer_it_is_trained_layer_by_layer_with_a_warning():
    x, t = samples()
    expected, net = network(), network()
    trained(expected, x, t)
    net = Sequential([ReLU(), *net.layers.values()], SoftmaxWithLoss())
    with pytest.warns(UserWarning, match="it knows no Embedding after another layer$"):
        net.fit(x, t, epochs=3, batch_size=10, optimizer="adam", seed=0)
    for found, value in zip(net.params.values(), expected.params.values(), strict=True):
        np.testing.assert_allclose(found, value, atol=1e-10)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    (x, t), path = samples(), tmp_path / "checkpoint"
    arguments = {"batch_size": 10, "seed": 0, "validation_data": (x, t)}
    whole, part = network(), network()
    whole.fit(x, t, epochs=5, optimizer="adam", **arguments)
    part.fit(x, t, epochs=2, optimizer="adam", checkpoint=path, **arguments)
    again = network()
    again.fit(x, t, epochs=5, optimizer="adam", resume=path, **arguments)
    assert_alike(dict(again.params), dict(whole.params), 0.0)
    assert_same(again.history["val_loss"], whole.history["val_loss"])


def test_a_second_architecture_compiles_and_loads_nothing():
    def stack(*layers):
        return Sequential([*layers], SoftmaxWithLoss())

    embedding, flatten, affine = network().layers.values()
    trained(stack(embedding, ReLU(), flatten, affine, Tanh()), *samples())
    before = compiled_signatures()
    embedding, flatten, affine = network(30, 2, 5).layers.values()
    deep = stack(flatten, embedding, Tanh(), affine, ReLU(), Affine(np.ones((3, 3)), np.zeros(3)))
    trained(deep, *samples(30, 5, dtype="uint8"))
    assert compiled_signatures() == before


def test_another_layer_in_its_place_refuses_samples_of_one_number():
    x, t = samples(L=1)
    net = network(L=1)

    def replace(progress):
        net.layers["Embedding1"] = Affine(np.ones((1, 4)), np.zeros(4))

    with pytest.raises(ValueError, match=r"x: expected at least one sample, \(samples, ...\), got shape \(40,\)"):
        net.fit(x[:, 0], t, epochs=2, on_epoch=replace)
    assert len(net.history) == 1
