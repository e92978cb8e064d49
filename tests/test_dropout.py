"""Dropout: its masks are a pure function of seed, step and index, and look like independent draws."""

import numpy as np
import pytest

from fastbp import Sequential, gradient_check, use_reference
from fastbp.layers import Affine, Dropout, Identity, SoftmaxWithLoss, Tanh
from fastbp.ops.contract import LAYERS, LayerRecord
from fastbp.ops.dropout import is_kept, ratio_threshold
from fastbp.runtime.jit import entry_kernel
from tests.compare import assert_same

N = 1_000_000


@entry_kernel
def is_element_kept(seed, step, index, ratio):
    return is_kept(seed, step, index, ratio_threshold(ratio))


def mask(ratio=0.5, seed=0, step=0, n=N):
    layer = Dropout(ratio, seed)
    layer.step = step
    layer.forward(np.ones(n, np.float32))
    return layer.mask


@pytest.mark.parametrize("ratio", [0.001, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_the_share_that_is_kept_is_within_four_standard_deviations(ratio, seed):
    deviation = np.sqrt(ratio * (1 - ratio) / N)
    for step in (0, 1, 10**9):
        assert abs(mask(ratio, seed, step).mean() - (1 - ratio)) < 4 * deviation


def test_masks_of_other_steps_and_seeds_and_neighbours_are_uncorrelated():
    first = mask() - 0.5
    others = [mask(step=step) for step in (1, 2, 1000)] + [mask(seed=seed) for seed in (1, 2, 2**62)]
    shifted = [np.roll(first, shift) + 0.5 for shift in (1, 2, 10, 784)] + [np.roll(mask(step=1), 1)]
    for other in others + shifted:
        correlation = np.mean(first * (other - 0.5)) / 0.25
        assert abs(correlation) < 4 / np.sqrt(N)


def test_the_elements_kept_grow_as_the_ratio_falls():
    assert np.all(mask(0.3, n=1000) >= mask(0.6, n=1000))
    assert mask(0.0, n=1000).all()


def test_any_element_of_a_mask_can_be_made_alone():
    expected = mask(0.3, seed=5, step=7, n=200)
    assert [is_element_kept(5, 7, index, 0.3) for index in range(150, 200)] == expected[150:].tolist()


def test_the_generator_is_splitmix64():
    # Its first outputs from the start 0, as in the authors' code; here the start is mixed from seed and step.
    golden, size = 0x9E3779B97F4A7C15, 2**64

    def output(start, index):
        z = (start + index * golden) % size
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % size
        z = (z ^ z >> 27) * 0x94D049BB133111EB % size
        return z ^ z >> 31

    assert [output(0, 1), output(0, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    seed, step = 11, 3
    start = output(output(seed, 1), step)
    kept = [output(start, index) / size >= 0.4 for index in range(100)]
    assert mask(0.4, seed, step, 100).tolist() == kept


def test_what_is_kept_is_scaled_in_training_and_nothing_in_prediction(rng):
    x, layer = rng.standard_normal((20, 30)), Dropout(0.2, seed=0)
    out = layer.forward(x)
    np.testing.assert_allclose(out, np.where(layer.mask, x / 0.8, 0), rtol=1e-15)
    assert 0 < np.count_nonzero(out == 0) < out.size
    np.testing.assert_allclose(layer.backward(x), out, rtol=1e-15)
    predicted = layer.forward(x, train_flg=False)
    assert_same(predicted, x)
    assert not np.shares_memory(predicted, x)
    assert layer.mask.all()
    assert_same(layer.backward(x), x)


def test_a_step_is_counted_for_each_forward_in_training():
    layer, x = Dropout(seed=0), np.ones(100)
    first = layer.forward(x)
    layer.forward(x, train_flg=False)
    second = layer.forward(x, True)
    assert layer.step == 2
    assert not np.array_equal(first, second)
    layer.step = 0
    assert_same(layer.forward(x), first)


def test_a_seed_sets_the_masks_and_without_one_the_global_generator_does():
    x = np.ones(100)
    np.random.seed(3)
    one, other = Dropout(), Dropout()
    np.random.seed(3)
    again = Dropout()
    assert one.seed == again.seed != other.seed
    assert_same(one.forward(x), again.forward(x))
    assert_same(Dropout(seed=4).forward(x), Dropout(seed=4).forward(x))


def test_the_reference_drops_the_same_elements():
    compiled = mask(0.3, seed=9, step=2, n=1000)
    with use_reference():
        assert_same(mask(0.3, seed=9, step=2, n=1000), compiled)


def test_dtypes_are_those_of_a_quotient():
    layer = Dropout(seed=0)
    for dtype, expected in {"f2": "f2", "f4": "f4", "f8": "f8", "i8": "f8", "?": "f8"}.items():
        x = np.ones(5, dtype)
        assert layer.forward(x).dtype == layer.backward(x).dtype == expected
        assert layer.forward(x, train_flg=False).dtype == layer.backward(x).dtype == expected


def test_a_setting_is_checked_in_every_forward():
    layer = Dropout(seed=0)
    layer.dropout_ratio = 1
    with pytest.raises(ValueError, match="dropout_ratio: expected a number that is at least 0 and less than 1"):
        layer.forward(np.ones(3))
    layer.dropout_ratio, layer.step = 0.5, -1
    with pytest.raises(ValueError, match="step: expected at least 0, got -1"):
        layer.forward(np.ones(3))


def test_backpropagation_through_dropout_tanh_and_identity_is_right(rng):
    layers = [
        Affine(rng.standard_normal((6, 8)), np.zeros(8)),
        Tanh(),
        Dropout(0.3, seed=0),
        Affine(rng.standard_normal((8, 3)), np.zeros(3)),
        Identity(),
    ]
    gradient_check(
        Sequential(layers, SoftmaxWithLoss()), rng.standard_normal((4, 6)), [0, 2, 1, 1], raise_on_failure=True
    )


class Scaled:
    """x times a number that is drawn for each step."""

    def __init__(self, spread, seed):
        self.spread, self.seed, self.drawn = spread, seed, 0

    def forward(self, x, train_flg=True):
        self.factor = 1.0
        if train_flg:
            self.factor = 1 + self.spread * np.random.default_rng([self.seed, self.drawn]).random()
            self.drawn += 1
        return x * self.factor

    def backward(self, dout):
        return dout * self.factor


@pytest.fixture
def scaled(monkeypatch):
    """Makes a network with a layer that draws and is no `Dropout`: what it is is said by its record alone."""
    record = LayerRecord(Scaled, settings=("spread", "seed"), counters=("drawn",), state=("drawn",))
    monkeypatch.setitem(LAYERS, Scaled, record)

    def make(seed=1):
        rng = np.random.default_rng(0)
        affine, last = (Affine(rng.standard_normal(shape), np.zeros(shape[1])) for shape in [(4, 5), (5, 3)])
        return Sequential([affine, Scaled(2.0, seed), last], SoftmaxWithLoss())

    return make


def data():
    rng = np.random.default_rng(1)
    return rng.standard_normal((20, 4)), rng.integers(0, 3, 20)


def test_a_numerical_gradient_draws_what_was_drawn_last(scaled):
    net, (x, t) = scaled(), data()
    net.loss(x, t, train_flg=True)
    assert gradient_check(net, x[:3], t[:3], tolerance=1e-7).passed
    assert net.layers["Scaled1"].drawn == 2


@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_a_checkpoint_has_the_seed_the_counter_and_what_a_callback_set(scaled, tmp_path):
    (x, t), path = data(), tmp_path / "checkpoint"

    def change(progress):
        progress.network.layers["Scaled1"].spread = 0.5

    whole, part, again = scaled(), scaled(), scaled(seed=7)
    whole.fit(x, t, epochs=4, batch_size=5, seed=0, on_epoch=change)
    part.fit(x, t, epochs=2, batch_size=5, seed=0, on_epoch=change, checkpoint=path)
    again.fit(x, t, epochs=4, batch_size=5, seed=0, resume=path)
    layer = again.layers["Scaled1"]
    assert (layer.spread, layer.seed, layer.drawn) == (0.5, 1, 16)
    for key, value in whole.params.items():
        np.testing.assert_array_equal(again.params[key], value)
