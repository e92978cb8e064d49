"""`MultiLayerNet`, `MultiLayerNetExtend`, the weight decay of a network, and `Trainer`."""

import numpy as np
import pytest

import fastbp
from fastbp import MultiLayerNet, MultiLayerNetExtend, Sequential, Trainer, gradient_check
from fastbp.layers import Affine, ReLU, SoftmaxWithLoss
from fastbp.optimizers import SGD, Adam
from tests.compare import assert_same

WITHOUT_ENGINE = pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 6)), rng.integers(0, 3, 40)


def extended(**options):
    return MultiLayerNetExtend(6, [5, 4], 3, "tanh", **{"seed": 1, "use_batchnorm": True} | options)


def test_layers_and_parameters_have_the_books_names():
    network = extended(use_dropout=True, dropout_ration=0.2)
    block = ["Affine", "BatchNorm", "Activation_function", "Dropout"]
    assert list(network.layers) == [f"{name}{number}" for number in (1, 2) for name in block] + ["Affine3"]
    assert network.layers["Dropout1"].dropout_ratio == 0.2
    blocks = [f"{name}{number}" for number in (1, 2) for name in ("W", "b", "gamma", "beta")]
    assert list(network.params) == [*blocks, "W3", "b3"]


@pytest.mark.parametrize(("std", "expected"), [("relu", 2 / 400), ("Xavier", 1 / 400), (0.1, 0.01)])
def test_weights_begin_with_the_variance_of_a_name(std, expected):
    network = MultiLayerNet(400, [300], 2, weight_init_std=std, dtype=np.float32)
    W = network.params["W1"]
    assert W.dtype == np.float32
    assert W.var() == pytest.approx(expected, rel=0.05)
    assert not network.params["b1"].any()


def test_weights_are_those_of_a_seed_or_of_the_global_generator():
    first, second = (MultiLayerNet(6, [5], 3, seed=3).params["W1"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.random.seed(3)
    W = MultiLayerNet(6, [5], 3, weight_init_std=1.0).params["W1"]
    np.random.seed(3)
    np.testing.assert_array_equal(W, np.random.randn(6, 5))


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((6, [5, 0], 3), {}, r"hidden_size_list\[1\]: expected at least 1, got 0"),
        ((6, [5], 3), {"activation": "step"}, "activation: expected one of sigmoid, tanh"),
        ((6, [5], 3), {"weight_init_std": "large"}, "weight_init_std: expected a number or one of relu"),
        ((6, [5], 3), {"weight_decay_lambda": -1}, "weight_decay_lambda: expected a number that is at least 0"),
    ],
)
def test_a_mistake_is_a_clear_error(arguments, options, says):
    with pytest.raises(ValueError, match=says):
        MultiLayerNet(*arguments, **options)


def test_the_weight_decay_is_in_the_loss_and_the_gradient(data):
    x, t = data
    network = MultiLayerNet(6, [5, 4], 3, "tanh", weight_decay_lambda=0.3, seed=1)
    plain = MultiLayerNet(6, [5, 4], 3, "tanh", seed=1)
    squares = sum(np.sum(network.params[f"W{number}"] ** 2) for number in (1, 2, 3))
    assert network.loss(x, t) == pytest.approx(plain.loss(x, t) + 0.15 * squares)
    ours, without = network.gradient(x, t), plain.gradient(x, t)
    for key, value in without.items():
        assert_same(ours[key], value + 0.3 * plain.params[key] if key.startswith("W") else value)


@pytest.mark.parametrize("dropout", [False, True])
def test_the_gradient_is_that_of_the_loss(data, dropout):
    network = extended(weight_decay_lambda=0.3, use_dropout=dropout)
    assert gradient_check(network, *data).passed


