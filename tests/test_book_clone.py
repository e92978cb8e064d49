"""`fastbp.book` beside the book's own code, where the variable FASTBP_BOOK names a clone of its repository."""

import importlib

import numpy as np
import pytest

from tests.book_repository import CLONE, needs_clone, own
from tests.compare import assert_same

pytestmark = needs_clone

MODULES = {
    **{f"common/{name}.py": name for name in ("functions", "layers", "gradient", "optimizer", "trainer", "util")},
    "common/multi_layer_net.py": "multi_layer_net",
    "common/multi_layer_net_extend.py": "multi_layer_net_extend",
    "ch04/two_layer_net.py": "ch04",
    "ch05/two_layer_net.py": "ch05",
    "ch07/simple_convnet.py": "ch07",
    "ch08/deep_convnet.py": "ch08",
}


def pair(path):
    return own(path), importlib.import_module(f"fastbp.book.{MODULES[path]}")


def star(module):
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return set(names)


def seeded(seed, function, *arguments, **options):
    np.random.seed(seed)
    return function(*arguments, **options)


@pytest.mark.parametrize("path", MODULES)
def test_a_star_gives_the_names_that_the_books_gives(path):
    theirs, ours = pair(path)
    assert star(ours) == star(theirs)


def test_images_are_those_of_the_book():
    theirs, ours = own("dataset/mnist.py"), importlib.import_module("fastbp.book.mnist")
    of_their_file = {"dataset_dir", "save_file"}
    of_their_making = {"gzip", "pickle", "urllib"}
    assert star(theirs) - star(ours) == of_their_file | of_their_making
    for name in ("key_file", "url_base", "img_dim", "img_size", "train_num", "test_num"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["step_function", "sigmoid", "sigmoid_grad", "relu", "relu_grad", "softmax"])
def test_functions(rng, name, dtype):
    theirs, ours = pair("common/functions.py")
    x = rng.normal(size=(5, 4)).astype(dtype)
    x[0, 0] = 0
    for given in (x, x[0], x.astype(int), x[:, ::2], x[0, 1]):
        if given.ndim == 0 and name in ("relu_grad", "softmax"):
            continue
        assert_same(getattr(ours, name)(given), getattr(theirs, name)(given))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("t", [np.array([0, 3, 1]), np.eye(4)[:3], np.full((3, 4), 0.25), np.array([[1], [2], [0]])])
def test_losses(rng, t, dtype):
    theirs, ours = pair("common/layers.py")
    x = (3 * rng.normal(size=(3, 4))).astype(dtype)
    results = []
    for module in (theirs, ours):
        layer = module.SoftmaxWithLoss()
        results.append((layer.forward(x, t), layer.backward(2), module.softmax_loss(x, t)))
    for expected, got in zip(*results, strict=True):
        assert_same(got, expected, dtype)


def both_ways(module, layer_name, arguments, x, dout, **options):
    layer = getattr(module, layer_name)(*(np.copy(argument) for argument in arguments), **options)
    out = seeded(0, layer.forward, x)
    dx = layer.backward(dout.copy())
    return [out, dx, *(getattr(layer, name, None) for name in ("dW", "db", "dgamma", "dbeta", "running_var"))]


@pytest.mark.parametrize(
    ("name", "x_shape", "shapes", "options"),
    [
        ("Relu", (4, 3, 2), (), {}),
        ("Sigmoid", (4, 3), (), {}),
        ("Affine", (4, 3), [(3, 5), (5,)], {}),
        ("Affine", (4, 3, 2, 2), [(12, 5), (5,)], {}),
        ("Dropout", (4, 3, 2), (), {"dropout_ratio": 0.3}),
        ("BatchNormalization", (4, 3), [(3,), (3,)], {"momentum": 0.7}),
        ("BatchNormalization", (4, 3, 2, 2), [(12,), (12,)], {}),
        ("Convolution", (2, 3, 6, 7), [(4, 3, 3, 2), (4,)], {"stride": 2, "pad": 1}),
        ("Pooling", (2, 3, 6, 7), (), {"pool_h": 2, "pool_w": 3, "stride": 2}),
        ("Pooling", (2, 3, 3, 3), (), {"pool_h": 2, "pool_w": 2, "stride": 4, "pad": 1}),
    ],
)
def test_layers(rng, name, x_shape, shapes, options):
    theirs, ours = pair("common/layers.py")
    x, arguments = rng.normal(size=x_shape), [rng.normal(size=shape) for shape in shapes]
    out = seeded(0, getattr(theirs, name)(*arguments, **options).forward, x)
    dout = rng.normal(size=out.shape)
    expected = both_ways(theirs, name, arguments, x, dout, **options)
    for value, reference in zip(both_ways(ours, name, arguments, x, dout, **options), expected, strict=True):
        assert_same(value, reference)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_optimizers(rng, name):
    theirs, ours = pair("common/optimizer.py")
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(20, 4, 3))
    params = []
    for module in (theirs, ours):
        optimizer, mine = getattr(module, name)(), {"W1": start.copy(), "x": 1.5}
        for gradient in gradients:
            optimizer.update(mine, {"W1": gradient, "x": gradient[0, 0]})
        params.append(mine)
    assert_same(params[1]["W1"], params[0]["W1"])
    assert params[1]["x"] == pytest.approx(params[0]["x"], rel=1e-12)


