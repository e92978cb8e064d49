"""What a callback of `fit` changes counts from the next step on, as in a loop of updates, or is refused."""

import copy
import re
from inspect import Parameter, signature

import numpy as np
import pytest

from fastbp import History, Sequential, StopTraining, TwoLayerNet, saving
from fastbp.layers import (
    Affine,
    Dropout,
    ExpWithLoss,
    IdentityWithLoss,
    ReLU,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.optimizers import SGD, Adam, Momentum
from fastbp.training import run as training_run
from tests.pages import text_of

X, T = np.random.default_rng(0).random((30, 6)), np.arange(30) % 3


def affine(seed, D, M, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return Affine((rng.standard_normal((D, M)) / D**0.5).astype(dtype), 0.1 * rng.standard_normal(M).astype(dtype))


def network(is_looped=False):
    layers = [affine(1, 6, 8), ReLU(), Dropout(0.4, seed=7), affine(2, 8, 3)]
    net = Sequential(layers, SoftmaxWithLoss())
    if is_looped:
        layers[2].backward = layers[2].backward  # a layer with a method of its own is not the engine's
    return net


def replace_activation(net, optimizer):
    net.layers["ReLU1"] = Tanh()


def replace_affine(net, optimizer):
    net.layers["Affine2"] = affine(3, 8, 3)


def add_layers(net, optimizer):
    net.layers["Affine3"] = affine(3, 3, 3)
    net.layers.move_to_end("Affine2", last=False)
    net.layers["Affine2"].W, net.layers["Affine2"].b = np.eye(6), np.zeros(6)
    net.layers["Affine3"].W = np.random.default_rng(4).standard_normal((8, 3))


def widen(net, optimizer):
    first, second = net.layers["Affine1"], net.layers["Affine2"]
    first.W, first.b = affine(4, 6, 20).W, np.zeros(20)
    second.W = affine(5, 20, 3).W


def narrow(net, optimizer):
    first, second = net.layers["Affine1"], net.layers["Affine2"]
    first.W, first.b, second.W = first.W[:, :2].copy(), first.b[:2].copy(), second.W[:2].copy()


def change_dtype(net, optimizer):
    for layer in (net.layers["Affine1"], net.layers["Affine2"]):
        layer.W, layer.b = layer.W.astype(np.float32), layer.b.astype(np.float32)


def mix_dtypes(net, optimizer):
    net.layers["Affine1"].W = net.layers["Affine1"].W.astype(np.float32)


def share_memory(net, optimizer):
    net.layers["Affine2"].b = net.layers["Affine1"].b[:3]


def become_momentum(net, optimizer):
    optimizer.__class__, optimizer.momentum, optimizer.v = Momentum, 0.5, None


def use_columns(net, optimizer):
    net.layers["Affine1"].W = np.asfortranarray(net.layers["Affine1"].W)


def set_method(net, optimizer):
    layer = net.layers["ReLU1"]
    layer.forward = lambda x: ReLU.forward(layer, 2 * np.asarray(x))


def set_gradient(net, optimizer):
    net.gradient = lambda x, t: {key: 2 * value for key, value in Sequential.gradient(net, x, t).items()}


def replace_loss(net, optimizer):
    net.last_layer = SoftmaxWithLoss()
    net.last_layer.backward = lambda dout=1: 3 * SoftmaxWithLoss.backward(net.last_layer, dout)


def assign(attribute, value, owner="optimizer"):
    def change(net, optimizer):
        setattr(optimizer if owner == "optimizer" else net.layers[owner], attribute, value)

    change.__name__ = f"{attribute} of {owner}"
    return change


def write_parameters(net, optimizer):
    net.params["W1"][...] *= 0.5
    net.params["b2"] = np.ones(3)


HONOURED = [
    assign("dropout_ratio", 0.7, "Dropout1"),
    assign("dropout_ratio", 0.0, "Dropout1"),
    assign("seed", 99, "Dropout1"),
    assign("step", 1000, "Dropout1"),
    assign("lr", 0.01),
    assign("lr", lambda step: 0.5 / (1 + step)),
    assign("weight_decay", 0.3),
    assign("iter", 0),
    write_parameters,
    replace_activation,
    replace_affine,
    add_layers,
    widen,
    narrow,
    change_dtype,
    mix_dtypes,
    share_memory,
    use_columns,
    set_method,
    set_gradient,
    replace_loss,
    assign("__class__", Tanh, "ReLU1"),
    become_momentum,
]


def loop(net, optimizer, change, place, epochs=4, batch_size=8):
    """The same with gradients and updates; the change comes after the step of an epoch that is `place`, or the last."""
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        order = rng.permutation(len(X))
        for step, start in enumerate(range(0, len(X), batch_size), 1):
            batch = order[start : start + batch_size]
            optimizer.update(net.params, net.gradient(X[batch], T[batch]))
            if (epoch, step) == (1, place):
                change(net, optimizer)


@pytest.mark.parametrize("is_looped", [False, True], ids=["engine", "layer by layer"])
@pytest.mark.parametrize("when", ["on_epoch", "on_steps"])
@pytest.mark.parametrize("change", HONOURED, ids=lambda change: change.__name__)
@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_change_counts_from_the_next_step_on(change, when, is_looped, monkeypatch):
    monkeypatch.setattr(training_run, "STRETCH", 0.0)
    place = 4 if when == "on_epoch" else 2
    fitted, looped = network(is_looped), network(is_looped)
    ours, theirs = SGD(0.1, weight_decay=0.01), SGD(0.1, weight_decay=0.01)

    def callback(progress):
        if (progress.epoch, progress.step) == (2, place):
            change(fitted, ours)

    fitted.fit(X, T, epochs=4, batch_size=8, optimizer=ours, seed=0, **{when: callback})
    loop(looped, theirs, change, place)
    assert fitted.params.keys() == looped.params.keys()
    for key, value in looped.params.items():
        assert fitted.params[key].shape == value.shape
        assert fitted.params[key].dtype == value.dtype
        np.testing.assert_allclose(fitted.params[key], value, atol=1e-12 if value.dtype == np.float64 else 1e-5)
    assert fitted.layers["Dropout1"].step == looped.layers["Dropout1"].step
    assert ours.iter == theirs.iter


def read_only(net, optimizer):
    net.params["W1"].flags.writeable = False


REFUSED = [
    (read_only, ValueError, r"params\['W1'\]: expected an array that can be written to"),
    (assign("dropout_ratio", 1.5, "Dropout1"), ValueError, "dropout_ratio: expected a number that is at least 0"),
    (assign("dropout_ratio", "half", "Dropout1"), TypeError, "dropout_ratio: expected a number, got str"),
    (assign("seed", -1, "Dropout1"), ValueError, "seed: expected at least 0"),
    (assign("step", 0.5, "Dropout1"), TypeError, "step: expected an integer"),
    (assign("W", np.zeros((6, 9)), "Affine1"), ValueError, r"b: expected shape \(9,\), one element for each column"),
    (assign("W", np.zeros((7, 8)), "Affine1"), ValueError, "7 numbers|to multiply W"),
    (assign("b", np.zeros(5), "Affine2"), ValueError, r"b: expected shape \(3,\), one element for each column"),
    (assign("W", [[1.0]], "Affine1"), TypeError, "W: expected a NumPy array, got list"),
    (assign("W", np.zeros((6, 8), int), "Affine1"), TypeError, r"params\['W1'\]: expected floats"),
    (widen, ValueError, r"params\['W1'\]: expected shape \(6, 8\), as the optimizer's v\['W1'\]"),
]


@pytest.mark.parametrize("is_looped", [False, True], ids=["engine", "layer by layer"])
@pytest.mark.parametrize(("change", "error", "match"), REFUSED, ids=[case[0].__name__ for case in REFUSED])
@pytest.mark.filterwarnings("ignore:fit. this network")
def test_what_no_step_can_be_done_with_is_refused_at_once(change, error, match, is_looped, monkeypatch):
    monkeypatch.setattr(training_run, "STRETCH", 0.0)
    net, optimizer, generator, left = network(is_looped), Momentum(0.1), np.random.default_rng(0), []

    def callback(progress):
        if optimizer.iter == 6:
            change(net, optimizer)
            left.extend(copy.deepcopy([dict(net.params), optimizer.v, net.layers["Dropout1"].step]))

    if match.startswith("params") and is_looped and change is widen:
        match = r"params\['W1'\]: expected shape"
    with pytest.raises(error, match=match):
        net.fit(X, T, epochs=4, batch_size=8, optimizer=optimizer, seed=generator, on_steps=callback)
    assert optimizer.iter == 6
    assert net.layers["Dropout1"].step == left[2]
    for key, value in optimizer.v.items():
        np.testing.assert_array_equal(value, left[1][key])
    for key, value in left[0].items():
        np.testing.assert_array_equal(net.params[key], value)


def test_parameters_of_the_best_epoch_are_not_put_into_others():
    net = network()

    def on_epoch(progress):
        if progress.epoch == 3:
            widen(net, None)

    with pytest.raises(ValueError, match="patience: expected the shapes of the best epoch"):
        net.fit(X, T, epochs=3, optimizer=SGD(0.1), patience=2, on_epoch=on_epoch)


@pytest.mark.parametrize("when", ["on_epoch", "on_steps"])
def test_a_fit_within_a_callback_keeps_the_outer_history(when):
    net, inner = network(), []

    def callback(progress):
        assert progress.history is net.history
        inner.append(net.fit(X, T, epochs=2, seed=1))

    history = net.fit(X, T, epochs=3, seed=0, batch_size=30, **{when: callback})
    assert history is net.history
    assert len(history) == 3
    assert [len(one) for one in inner] == [2, 2, 2]
    assert inner[0] is not history


@pytest.mark.filterwarnings("ignore:fit. this network")
@pytest.mark.parametrize("is_looped", [False, True], ids=["engine", "layer by layer"])
def test_a_fit_within_a_callback_trains_what_the_outer_goes_on_with(is_looped):
    nested, flat = network(is_looped), network(is_looped)
    ours, theirs = Adam(0.01), Adam(0.01)

    def callback(progress):
        if progress.epoch == 1:
            nested.fit(X, T, epochs=2, optimizer=ours, seed=1)

    generator = np.random.default_rng(0)
    nested.fit(X, T, epochs=2, optimizer=ours, seed=0, on_epoch=callback)
    flat.fit(X, T, epochs=1, optimizer=theirs, seed=generator)
    flat.fit(X, T, epochs=2, optimizer=theirs, seed=1)
    flat.fit(X, T, epochs=1, optimizer=theirs, seed=generator)
    for key, value in flat.params.items():
        np.testing.assert_array_equal(nested.params[key], value)


@pytest.mark.filterwarnings("ignore:fit. this network")
@pytest.mark.parametrize("is_looped", [False, True], ids=["engine", "layer by layer"])
def test_a_loss_that_is_lost_leaves_all_at_the_step_before(is_looped):
    x = X.copy()
    order = np.random.default_rng(0).permutation(30)
    x[order[17]] = np.nan
    net, whole = network(is_looped), network(is_looped)
    generators = [np.random.default_rng(0) for _ in range(2)]
    ours, theirs = Adam(0.01), Adam(0.01)
    with pytest.raises(FloatingPointError, match="step 3 of epoch 1"):
        net.fit(x, T, batch_size=8, optimizer=ours, seed=generators[0], record_steps=True)
    whole.fit(X[order[:16]], T[order[:16]], batch_size=8, optimizer=theirs, seed=0, drop_last=True, epochs=1)
    assert ours.iter == net.layers["Dropout1"].step == len(net.history.steps) == 2
    x[...] = np.nan
    drawn = generators[1].bit_generator.state
    with pytest.raises(FloatingPointError, match="step 1 of epoch 1"):
        net.fit(x, T, batch_size=8, optimizer=ours, seed=generators[1])
    assert generators[1].bit_generator.state == drawn
    assert ours.iter == net.layers["Dropout1"].step == 2


def halve_the_rate(progress):
    halve_the_rate.optimizer.lr *= 0.5


def run(path=None, resume=None, epochs=6, lr=0.2, on_epoch=halve_the_rate, **more):
    net, optimizer = network(), Momentum(lr)
    halve_the_rate.optimizer = optimizer
    net.fit(
        X, T, epochs=epochs, batch_size=8, optimizer=optimizer, seed=0, checkpoint=path, resume=resume,
        on_epoch=on_epoch, **more,
    )  # fmt: skip
    return net, optimizer


def assert_same_parameters(net, other):
    for key, value in net.params.items():
        np.testing.assert_array_equal(value, other.params[key])


@pytest.mark.parametrize("stops", [(3,), (1, 2, 4)], ids=str)
def test_a_rate_that_a_callback_sets_survives_resuming(tmp_path, stops):
    path = tmp_path / "run.npz"
    whole, its_optimizer = run()
    resume = None
    for epochs in stops:
        run(path, resume, epochs)
        resume = path
    resumed, optimizer = run(path, resume)
    assert optimizer.lr == its_optimizer.lr == 0.2 * 0.5**6
    assert_same_parameters(resumed, whole)


def test_a_rate_for_each_step_goes_on_after_resuming(tmp_path):
    path, rates = tmp_path / "run.npz", np.linspace(0.3, 0.1, 24)
    whole, _ = run(lr=rates, on_epoch=None)
    run(path, epochs=3, lr=rates, on_epoch=None)
    resumed, optimizer = run(path, path, lr=rates, on_epoch=None)
    assert optimizer.lr is rates
    assert_same_parameters(resumed, whole)


def test_a_checkpoint_of_before_there_were_settings_in_it_goes_on(tmp_path):
    path = tmp_path / "run.npz"
    whole, _ = run(on_epoch=None)
    run(path, epochs=3, on_epoch=None)
    arrays, meta = saving.read(path)
    for name in ("given", "settings", "seeds"):
        del meta["checkpoint"][name]
    saving.write(path, arrays, meta)
    assert_same_parameters(run(path, path, on_epoch=None)[0], whole)


def test_a_rate_that_is_given_anew_counts_after_resuming(tmp_path):
    path = tmp_path / "run.npz"
    run(path, epochs=3)
    _, optimizer = run(path, path, epochs=4, lr=0.08)
    assert optimizer.lr == 0.04
    _, optimizer = run(path, path, epochs=5, lr=0.08)
    assert optimizer.lr == 0.02


def test_a_ratio_that_a_callback_sets_and_a_seed_that_was_drawn_survive_resuming(tmp_path):
    def on_epoch(progress):
        layer = progress.network.layers["Dropout1"]
        layer.dropout_ratio = 0.9 * layer.dropout_ratio

    path = tmp_path / "run.npz"
    whole, _ = run(on_epoch=on_epoch)
    run(path, epochs=3, on_epoch=on_epoch)
    resumed = network()
    resumed.layers["Dropout1"].seed = 123
    resumed.fit(
        X, T, epochs=6, batch_size=8, optimizer=Momentum(0.2), seed=0, resume=path, on_epoch=on_epoch
    )  # fmt: skip
    assert resumed.layers["Dropout1"].dropout_ratio == whole.layers["Dropout1"].dropout_ratio < 0.3
    assert_same_parameters(resumed, whole)


def test_a_rate_that_a_callback_makes_a_function_must_be_given_again(tmp_path):
    def on_epoch(progress):
        halve_the_rate.optimizer.lr = rates

    def rates(step):
        return 0.1 / (1 + step)

    path = tmp_path / "run.npz"
    run(path, epochs=2, on_epoch=on_epoch)
    before = network()
    with pytest.raises(ValueError, match="expected lr as a number or an array, got a function that a callback had set"):
        before.fit(X, T, epochs=3, batch_size=8, optimizer=Momentum(0.2), seed=0, resume=path)
    assert_same_parameters(before, network())
    whole, _ = run(epochs=3, on_epoch=on_epoch)
    resumed, _ = run(path, path, epochs=3, lr=rates, on_epoch=None)
    assert_same_parameters(resumed, whole)


def test_the_checkpoint_of_an_epoch_that_a_callback_ends_the_run_with_is_written(tmp_path):
    path = tmp_path / "run.npz"

    def on_epoch(progress):
        halve_the_rate(progress)
        if progress.epoch == 3 and not resumed:
            raise StopTraining

    resumed = []
    run(path, on_epoch=on_epoch, every=5)
    resumed.append(True)
    net, _ = run(path, path, on_epoch=on_epoch)
    assert len(net.history) == 6
    assert_same_parameters(net, run()[0])


VALIDATION = X[:5], T[:5]
MISTAKES = [
    ({"validation_data": X}, TypeError, r"validation_data: expected \(x, t\) or \(x, t, sample_weight\), got ndarray"),
    ({"validation_data": (X,)}, TypeError, "validation_data: expected .*, got tuple of 1"),
    ({"validation_data": (X[:5], T[:4])}, ValueError, "validation_data: t: expected labels of shape"),
    ({"validation_data": (X[:5], T[:5] + 9)}, ValueError, "validation_data: t: expected labels from 0 to 2, got"),
    ({"validation_data": (X[:5, :3], T[:5])}, ValueError, "validation_data: x: expected 6 numbers for each sample"),
    ({"validation_data": (X[:0], T[:0])}, ValueError, "validation_data: x: expected at least one sample"),
    ({"validation_data": (*VALIDATION, [1.0])}, ValueError, "validation_data: sample_weight: expected shape"),
    ({"validation_data": ([["a"]], [0])}, TypeError, "validation_data: x: expected real numbers"),
    ({"on_epoch": 3}, TypeError, "on_epoch: expected a function of the progress, got int"),
    ({"on_steps": "print"}, TypeError, "on_steps: expected a function of the progress, got str"),
    ({"checkpoint": 3}, TypeError, "checkpoint: expected a str or Path, got int"),
    ({"checkpoint": "/dev"}, ValueError, "checkpoint: expected a file or a new name, got a folder or a device"),
    ({"checkpoint": "no/such/folder/run.npz"}, FileNotFoundError, ", got none there; make it first"),
    ({"checkpoint": "/proc/run.npz"}, OSError, "checkpoint: expected a folder that can be written to, got /proc"),
    ({"scale": np.nan}, ValueError, "scale: expected a finite number, got nan"),
    ({"scale": -np.inf}, ValueError, "scale: expected a finite number, got -inf"),
    ({"scale": "1"}, TypeError, "scale: expected"),
    ({"scale": np.ones(3)}, ValueError, "scale: expected a finite number"),
]


@pytest.mark.parametrize(("change", "error", "match"), MISTAKES, ids=lambda value: str(value)[:40])
def test_arguments_are_checked_before_the_first_step(change, error, match):
    net, optimizer, generator = network(), Adam(0.1), np.random.default_rng(0)
    net.history = history = History()
    with pytest.raises(error, match=match):
        net.fit(X, T, optimizer=optimizer, seed=generator, **change)
    assert_same_parameters(net, network())
    assert net.history is history
    assert (optimizer.iter, optimizer.m, net.layers["Dropout1"].step) == (0, None, 0)
    assert generator.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_the_guide_has_the_defaults_of_fit():
    rows = re.findall(r"^\| (`.*`) \| `(.*)` \|", text_of("docs/training.md"), re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    given = {name: each.default for name, each in signature(Sequential.fit).parameters.items()}
    defaults = {name: default for name, default in given.items() if default is not Parameter.empty}
    assert defaults.pop("shards") is False  # told beside comm
    assert told == {name: repr(default).replace("'", '"') for name, default in defaults.items()}


def test_counts_are_checked_before_the_first_step():
    net = Sequential([affine(1, 6, 1)], ExpWithLoss())
    with pytest.raises(ValueError, match=r"t: expected counts, at least 0, got -1"):
        net.fit(X, np.full(30, -1))
    assert_same_parameters(net, Sequential([affine(1, 6, 1)], ExpWithLoss()))


@pytest.mark.parametrize("loss", [IdentityWithLoss, SigmoidWithLoss, ExpWithLoss])
def test_targets_in_a_row_are_as_good_for_validation_as_for_training(loss):
    net = Sequential([affine(1, 6, 1)], loss())
    t = np.arange(30.0) % 2
    history = net.fit(X, t, validation_data=(X[:5], t[:5]))
    assert history["val_loss"][0] == net.loss(X[:5], t[:5].reshape(5, 1))


def test_a_generator_of_another_kind_is_refused_and_nothing_is_changed(tmp_path):
    path = tmp_path / "run.npz"
    run(path, epochs=2)
    net, optimizer, generator = network(), Momentum(0.2), np.random.Generator(np.random.MT19937(0))
    before = generator.bit_generator.state
    with pytest.raises(ValueError, match=r"with a generator MT19937, as seed is, got one with PCG64; pass np\.random"):
        net.fit(X, T, epochs=3, batch_size=8, optimizer=optimizer, seed=generator, resume=path)
    assert_same_parameters(net, network())
    assert optimizer.iter == 0
    assert optimizer.v is None
    np.testing.assert_equal(generator.bit_generator.state, before)


def test_a_checkpoint_is_not_put_into_a_parameter_that_cannot_be_written(tmp_path):
    path = tmp_path / "run.npz"
    run(path, epochs=2)
    net = network()
    net.layers["Affine2"].b.flags.writeable = False
    with pytest.raises(ValueError, match=r"params\['b2'\]: expected an array that can be written to"):
        net.fit(X, T, epochs=3, batch_size=8, optimizer=Momentum(0.2), seed=0, resume=path)
    assert_same_parameters(net, network())


def test_an_optimizer_of_another_network_is_refused():
    optimizer = Adam(0.1)
    TwoLayerNet(6, 5, 3, seed=0).fit(X, T, optimizer=optimizer)
    net = network()
    with pytest.raises(ValueError, match=r"params\['W1'\]: expected shape \(6, 5\), as the optimizer's m\['W1'\]"):
        net.fit(X, T, optimizer=optimizer)
    assert_same_parameters(net, network())


def test_estimators_train_what_a_callback_wrote_and_refuse_what_they_would_not_see():
    MLPClassifier = pytest.importorskip("fastbp.sklearn").MLPClassifier

    def fitted(change, epochs=3):
        def callback(model):
            if model.n_iter_ == 1:
                change(model)

        settings = {"solver": "sgd", "momentum": 0.0, "max_iter": epochs, "n_iter_no_change": 99}
        return MLPClassifier((4,), random_state=0, **settings).fit(X, T, callbacks=[callback])

    def zero(model):
        model.coefs_[0][...] = 0
        model.intercepts_[0][...] = -1  # no hidden unit is ever active then

    with pytest.warns(UserWarning, match="Maximum iterations"):
        assert np.all(fitted(zero).coefs_[0] == 0)
    for name, change in {
        "coefs_": lambda model: model.coefs_.__setitem__(0, np.zeros((6, 4))),
        "alpha": lambda model: model.set_params(alpha=3.0),
        "learning_rate_init": lambda model: setattr(model, "learning_rate_init", 0.5),
    }.items():
        with pytest.raises(ValueError, match=f"{name}: expected a callback to leave it"):
            fitted(change)