@pytest.mark.parametrize("batch_size", [8, 16])
@pytest.mark.parametrize(
    "optimizer", [SGD(0.1), SGD(0.1, weight_decay=0.05), Adam(0.01)], ids=["sgd", "decayed", "adam"]
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fit_trains_with_the_weight_decay_as_the_loop_does(data, dtype, optimizer, batch_size):
    x, t = data[0].astype(dtype), data[1]
    fitted, stepped = (MultiLayerNet(6, [5], 3, weight_decay_lambda=0.2, dtype=dtype, seed=1) for _ in range(2))
    settings = {name: getattr(optimizer, name) for name in optimizer.setting_names()}
    history = fitted.fit(
        x, t, epochs=2, batch_size=batch_size, optimizer=type(optimizer)(**settings), seed=2, record_steps=True
    )
    generator, losses, by_hand = np.random.default_rng(2), [], type(optimizer)(**settings)
    for _ in range(2):
        order = generator.permutation(40)
        for start in range(0, 40, batch_size):
            batch = order[start : start + batch_size]
            losses.append(stepped.loss(x[batch], t[batch]))
            by_hand.update(stepped.params, stepped.gradient(x[batch], t[batch]))
    for key, value in stepped.params.items():
        assert_same(fitted.params[key], value)
    np.testing.assert_allclose(history.steps, losses, rtol=1e-5 if dtype == np.float32 else 1e-12)


@WITHOUT_ENGINE
def test_fit_counts_the_weight_decay_layer_by_layer(data):
    class Own(ReLU):
        pass

    def network(activation):
        W1, W2 = (np.random.default_rng(1).normal(size=shape) for shape in ((6, 5), (5, 3)))
        made = Sequential([Affine(W1, np.zeros(5)), activation, Affine(W2, np.zeros(3))], SoftmaxWithLoss())
        made.weight_decay_lambda = 0.2
        return made

    results = [network(activation).fit(*data, seed=2, validation_data=data) for activation in (ReLU(), Own())]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-12)
    assert results[0]["val_loss"] == pytest.approx(results[1]["val_loss"], rel=1e-12)


@WITHOUT_ENGINE
def test_a_network_comes_back_from_a_file(data, tmp_path):
    network = extended(weight_decay_lambda=0.3, use_dropout=True)
    network.fit(*data, seed=1)
    network.save(tmp_path / "network")
    loaded = fastbp.load(tmp_path / "network")
    assert type(loaded) is MultiLayerNetExtend
    assert loaded.weight_decay_lambda == 0.3
    assert list(loaded.params) == list(network.params)
    assert loaded.loss(*data) == network.loss(*data)
    assert fastbp.load(tmp_path / "network").fit(*data, seed=2)["loss"] == network.fit(*data, seed=2)["loss"]


def test_the_trainer_keeps_losses_and_accuracies(data, capsys):
    x, t = data
    network = MultiLayerNet(6, [8], 3, seed=1)
    trainer = Trainer(network, x, t, x, t, 3, 16, "adam", {"lr": 0.01}, evaluate_sample_num_per_epoch=10, seed=4)
    trainer.train()
    twin = MultiLayerNet(6, [8], 3, seed=1)
    history = twin.fit(x, t, epochs=3, batch_size=16, optimizer=Adam(0.01), seed=4, record_steps=True)
    assert trainer.train_loss_list == history.steps.tolist()
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 3
    assert trainer.test_acc_list[-1] == twin.accuracy(x[:10], t[:10])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1", "epoch 2", "epoch 3"]


def test_the_order_of_a_trainer_follows_the_global_generator(data):
    losses = []
    for _ in range(2):
        np.random.seed(5)
        trainer = Trainer(MultiLayerNet(6, [8], 3), *data, *data, 1, 16, verbose=False)
        trainer.train()
        losses.append(trainer.train_loss_list)
    assert losses[0] == losses[1]


def test_settings_of_an_object_are_refused(data):
    with pytest.raises(ValueError, match="optimizer_param: expected together with the name of an optimizer"):
        Trainer(MultiLayerNet(6, [8], 3), *data, *data, optimizer=SGD(), optimizer_param={"lr": 0.1})
