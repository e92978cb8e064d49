"""`fastbp.book` has the numbers of the book's code, its peculiarities among them."""

import gzip
import pickle
import struct

import numpy as np
import pytest

from fastbp.book import ch03, ch04, ch05, ch07, ch08, functions, layers, mnist, parameter_file, util
from fastbp.book.multi_layer_net import MultiLayerNet
from fastbp.book.multi_layer_net_extend import MultiLayerNetExtend
from fastbp.book.trainer import Trainer
from tests.compare import assert_same

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def softmax(x):
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    return y / y.sum(axis=-1, keepdims=True)


# Functions.


@DTYPES
def test_cross_entropy_adds_1e_7_and_keeps_the_dtype(rng, dtype):
    y, t = softmax(rng.normal(size=(5, 3))).astype(dtype), np.array([0, 2, 1, 1, 0])
    expected = -np.mean(np.log(y[np.arange(5), t] + dtype(1e-7)))
    assert_same(functions.cross_entropy_error(y, t), dtype(expected))
    assert functions.cross_entropy_error(np.array([1.0, 0.0]), np.array([0, 1])) == -np.log(1e-7)


def test_cross_entropy_takes_the_largest_of_a_distribution_for_the_class(rng):
    y = softmax(rng.normal(size=(4, 3)))
    t = np.array([[0.4, 0.6, 0], [0.5, 0.2, 0.3], [0, 0, 1], [0.1, 0.8, 0.1]])
    assert functions.cross_entropy_error(y, t) == functions.cross_entropy_error(y, np.array([1, 0, 2, 1]))


def test_cross_entropy_of_a_column_of_labels_takes_every_pair(rng):
    y = softmax(rng.normal(size=(2, 5)))
    pairs = sum(np.log(y[i, label] + 1e-7) for label in (1, 4) for i in (0, 1))
    assert functions.cross_entropy_error(y, np.array([[1], [4]])) == pytest.approx(-pairs / 2)


def test_the_gradient_of_relu_at_0_is_1():
    assert_same(functions.relu_grad(np.array([-1.0, 0, 2])), np.array([0.0, 1, 1]))
    assert_same(functions.relu(np.array([-1, 0, 2])), np.array([0, 0, 2]))


def test_functions_of_numbers_are_those_of_numpy():
    assert_same(functions.step_function(3.0), np.array(1))
    assert_same(functions.sum_squared_error(np.float32([1, 3]), np.float32([0, 1])), np.float32(2.5))
    assert functions.identity_function("anything") == "anything"
    assert functions.softmax_loss(np.zeros((1, 4)), np.array([2])) == pytest.approx(-np.log(0.25 + 1e-7))


# Helpers.


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1), (3, 2)])
def test_im2col_has_a_window_in_each_row(rng, stride, pad):
    x = rng.normal(size=(2, 3, 6, 7)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]).astype(np.float64)
    OH, OW = (6 + 2 * pad - 3) // stride + 1, (7 + 2 * pad - 2) // stride + 1
    rows = [
        padded[n, :, i * stride : i * stride + 3, j * stride : j * stride + 2].ravel()
        for n in range(2)
        for i in range(OH)
        for j in range(OW)
    ]
    col = util.im2col(x, 3, 2, stride, pad)
    assert_same(col, np.array(rows))
    # The sum of products with any rows is that with the images made of them.
    other = rng.normal(size=col.shape)
    image = util.col2im(other, x.shape, 3, 2, stride, pad)
    assert image.shape == x.shape
    assert np.sum(image * x) == pytest.approx(np.sum(other * col))


def test_im2col_of_one_window_is_not_the_images_memory():
    x = np.ones((1, 1, 2, 2))
    util.im2col(x, 2, 2)[...] = 0
    assert x.all()


def test_the_size_of_an_output_is_a_float():
    assert repr(util.conv_output_size(28, 5)) == "24.0"
    assert util.conv_output_size(7, 2, stride=2, pad=1) == 4.5


