"""`fit` trains small dense networks with their samples in lanes, and no number shows it."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastbp import Sequential, num_threads
from fastbp.engine import table
from fastbp.layers import Affine, BatchNormalization, Dropout, Flatten, MatMul, ReLU, SoftmaxWithLoss, Tanh
from fastbp.ops.contract import ACTIVATIONS, LOSSES
from fastbp.optimizers import SGD
from tests.test_fit_differential import assert_same, fitted, loop, optimizers, targets

# Rates are drawn, and some are too large.
pytestmark = pytest.mark.filterwarnings("ignore:fit. expected a loss that falls")

TOLERANCE = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-10}


def in_lanes(layers, shape, batch_size):
    return table.is_small([*table.mapped(layers, shape)], batch_size)


def affine(rng, D, M, dtype):
    return Affine((rng.standard_normal((D, M)) / D**0.5).astype(dtype), 0.1 * rng.standard_normal(M).astype(dtype))


@st.composite
def stacks(draw):
    """Of narrow layers: widths of affine ones and of products, activations, dropout."""
    width = st.integers(1, table.WIDEST_OUTPUT)
    parts = st.one_of(
        width,
        width.map(lambda M: (M,)),
        st.sampled_from([record.layer for record in ACTIVATIONS.values()]),
        st.tuples(st.floats(0, 0.8), st.integers(0, 2**63 - 1)),
        st.just(Flatten),
    )
    return [*draw(st.lists(parts, max_size=3)), draw(width), *draw(st.lists(parts, max_size=4))]


@st.composite
def cases(draw):
    """A function that makes the network, one that makes the optimizer, and the arguments of `fit`."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    stack, features = draw(stacks()), draw(st.integers(1, 40))
    losses = [record.layer for record in LOSSES.values() if not record.loss.classifies]
    kind = draw(st.sampled_from(["labels", "labels", "one-hot", "distributions", *losses]))
    smoothing = draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
    batch_size = draw(st.integers(table.LEAST_SAMPLES, 100))
    samples = draw(st.integers(2 * batch_size + 1, 3 * batch_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    widths = [
        part if isinstance(part, int) else part[0] for part in stack if isinstance(part, int) or part_is_product(part)
    ]
    x = rng.standard_normal((samples, features)).astype(dtype)
    weights = None
    if draw(st.booleans()):
        weights = rng.random(samples) * (rng.random(samples) < 0.8)
        weights[0] = 1.0
    weight_seed = draw(st.integers(0, 2**32))

    def network():
        rng, width, layers = np.random.default_rng(weight_seed), features, []
        for part in stack:
            if isinstance(part, int):
                layers.append(affine(rng, width, part, dtype))
                width = part
            elif part_is_product(part):
                layers.append(MatMul(affine(rng, width, part[0], dtype).W))
                width = part[0]
            elif isinstance(part, tuple):
                layers.append(Dropout(*part))
            else:
                layers.append(part())
        return Sequential(layers, SoftmaxWithLoss(smoothing) if isinstance(kind, str) else kind())

    t = targets(rng, kind, samples, widths[-1], dtype)
    return network, draw(optimizers(dtype)), {"x": x, "t": t, "batch_size": batch_size, "sample_weight": weights}


def part_is_product(part):
    return isinstance(part, tuple) and len(part) == 1


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(case=cases())
@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_a_small_network_is_trained_alike_in_lanes_and_by_the_loop(case):
    make_network, make_optimizer, arguments = case
    x, batch_size = arguments["x"], arguments["batch_size"]
    assert in_lanes(make_network().layers.values(), x.shape[1:], batch_size)
    looped = [make_network(), make_optimizer()]
    looped += loop(*looped, **arguments, seed=0)
    assume(max(looped[2]) < 1e3)  # where a run diverges, so does the rounding
    assert_same(fitted(make_network(), make_optimizer(), arguments), looped, x.dtype, TOLERANCE[x.dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N", [32, 33, 47, 48, 50, 64, 65, 100, 200])
def test_samples_in_lanes_and_in_rows_come_to_the_same(N, dtype):
    rng = np.random.default_rng(N)
    x, t = rng.standard_normal((5 * N - 7, 24)).astype(dtype), rng.integers(0, 3, 5 * N - 7)

    def trained():
        rng = np.random.default_rng(1)
        stack = [affine(rng, 24, 8, dtype), Tanh(), Dropout(0.2, seed=3), affine(rng, 8, 3, dtype)]
        network = Sequential(stack, SoftmaxWithLoss())
        history = network.fit(x, t, epochs=2, batch_size=N, optimizer=SGD(0.1), seed=0, verbose=False)
        return network, history

    network, history = trained()
    with mock.patch.object(table, "is_small", return_value=False):
        in_rows, its_history = trained()
    for key, value in network.params.items():
        np.testing.assert_allclose(value, in_rows.params[key], atol=TOLERANCE[np.dtype(dtype)] / 10)
    np.testing.assert_allclose(history["loss"], its_history["loss"], rtol=TOLERANCE[np.dtype(dtype)] / 10)
    assert list(history["accuracy"]) == list(its_history["accuracy"])


@pytest.mark.parametrize("x_dtype", [np.float64, np.uint8])
def test_no_bit_of_a_small_network_depends_on_the_number_of_threads(x_dtype):
    rng = np.random.default_rng(0)
    x, t = (10 * rng.random((500, 30))).astype(x_dtype), rng.integers(0, 2, 500)

    def trained(threads):
        rng = np.random.default_rng(1)
        network = Sequential([affine(rng, 30, 7, np.float32), ReLU(), affine(rng, 7, 2, np.float32)], SoftmaxWithLoss())
        with num_threads(threads):
            network.fit(x, t, epochs=2, batch_size=80, optimizer=SGD(0.01), seed=0, scale=0.1, verbose=False)
        return network.params

    first, second = trained(1), trained(2)
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_wide_layers_short_batches_and_sums_over_the_batch_keep_samples_in_rows():
    rng = np.random.default_rng(0)
    small = [affine(rng, 24, 8, np.float64), Tanh(), affine(rng, 8, 2, np.float64)]
    assert in_lanes(small, (24,), 200)
    assert not in_lanes(small, (24,), table.LEAST_SAMPLES - 1)
    assert not in_lanes(small, (24,), 10_000)  # worth several threads
    assert not in_lanes([affine(rng, 24, 16, np.float64)], (24,), 200)
    assert not in_lanes([affine(rng, 100, 8, np.float64)], (100,), 200)
    assert not in_lanes([Tanh()], (24,), 200)
    assert not in_lanes([small[0], BatchNormalization(np.ones(8), np.zeros(8)), small[2]], (24,), 200)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_accuracy_of_nan_in_lanes_is_that_of_argmax(place):
    W = np.zeros((3, 3))
    W[:, place] = np.nan
    x, t = np.ones((40, 3)), np.repeat(np.arange(4) % 3, 10)
    network = Sequential([Affine(W, np.zeros(3))], SoftmaxWithLoss())
    assert in_lanes(network.layers.values(), (3,), 40)
    history = network.fit(x, t, batch_size=40, optimizer=SGD(0.0), seed=0, on_nan="ignore", verbose=False)
    assert history["accuracy"] == [np.mean(t == place)]
