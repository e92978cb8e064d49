"""`network.predict` by compiled code: the bits of the layers' own `forward`, while these are as they were."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbp import Sequential, TwoLayerNet, num_threads, use_reference
from fastbp.layers import (
    Affine,
    Dropout,
    Flatten,
    LeakyReLU,
    MatMul,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.ops.contract import ACTIVATIONS, state_names

FEATURES = 6

in_place = pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # NumPy would rather have a new array


def by_layers(net, x):
    """The outputs by the layers' own `forward`, of copies: the layers keep nothing."""
    out = x
    for layer in copy.deepcopy(list(net.layers.values())):
        out = layer.forward(out, False) if state_names(type(layer)) else layer.forward(out)
    return out


def assert_bitwise(got, expected):
    assert (type(got), got.shape, got.dtype) == (type(expected), expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)
    is_number = ~np.isnan(expected)  # NaN has no sign
    np.testing.assert_array_equal(np.signbit(got)[is_number], np.signbit(expected)[is_number])


def keeps_nothing(net):
    """Whether no layer has seen a sample."""
    return all(getattr(layer, name, None) is None for layer in net.layers.values() for name in ("x", "mask", "out"))


def stack(parts, dtype, seed=0):
    """Widths of affine layers, classes of activations and ratios of dropout as a network."""
    rng, width, layers = np.random.default_rng(seed), FEATURES, []
    for part in parts:
        if isinstance(part, int):
            W, b = rng.standard_normal((width, part)), rng.standard_normal(part)
            layers.append(Affine(W.astype(dtype), b.astype(dtype)))
            width = part
        else:
            layers.append(Dropout(part, seed=1) if isinstance(part, float) else part())
    return Sequential(layers, SoftmaxWithLoss())


def network(dtype=np.float32):
    return stack([8, LeakyReLU, 0.5, 70, Tanh, 3], dtype)


PARTS = st.one_of(
    st.sampled_from([1, 2, 7, 16, 50, 70, 300]),
    st.sampled_from([record.layer for record in ACTIVATIONS.values()]),
    st.floats(0, 0.9),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PARTS, min_size=1, max_size=6),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([None, 1, 2, 11, 30, 200, 3000]),
    st.integers(0, 2**32),
)
def test_a_prediction_has_the_bits_of_the_layers(parts, dtype, samples, seed):
    net, rng = stack(parts, dtype, seed), np.random.default_rng(seed)
    x = rng.standard_normal(FEATURES if samples is None else (samples, FEATURES)).astype(dtype)
    if seed % 3 == 0:
        x[..., 0], x[..., -1] = np.nan, np.inf
    expected = by_layers(net, x)
    with num_threads(1):
        assert_bitwise(net.predict(x), expected)
    if any(isinstance(part, int) for part in parts):
        assert keeps_nothing(net)
    with num_threads(2):
        assert_bitwise(net.predict(x), expected)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (5, 6), (500, 6), (6, 1), (4, 3, 2)])
@pytest.mark.parametrize("wanted", [(2, 3), (-1,), (6, 1), (1, -1), ()])
def test_reshapes_move_nothing(wanted, shape):
    rng = np.random.default_rng(0)
    W, V, b = (rng.standard_normal(size).astype(np.float32) for size in [(6, 6), (6, 4), 6])
    net = Sequential([Affine(W, b), Reshape(wanted), ReLU(), Flatten(), MatMul(V), Reshape((2, 2))], SoftmaxWithLoss())
    x = rng.standard_normal(shape).astype(np.float32)
    try:
        expected = by_layers(net, x)
    except ValueError:
        with pytest.raises(ValueError, match="expected"):
            net.predict(x)
        return
    assert_bitwise(net.predict(x), expected)


@pytest.mark.parametrize("samples", [1, 5, 500])
def test_samples_of_several_axes_are_rows(samples):
    net, x = network(), np.random.default_rng(0).standard_normal((samples, 2, 3)).astype(np.float32)
    assert_bitwise(net.predict(x), by_layers(net, x))
    assert keeps_nothing(net)


@pytest.mark.parametrize(
    "given",
    [
        np.ones((4, FEATURES)),
        np.ones((4, FEATURES), np.uint8),
        np.ones((4, FEATURES), np.float16),
        np.ones((4, FEATURES), ">f4"),
        np.ones((4, 2 * FEATURES), np.float32)[:, ::2],
        np.ones((FEATURES, 4), np.float32).T,
        np.ones((4, FEATURES), np.float32)[::-1],
        np.ones((0, FEATURES), np.float32),
        [[1.0] * FEATURES],
        np.frombuffer(b"x" + np.ones(FEATURES, np.float32).tobytes(), np.uint8)[1:].view(np.float32),
    ],
)
def test_any_other_x_goes_through_the_layers(given):
    net = network()
    assert_bitwise(net.predict(given), by_layers(net, given))