def test_a_smooth_curve_is_as_long_and_straight_where_it_was():
    assert_same(util.smooth_curve(np.full(30, 2.0)), np.full(30, 2.0))
    curve = util.smooth_curve(np.arange(40.0))
    np.testing.assert_allclose(curve[5:-5], np.arange(5, 35.0))
    weights = np.kaiser(11, 2)
    assert curve[0] == pytest.approx(np.abs(np.arange(-5, 6)) @ weights / weights.sum())


def test_samples_are_shuffled_with_their_targets():
    x, t = np.arange(12).reshape(6, 2), np.arange(0, 12, 2)
    np.random.seed(3)
    shuffled, targets = util.shuffle_dataset(x, t)
    np.random.seed(3)
    np.testing.assert_array_equal(targets, t[np.random.permutation(6)])
    np.testing.assert_array_equal(shuffled[:, 0], targets)


# Layers.


@DTYPES
@pytest.mark.parametrize("order", ["C", "F"])
def test_relu_overwrites_dout(rng, dtype, order):
    x, dout = rng.normal(size=(2, 4, 5)).astype(dtype)
    dout = np.array(dout, order=order)
    expected = np.where(x <= 0, 0, dout)
    relu = layers.Relu()
    relu.forward(x)
    assert relu.backward(dout) is dout
    assert_same(dout, expected)


def test_relu_overwrites_what_no_kernel_takes(rng):
    whole = np.ones((4, 6), np.float16)
    relu = layers.Relu()
    relu.forward(np.array([[-1.0, 1, -1]] * 4))
    relu.backward(whole[:, ::2])
    np.testing.assert_array_equal(whole, [[0, 1, 1, 1, 0, 1]] * 4)


def test_relu_refuses_a_dout_that_it_cannot_overwrite():
    relu, dout = layers.Relu(), np.ones(3)
    dout.flags.writeable = False
    relu.forward(np.array([-1.0, 0, 1]))
    with pytest.raises(ValueError, match="dout: expected an array that can be written to"):
        relu.backward(dout)
    assert dout.all()


@pytest.mark.parametrize("t", [np.array([0, 2, 1]), np.eye(3), np.full((3, 3), 1 / 3)], ids=["labels", "hot", "soft"])
def test_softmax_with_loss_ignores_dout(rng, t):
    x = rng.normal(size=(3, 3))
    layer = layers.SoftmaxWithLoss()
    labels = t if t.ndim == 1 else t.argmax(axis=1)
    y = softmax(x)
    assert layer.forward(x, t) == pytest.approx(-np.mean(np.log(y[np.arange(3), labels] + 1e-7)), rel=1e-14)
    expected = (y - (np.eye(3)[t] if t.ndim == 1 else t)) / 3
    assert_same(layer.backward(5), expected)


def test_dropout_is_not_inverted_and_draws_from_the_global_generator():
    dropout, x = layers.Dropout(0.3), np.ones((4, 5), np.float32)
    np.random.seed(7)
    out = dropout.forward(x)
    np.random.seed(7)
    mask = np.random.rand(4, 5) > 0.3
    assert_same(out, mask.astype(np.float32))
    assert_same(dropout.backward(2 * x), 2 * mask.astype(np.float32))
    assert_same(dropout.forward(x, train_flg=False), x * 0.7)
    np.testing.assert_array_equal(dropout.mask, mask)


@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 3, 2)])
def test_batch_normalization_is_of_each_number_of_a_sample(rng, shape):
    x, dout = rng.normal(size=(2, *shape))
    D = x[0].size
    gamma, beta = rng.normal(size=(2, D))
    norm = layers.BatchNormalization(gamma, beta, momentum=0.8)
    rows = x.reshape(6, D)
    mean, var = rows.mean(axis=0), rows.var(axis=0)
    normal = (rows - mean) / np.sqrt(var + 1e-6)
    assert_same(norm.forward(x), (gamma * normal + beta).reshape(shape))
    assert_same(norm.running_mean, 0.2 * mean)
    assert_same(norm.running_var, 0.2 * var)
    dx = norm.backward(dout)
    assert_same(norm.dgamma, np.sum(normal * dout.reshape(6, D), axis=0))
    assert_same(norm.dbeta, dout.reshape(6, D).sum(axis=0))
    step = rng.normal(size=shape)
    above, below = (np.sum(dout * norm.forward(x + h * step)) for h in (1e-5, -1e-5))
    assert np.sum(dx * step) == pytest.approx((above - below) / 2e-5, rel=1e-6, abs=1e-6)


