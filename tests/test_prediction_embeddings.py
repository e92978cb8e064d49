"""`network.predict` of indices by compiled code: the bits of the layers' own `forward`, and their errors."""

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from fastbp import Sequential, num_threads, use_reference
from fastbp.layers import (
    Affine,
    Convolution,
    Dropout,
    Embedding,
    Flatten,
    LayerNormalization,
    ReLU,
    Reshape,
    SoftmaxWithLoss,
    Tanh,
)
from tests.test_fit_images import described
from tests.test_prediction import assert_bitwise, by_layers, in_place, keeps_nothing


def drawn(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def network(V=9, D=4, L=3, dtype=np.float32):
    W, b = drawn(L * D, 5, dtype=dtype), drawn(5, dtype=dtype)
    return Sequential([Embedding(drawn(V, D, dtype=dtype)), Tanh(), Affine(W, b)], SoftmaxWithLoss())


def indices(*shape, V=9, dtype=np.int64):
    return np.random.default_rng(0).integers(0, V, shape).astype(dtype)


def has_predicted(net):
    """Whether the layers were not called."""
    return keeps_nothing(net) and all(vars(layer).get("_forward") is None for layer in net.layers.values())


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), max_size=3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 9)),
    samples=st.sampled_from([1, 2, 30, 1000]),
    dtype=st.sampled_from([np.float32, np.float64]),
    kind=st.sampled_from(["int8", "uint8", ">i4", "int64", "uint64"]),
    activates=st.booleans(),
    ends=st.booleans(),
)
def test_a_prediction_has_the_bits_of_the_layers(shape, size, samples, dtype, kind, activates, ends):
    (V, D), numbers = size, int(np.prod(shape))
    layers = [Embedding(drawn(V, D, dtype=dtype))]
    if activates:
        layers += [ReLU()]
    if not ends:
        layers += [Dropout(0.5), Affine(drawn(numbers * D, 7, dtype=dtype), drawn(7, dtype=dtype)), Tanh()]
    if shape:
        layers[:0] = [Reshape((*shape[::-1],))]
    net, x = Sequential(layers, SoftmaxWithLoss()), indices(samples, *shape, V=V, dtype=kind)
    note(f"{[described(layer) for layer in layers]}, x {x.shape}")
    expected = by_layers(net, x)
    for threads in (1, 2):
        with num_threads(threads):
            assert_bitwise(net.predict(x), expected)
    assert has_predicted(net)


def test_rows_that_become_images_are_convolved():
    net = Sequential(
        [
            Embedding(drawn(9, 6)),
            Reshape((2, 3, 6)),
            Convolution(drawn(3, 2, 3, 3), drawn(3)),
            ReLU(),
            Flatten(),
            Affine(drawn(12, 4), drawn(4)),
            LayerNormalization(drawn(4), drawn(4)),
        ],
        SoftmaxWithLoss(),
    )
    for samples in (1, 3, 200):
        x = indices(samples, 6)
        assert_bitwise(net.predict(x), by_layers(net, x))
    assert has_predicted(net)


def test_a_sample_may_be_one_index():
    net, x = network(L=1), indices(40)
    assert_bitwise(net.predict(x), by_layers(net, x))
    assert_bitwise(net.predict(x[:1]), by_layers(net, x[:1]))
    assert has_predicted(net)


@pytest.mark.parametrize(
    "given",
    [indices(40, 3)[::-1], indices(40, 6)[:, ::2], np.asfortranarray(indices(40, 3)), indices(40, 3).astype(">i8")],
)
def test_any_layout_is_read_and_nothing_is_written_to(given):
    net, before = network(), given.copy()
    given.flags.writeable = False
    assert_bitwise(net.predict(given), by_layers(net, given))
    assert has_predicted(net)
    np.testing.assert_array_equal(given, before)


def test_accuracy_and_the_validation_of_fit_need_nothing_of_the_layers():
    net, x, t = network(), indices(60, 3), np.arange(60) % 5
    row = net.fit(x, t, seed=0, validation_data=(x, t))
    share = net.accuracy(x, t)
    assert has_predicted(net)
    assert row["val_accuracy"] == [share]
    assert row["val_loss"] == [net.loss(x, t)]


@pytest.mark.parametrize("samples", [2, 2000])
@pytest.mark.parametrize("bad", [9, -1, 2**62, -(2**63)])
def test_an_index_out_of_range_gets_the_error_of_the_layer(bad, samples):
    net, x = network(), indices(samples, 3)
    net.predict(x)
    x[-1, -1] = bad
    with pytest.raises(ValueError, match=f"x: expected indices from 0 to 8, as W has 9 rows, got {bad}; make W with"):
        net.predict(x)


@pytest.mark.parametrize("bad", [2**63, 2**64 - 1])
def test_an_index_beyond_the_words_of_the_machine_is_named_as_it_was_given(bad):
    net, x, t = network(), indices(40, 3, dtype=np.uint64), np.arange(40) % 5
    net.predict(x)
    x[7, 1] = bad
    calls = [lambda: net.predict(x), lambda: net.fit(x, t), lambda: net.loss(x, t), lambda: by_layers(net, x)]
    for call in calls:
        with pytest.raises(ValueError, match=f"x: expected indices from 0 to 8, as W has 9 rows, got {bad}; "):
            call()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_samples_that_are_no_integers_get_the_error_of_the_layer(dtype):
    net = network()
    net.predict(indices(40, 3))
    with pytest.raises(TypeError, match="x: expected integers, the indices of rows of W, got"):
        net.predict(indices(40, 3).astype(dtype))


def test_the_outputs_of_a_layer_are_no_indices():
    net = Sequential([Affine(np.eye(3), np.zeros(3)), Embedding(np.ones((9, 2)))], SoftmaxWithLoss())
    with pytest.raises(TypeError, match="x: expected integers, the indices of rows of W, got float64"):
        net.predict(np.ones((4, 3)))
    net = Sequential([ReLU(), *network().layers.values()], SoftmaxWithLoss())
    assert_bitwise(net.predict(indices(40, 3)), by_layers(net, indices(40, 3)))


@in_place
def test_a_matrix_of_other_rows_counts_at_once():
    net, x = network(V=8), indices(40, 3, V=8)
    before = net.predict(x)
    net.params["W1"][...] *= 2
    assert not np.array_equal(net.predict(x), before)
    assert_bitwise(net.predict(x), by_layers(net, x))
    net.layers["Embedding1"].W = drawn(20, 4)
    assert_bitwise(net.predict(x), by_layers(net, x))
    net.layers["Embedding1"].W = drawn(5, 4)
    with pytest.raises(ValueError, match="x: expected indices from 0 to 4, as W has 5 rows, got 5"):
        net.predict(np.full((40, 3), 5))
    net.layers["Embedding1"].W.shape = (4, 5)
    with pytest.raises(ValueError, match="expected"):
        net.predict(np.zeros((40, 3), int))


def test_a_reference_predicts_by_numpy():
    net, x = network(dtype=np.float64), indices(40, 3)
    with use_reference():
        np.testing.assert_allclose(net.predict(x), by_layers(net, x), rtol=1e-14)
    assert not has_predicted(net)