def test_a_read_only_x_is_read_where_it_is():
    net, x = network(), np.ones(FEATURES, np.float32)
    x.flags.writeable = False
    assert_bitwise(net.predict(x), by_layers(net, x))
    assert keeps_nothing(net)


@pytest.mark.parametrize(
    "bad", [np.ones(5, np.float32), np.ones((2, 7), np.float32), np.float32(1), np.ones(6, complex)]
)
def test_what_does_not_fit_gets_the_error_of_the_layer(bad):
    net = network()
    net.predict(np.ones(FEATURES, np.float32))
    with pytest.raises((TypeError, ValueError)) as expected:
        by_layers(net, bad)
    with pytest.raises(type(expected.value), match="x: expected") as error:
        net.predict(bad)
    assert str(error.value) == str(expected.value)


def _other_array(net):
    net.params["W2"] = net.params["W2"] + 1


def _other_bias(net):
    net.layers["Affine1"].b = net.layers["Affine1"].b * 2


def _in_place(net):
    net.params["W1"][...] *= 2


def _other_dtype(net):
    net.layers["Affine2"].W = net.layers["Affine2"].W.astype(np.float64)


def _other_order(net):
    net.layers["Affine2"].W = np.asfortranarray(net.layers["Affine2"].W)


def _other_bytes(net):
    net.layers["Affine1"].W = net.layers["Affine1"].W.astype(">f4")


def _setting(net):
    net.layers["LeakyReLU1"].alpha = 0.5


def _ratio(net):
    net.layers["Dropout1"].dropout_ratio = 0.1


def _method(net):
    net.layers["Tanh1"].forward = lambda x: -x


def _class(net):
    class Twice(Tanh):
        def forward(self, x):
            return 2 * super().forward(x)

    net.layers["Tanh1"].__class__ = Twice


def _other_layer(net):
    net.layers["Tanh1"] = Sigmoid()


def _more_layers(net):
    net.layers["Softmax"] = Softmax()


def _fewer_layers(net):
    del net.layers["Affine3"]


def _memory(net):
    W = net.layers["Affine1"].W
    W.resize((1000, 1000), refcheck=False)
    del W
    gc.collect()
    net.layers["Affine1"].W.resize((FEATURES, 8), refcheck=False)
    net.layers["Affine1"].W[...] = 3


def _strides(net):
    layer = net.layers["Affine2"]
    layer.W = np.ones((70, 70), np.float32)
    layer.b = np.ones(70, np.float32)
    net.layers["Affine1"].W, net.layers["Affine1"].b = np.ones((FEATURES, 70), np.float32), np.ones(70, np.float32)
    net.predict(np.ones(FEATURES, np.float32))
    layer.W[...] = np.arange(4900).reshape(70, 70)
    layer.W.strides = layer.W.strides[::-1]