def test_batch_normalization_predicts_by_running_statistics(rng):
    x, gamma, beta = rng.normal(size=(3, 4)), np.full(4, 2.0), np.ones(4)
    norm = layers.BatchNormalization(gamma, beta)
    assert_same(norm.forward(x, train_flg=False), 2 * x / np.sqrt(1e-6) + 1)
    given = layers.BatchNormalization(gamma, beta, 0.9, np.ones(4), np.full(4, 9.0))
    assert_same(given.forward(x, train_flg=False), 2 * (x - 1) / np.sqrt(9 + 1e-6) + 1)


def test_a_number_is_the_bias_of_every_filter(rng):
    x, W = rng.normal(size=(2, 1, 5, 5)).astype(np.float32), rng.normal(size=(3, 1, 2, 2))
    expected = np.einsum("nchwij,fcij->nfhw", np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3)), W)
    assert_same(layers.Convolution(W, 0).forward(x), expected)


def test_pooling_ignores_its_border_in_the_size_of_its_output():
    x = -np.ones((1, 1, 3, 3))
    pool = layers.Pooling(2, 2, stride=4, pad=1)
    assert pool.forward(x).tolist() == [[[[0]]]]  # of the border
    assert pool.backward(np.ones((1, 1, 1, 1))).shape == x.shape
    with pytest.raises(ValueError, match="pad: expected 0, or a border with which"):
        layers.Pooling(2, 2, stride=1, pad=1).forward(x)


# Networks.