def test_helpers(rng):
    theirs, ours = pair("common/util.py")
    x = rng.normal(size=(2, 3, 5, 6)).astype(np.float32)
    col = theirs.im2col(x, 3, 2, 2, 1)
    assert_same(ours.im2col(x, 3, 2, 2, 1), col)
    assert_same(ours.col2im(col, x.shape, 3, 2, 2, 1), theirs.col2im(col, x.shape, 3, 2, 2, 1))
    assert_same(ours.smooth_curve(list(range(30))), theirs.smooth_curve(list(range(30))))
    assert ours.conv_output_size(7, 2, 2, 1) == theirs.conv_output_size(7, 2, 2, 1)
    for given in (x, x[:, 0, 0]):
        for value, reference in zip(
            seeded(1, ours.shuffle_dataset, given, np.arange(2)),
            seeded(1, theirs.shuffle_dataset, given, np.arange(2)),
            strict=True,
        ):
            assert_same(value, reference)


def test_numerical_gradients(rng):
    theirs, ours = pair("common/gradient.py")
    x = rng.normal(size=(3, 2))
    for name in ("numerical_gradient", "numerical_gradient_2d"):
        expected = getattr(theirs, name)(lambda x: np.sum(x**3), x.copy())
        np.testing.assert_array_equal(getattr(ours, name)(lambda x: np.sum(x**3), x.copy()), expected)


SMALL = {"input_size": 784, "hidden_size_list": [9, 8], "output_size": 10}
EXTENDED = SMALL | {"use_dropout": True, "dropout_ration": 0.2, "use_batchnorm": True}


@pytest.mark.parametrize("labels", ["labels", "one-hot"])
@pytest.mark.parametrize(
    ("path", "name", "options"),
    [
        ("ch04/two_layer_net.py", "TwoLayerNet", {"input_size": 784, "hidden_size": 9, "output_size": 10}),
        ("ch05/two_layer_net.py", "TwoLayerNet", {"input_size": 784, "hidden_size": 9, "output_size": 10}),
        ("common/multi_layer_net.py", "MultiLayerNet", SMALL | {"weight_decay_lambda": 0.1, "activation": "sigmoid"}),
        ("common/multi_layer_net.py", "MultiLayerNet", SMALL | {"weight_init_std": "Xavier"}),
        ("common/multi_layer_net_extend.py", "MultiLayerNetExtend", EXTENDED | {"weight_decay_lambda": 0.1}),
        ("common/multi_layer_net_extend.py", "MultiLayerNetExtend", SMALL | {"weight_init_std": 0.3}),
        ("ch07/simple_convnet.py", "SimpleConvNet", {}),
        ("ch08/deep_convnet.py", "DeepConvNet", {}),
    ],
)
def test_networks_train_to_the_same_numbers(rng, path, name, options, labels):
    if path.startswith("ch04") and labels == "labels":
        pytest.skip("it takes one-hot rows")
    x, t = rng.random((20, 784), np.float32), rng.integers(0, 10, 20)
    x = x.reshape(-1, 1, 28, 28) if path.startswith(("ch07", "ch08")) else x
    t = np.eye(10)[t] if labels == "one-hot" else t
    outcomes = []
    for module in pair(path):
        np.random.seed(2)
        network = getattr(module, name)(**options)
        losses = []
        for _ in range(3):
            gradient = network.gradient(x[:10], t[:10])
            for key, value in network.params.items():
                value[...] -= 0.1 * gradient[key]
            losses.append(network.loss(x[10:], t[10:]))
        outcomes.append((losses, network.params, network.predict(x), network.accuracy(x, t)))
    (their_losses, their_params, their_y, their_accuracy), (losses, params, y, accuracy) = outcomes
    assert list(params) == list(their_params)
    np.testing.assert_allclose(losses, their_losses, rtol=1e-11)
    for key, value in their_params.items():
        np.testing.assert_allclose(params[key], value, rtol=1e-9, atol=1e-11, err_msg=key)
    np.testing.assert_allclose(y, their_y, rtol=1e-9, atol=1e-10)
    assert accuracy == their_accuracy


@pytest.mark.parametrize(
    ("path", "name", "file"),
    [
        ("ch07/simple_convnet.py", "SimpleConvNet", "ch07/params.pkl"),
        ("ch08/deep_convnet.py", "DeepConvNet", "ch08/deep_convnet_params.pkl"),
    ],
)
def test_stored_parameters_are_read_and_written(rng, tmp_path, path, name, file):
    theirs, ours = (getattr(module, name)() for module in pair(path))
    theirs.load_params(CLONE / file)
    ours.load_params(CLONE / file)
    for key, value in theirs.params.items():
        assert_same(ours.params[key], value)
    ours.save_params(tmp_path / "params.pkl")
    theirs.load_params(tmp_path / "params.pkl")
    np.testing.assert_allclose(theirs.predict(x := rng.random((3, 1, 28, 28))), ours.predict(x), rtol=1e-9, atol=1e-10)


def test_the_trainer_prints_the_same(rng, capsys):
    x, t = rng.random((50, 784), np.float32), rng.integers(0, 10, 50)
    printed = []
    for nets, trainers in zip(pair("common/multi_layer_net.py"), pair("common/trainer.py"), strict=True):
        np.random.seed(3)
        network = nets.MultiLayerNet(784, [5], 10)
        trainers.Trainer(network, x, t, x[:30], t[:30], epochs=3, mini_batch_size=10, optimizer="Adam").train()
        printed.append(capsys.readouterr().out)
    numbers = [[line.rpartition(":")[0] for line in text.splitlines()] for text in printed]
    assert numbers[0] == numbers[1]
    assert printed[0].splitlines()[-1] == printed[1].splitlines()[-1]