@in_place
@pytest.mark.parametrize("samples", [None, 3, 3000])
@pytest.mark.parametrize(
    "change",
    [
        _other_array, _other_bias, _in_place, _other_dtype, _other_order, _other_bytes, _setting, _ratio, _method,
        _class, _other_layer, _more_layers, _fewer_layers, _memory, _strides,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_a_change_of_the_network_counts_at_once(change, samples):
    shape = (FEATURES,) if samples is None else (samples, FEATURES)
    net, x = network(), np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    before = net.predict(x)
    change(net)
    after = by_layers(net, x)
    same = change in (_other_order, _other_bytes, _ratio)
    assert np.array_equal(before, after) == same
    for _ in range(3):
        assert_bitwise(net.predict(x), after)


def test_a_shape_that_is_set_later_counts_at_once():
    net, x = Sequential([MatMul(np.ones((FEATURES, 6))), Reshape((2, 3))], SoftmaxWithLoss()), np.ones((4, FEATURES))
    assert net.predict(x).shape == (4, 2, 3)
    net.layers["Reshape1"].shape = (3, -1)
    assert net.predict(x).shape == (4, 3, 2)
    net.layers["Reshape1"].shape = (4, 2)
    with pytest.raises(ValueError, match=r"x: expected samples .* fill the shape \(4, 2\)"):
        net.predict(x)


@in_place
@pytest.mark.parametrize("shape", [(8, FEATURES), (48,), (FEATURES, 8, 1)])
def test_a_shape_that_is_set_in_place_gets_the_error_of_the_layer(shape):
    net, x = network(), np.ones((2, FEATURES), np.float32)
    net.predict(x)
    net.layers["Affine1"].W.shape = shape
    with pytest.raises(ValueError, match=r"(W|x|b): expected"):
        net.predict(x)


def test_a_ratio_that_is_not_allowed_gets_the_error_of_the_layer():
    net, x = network(), np.ones((2, FEATURES), np.float32)
    net.predict(x)
    net.layers["Dropout1"].dropout_ratio = 2
    with pytest.raises(ValueError, match="dropout_ratio: expected"):
        net.predict(x)


def test_a_result_is_the_callers_own():
    net, x = network(), np.random.default_rng(0).standard_normal((2, FEATURES)).astype(np.float32)
    first, second = net.predict(x[0]), net.predict(x[1])
    np.testing.assert_array_equal([first, second], net.predict(x))
    assert not np.array_equal(first, second)


def test_a_prediction_leaves_what_backward_needs():
    net, x, t = network(np.float64), np.random.default_rng(0).standard_normal((5, FEATURES)), np.zeros(5, int)
    net.loss(x, t)
    expected = copy.deepcopy(net).layers["Affine1"].x
    net.predict(2 * x)
    net.accuracy(3 * x, t)
    np.testing.assert_array_equal(net.layers["Affine1"].x, expected)


def test_validation_of_fit_is_the_loss_and_the_accuracy_of_the_network():
    rng = np.random.default_rng(0)
    net, x, t = TwoLayerNet(FEATURES, 5, 3, seed=0), rng.standard_normal((40, FEATURES)), rng.integers(0, 3, 40)
    net.weight_decay_lambda = 0.1
    row = net.fit(x, t, seed=0, validation_data=(x, t, np.arange(40.0)))
    assert row["val_loss"] == [net.loss(x, t, sample_weight=np.arange(40.0))]
    assert row["val_accuracy"] == [net.accuracy(x, t, np.arange(40.0))]


class Counting(ReLU):
    """Counts the batches of one size that it has seen."""

    seen = 0

    def forward(self, x):
        self.seen += len(x) == 7
        return super().forward(x)


class Halved(TwoLayerNet):
    """A network with an accuracy of its own."""

    def accuracy(self, x, t, sample_weight=None):
        return super().accuracy(x, t, sample_weight) / 2


@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
@pytest.mark.parametrize("weights", [(), (np.arange(7.0),)])
def test_one_prediction_gives_the_loss_and_the_accuracy_of_an_epoch(weights):
    rng = np.random.default_rng(0)
    net, x, t = TwoLayerNet(FEATURES, 5, 3, seed=0), rng.standard_normal((40, FEATURES)), rng.integers(0, 3, 40)
    net.layers["Relu1"] = counting = Counting()
    row = net.fit(x, t, epochs=3, seed=0, validation_data=(x[:7], t[:7], *weights))
    assert counting.seen == 3
    assert row["val_loss"][-1] == net.loss(x[:7], t[:7], sample_weight=weights[0] if weights else None)
    assert row["val_accuracy"][-1] == net.accuracy(x[:7], t[:7], *weights)


def test_validation_takes_the_accuracy_of_a_network_that_has_its_own():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((40, FEATURES)), rng.integers(0, 3, 40)
    plain, halved = (
        kind(FEATURES, 5, 3, seed=0).fit(x, t, seed=0, validation_data=(x, t)) for kind in (TwoLayerNet, Halved)
    )
    assert halved["val_accuracy"] == [plain["val_accuracy"][0] / 2]
    assert halved["val_loss"] == plain["val_loss"]


def test_a_reference_predicts_by_numpy():
    net, x = network(np.float64), np.ones((2, FEATURES))
    with use_reference():
        np.testing.assert_allclose(net.predict(x), by_layers(net, x), rtol=1e-14)
        assert not keeps_nothing(net)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_predicts_by_its_own_arrays(again):
    net, x = network(), np.ones(FEATURES, np.float32)
    before = net.predict(x)
    twin = again(net)
    twin.params["W1"][...] = 0
    assert_bitwise(net.predict(x), before)
    assert_bitwise(twin.predict(x), by_layers(twin, x))


def test_threads_of_python_predict_with_one_network():
    net = network()
    samples = [np.random.default_rng(n).standard_normal((n, FEATURES)).astype(np.float32) for n in (1, 9, 40, 2000)]
    expected, wrong = [by_layers(net, x) for x in samples], []

    def predict(x, y):
        for _ in range(50):
            if not np.array_equal(net.predict(x), y):
                wrong.append(len(x))

    threads = [threading.Thread(target=predict, args=pair) for pair in zip(samples, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_activations_alone_and_unknown_layers_predict_by_themselves():
    class Own:
        def forward(self, x):
            return 2 * x

        def backward(self, dout):
            return dout

    x = np.ones((2, FEATURES), np.float32)
    for layers in ([ReLU()], [Own(), Affine(np.ones((FEATURES, 2), np.float32), np.ones(2, np.float32))]):
        net = Sequential(layers, SoftmaxWithLoss())
        assert_bitwise(net.predict(x), by_layers(net, x))