NETWORKS = {
    "sigmoid": (lambda: ch04.TwoLayerNet(4, 5, 3, weight_init_std=1), (4,)),
    "relu": (lambda: ch05.TwoLayerNet(4, 5, 3, weight_init_std=1), (4,)),
    "multi": (lambda: MultiLayerNet(4, [5, 6], 3, activation="sigmoid", weight_decay_lambda=0.3), (4,)),
    "extended": (
        lambda: MultiLayerNetExtend(4, [5, 6], 3, "sigmoid", 0.5, 0.3, use_batchnorm=True),
        (4,),
    ),
    "simple": (
        lambda: ch07.SimpleConvNet((1, 8, 8), {"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1}, 5, 3, 0.5),
        (1, 8, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_s_gradient_is_that_of_its_loss(rng, name):
    make, shape = NETWORKS[name]
    np.random.seed(4)
    network = make()
    x, t = rng.normal(size=(4, *shape)), np.eye(3)[[0, 2, 1, 2]]
    numerical, exact = network.numerical_gradient(x, t), network.gradient(x, t)
    assert numerical.keys() == exact.keys() == network.params.keys()
    for key, value in numerical.items():
        np.testing.assert_allclose(exact[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_that_are_updated_in_place_reach_the_layers(rng, name):
    make, shape = NETWORKS[name]
    network, x = make(), rng.normal(size=(2, *shape))
    for value in network.params.values():
        value[...] = 0
    y = network.predict(x)
    np.testing.assert_array_equal(y, np.full((2, 3), 1 / 3 if name == "sigmoid" else 0))


def test_weights_are_drawn_as_in_the_book():
    np.random.seed(5)
    network = MultiLayerNetExtend(4, [3, 2], 2, use_batchnorm=True, use_dropout=True)
    np.random.seed(5)
    for number, (D, M) in enumerate([(4, 3), (3, 2), (2, 2)], 1):
        assert_same(network.params[f"W{number}"], np.sqrt(2 / D) * np.random.randn(D, M))
    assert list(network.layers)[:4] == ["Affine1", "BatchNorm1", "Activation_function1", "Dropout1"]
    assert list(network.params) == ["W1", "b1", "W2", "b2", "W3", "b3", "gamma1", "beta1", "gamma2", "beta2"]


def test_weight_decay_is_in_the_loss(rng):
    x, t = rng.normal(size=(5, 4)), np.array([0, 1, 1, 0, 2])
    network = MultiLayerNet(4, [3], 3, weight_decay_lambda=0.2)
    squares = sum(np.sum(network.params[key] ** 2) for key in ("W1", "W2"))
    penalized = network.loss(x, t)
    network.weight_decay_lambda = 0
    assert penalized - network.loss(x, t) == pytest.approx(0.1 * squares)


def test_samples_that_fill_no_batch_count_as_misses(rng):
    network = ch07.SimpleConvNet()
    for value in network.params.values():
        value[...] = 0
    assert network.accuracy(np.zeros((25, 1, 28, 28)), np.zeros(25, int), batch_size=10) == 0.8


def test_deep_convnet_drops_in_its_loss(rng):
    network = ch08.DeepConvNet()
    x, t = rng.random((2, 1, 28, 28)), np.array([1, 2])
    np.random.seed(1)
    first = network.loss(x, t)
    assert network.loss(x, t) != first
    np.random.seed(1)
    assert network.loss(x, t) == first
    assert network.predict(x).shape == (2, 10)
    gradient = network.gradient(x, t)
    assert {key: value.shape for key, value in gradient.items()} == {
        key: value.shape for key, value in network.params.items()
    }


# The loop.


class Counted:
    """A network that says how often it was asked."""

    def __init__(self):
        self.params, self.batches = {"W1": np.zeros(1)}, []

    def gradient(self, x, t):
        self.batches.append(x)
        return {"W1": np.ones(1)}

    def loss(self, x, t):
        return np.float64(self.params["W1"][0])

    def accuracy(self, x, t):
        return len(x) / 10


def test_the_trainer_draws_with_replacement_and_prints_each_loss(capsys):
    network, x = Counted(), np.arange(8)
    np.random.seed(6)
    trainer = Trainer(network, x, x, x[:5], x[:5], 2, 4, "sgd", {"lr": 0.5}, evaluate_sample_num_per_epoch=3)
    trainer.train()
    assert capsys.readouterr().out.splitlines() == [
        "train loss:-0.5",
        "=== epoch:1, train acc:0.3, test acc:0.3 ===",
        "train loss:-1.0",
        "train loss:-1.5",
        "=== epoch:2, train acc:0.3, test acc:0.3 ===",
        "train loss:-2.0",
        "=============== Final Test Accuracy ===============",
        "test acc:0.5",
    ]
    np.random.seed(6)
    np.testing.assert_array_equal(network.batches, [np.random.choice(8, 4) for _ in range(4)])


# Files.


def arrays(rng):
    return {"W1": rng.normal(size=(3, 4)), "b1": rng.normal(size=4).astype(np.float32), "n": np.arange(6).reshape(2, 3)}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_parameters_of_every_protocol_and_numpy_are_read(rng, tmp_path, protocol, core):
    expected = arrays(rng) | {"F": np.asfortranarray(rng.normal(size=(2, 3))), "big": np.arange(3, dtype=">f4")}
    content = pickle.dumps(expected, protocol)
    if protocol < 4:  # above, a text has its length before it
        content = content.replace(b"numpy._core", core)
    (tmp_path / "params.pkl").write_bytes(content)
    loaded = parameter_file.load(tmp_path / "params.pkl")
    assert loaded.keys() == expected.keys()
    for key, value in expected.items():
        assert_same(loaded[key], value.astype(value.dtype.newbyteorder("=")))
        assert loaded[key].flags.writeable


def test_what_python_2_wrote_is_read(tmp_path):
    content = (
        b"(dp0\nS'b1'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\n"
        b"Rp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\n"
        b"tp14\nbI00\nS'\\x00\\x00\\x80?\\x00\\x00 \\xc1'\np15\ntp16\nbs."
    )
    (tmp_path / "old.pkl").write_bytes(content)
    assert_same(parameter_file.load(tmp_path / "old.pkl")["b1"], np.float32([1, -10]))


class Harmful:
    def __reduce__(self):
        return print, ("run",)


class Object:
    pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"W1": Harmful()}), "asks for builtins.print, which is not run"),
        (pickle.dumps({"W1": Object()}), "asks for tests.test_book.Object"),
        (pickle.dumps({"W1": np.array([None])}), "got dtype 'O8'"),
        (pickle.dumps({"W1": np.array(["text"])}), "got dtype 'U4'"),
        (pickle.dumps({"W1": np.zeros(1, [("a", float)])}), "arrays of real numbers"),
        (pickle.dumps({"W1": 1.0}), "expected a pickled dict of arrays by name"),
        (pickle.dumps({1: np.zeros(1)}), "expected a name for each array"),
        (pickle.dumps([np.zeros(1)]), "expected a pickled dict of arrays by name"),
        (pickle.dumps({"W1": np.zeros(9)})[:-20], "expected a pickled dict of arrays by name"),
        (b"", "expected a pickled dict of arrays by name"),
        (b"c_codecs\nencode\n(S'a'\nS'hex'\ntR.", "expected bytes as a text in latin1"),
    ],
    ids=["call", "class", "objects", "texts", "records", "number", "keys", "list", "cut", "empty", "codec"],
)
def test_nothing_but_arrays_is_read(tmp_path, capsys, content, says):
    (tmp_path / "params.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"params\.pkl: expected") as raised:
        parameter_file.load(tmp_path / "params.pkl")
    assert says in str(raised.value)
    assert capsys.readouterr().out == ""


def test_saved_parameters_are_a_pickle_and_come_back_into_the_layers(rng, tmp_path):
    x = rng.random((2, 1, 28, 28))
    first, second = ch07.SimpleConvNet(weight_init_std=1), ch07.SimpleConvNet()
    first.save_params(tmp_path / "params.pkl")
    with (tmp_path / "params.pkl").open("rb") as file:
        assert list(pickle.load(file)) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    second.load_params(tmp_path / "params.pkl")
    np.testing.assert_array_equal(second.predict(x), first.predict(x))
    assert second.layers["Conv1"].W is second.params["W1"]
    with pytest.raises(ValueError, match=r"expected the parameters W1, b1.* give the file of a DeepConvNet"):
        ch08.DeepConvNet().load_params(tmp_path / "params.pkl")


def test_the_network_of_chapter_3_predicts_by_a_file(rng, tmp_path):
    weights = {"W1": rng.normal(size=(4, 3)), "W2": rng.normal(size=(3, 5)), "W3": rng.normal(size=(5, 2))}
    weights |= {"b1": rng.normal(size=3), "b2": rng.normal(size=5), "b3": rng.normal(size=2)}
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(weights))
    network, x = ch03.init_network(tmp_path / "weights.pkl"), rng.normal(size=(6, 4))
    h = x
    for number in (1, 2):
        h = 1 / (1 + np.exp(-(h @ weights[f"W{number}"] + weights[f"b{number}"])))
    expected = softmax(h @ weights["W3"] + weights["b3"])
    assert_same(ch03.predict(network, x), expected)
    assert_same(ch03.predict(network, x[0]), expected[0])


# Images.


@pytest.fixture
def idx_folder(tmp_path, rng):
    """The four files, with a few images."""
    for split, count in (("train", 5), ("t10k", 3)):
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8).tobytes()
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28) + pixels
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(range(count))
        )
    return tmp_path


def test_images_have_the_shapes_and_dtypes_of_the_book(idx_folder, monkeypatch):
    monkeypatch.setenv("FASTBP_MNIST_DIR", str(idx_folder))
    (x_train, t_train), (x_test, t_test) = mnist.load_mnist()
    assert (x_train.shape, x_train.dtype, x_test.shape) == ((5, 784), np.float32, (3, 784))
    assert_same(t_train, np.arange(5, dtype=np.uint8))
    assert_same(t_test, np.arange(3, dtype=np.uint8))
    (raw, _), (_, hot) = mnist.load_mnist(normalize=False, flatten=False, one_hot_label=True, folder=idx_folder)
    assert (raw.shape, raw.dtype) == ((5, 1, 28, 28), np.uint8)
    assert_same(x_train, raw.reshape(5, 784).astype(np.float32) / np.float32(255))
    assert_same(hot, np.eye(10)[:3])
    for array in (x_train, t_train, raw):
        array[...] = 0


def test_a_folder_without_the_files_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTBP_MNIST_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="expected train-images-idx3-ubyte"):
        mnist.load_mnist()
