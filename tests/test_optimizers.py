"""Optimizers change parameters in place, whatever their layout and dtype."""

import contextlib
import copy

import numpy as np
import pytest

from fastbp import optimizers, use_reference
from fastbp.optimizers import SGD, AdaGrad, Adam, AdamW, Momentum, Nadam, Nesterov, RMSprop
from fastbp.optimizers import optimizer as optimizer_of
from tests.compare import assert_same
from tests.test_layers import LAYOUTS

OPTIMIZERS = [SGD(0.1), Momentum(0.1), Nesterov(0.1), AdaGrad(0.1), RMSprop(0.1), Adam(0.1)]
BY_OPTIMIZER = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)


def five_updates(optimizer, params, rng):
    for _ in range(5):
        optimizer.update(params, {key: rng.standard_normal(value.shape) for key, value in params.items()})


@BY_OPTIMIZER
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["C", "Fortran", "strided", "negative", "memory-mapped", "unaligned", "big-endian"])
def test_parameters_are_updated_in_place_in_any_layout(optimizer, dtype, layout, rng):
    W = rng.standard_normal((4, 6)).astype(dtype)
    params, expected = {"W": LAYOUTS[layout](W.copy())}, {"W": W.astype(np.float64)}
    array = params["W"]
    five_updates(copy.deepcopy(optimizer), params, np.random.default_rng(1))
    with use_reference():
        five_updates(copy.deepcopy(optimizer), expected, np.random.default_rng(1))
    assert params["W"] is array
    assert array.dtype == LAYOUTS[layout](W).dtype
    tolerance = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(array.astype(np.float64), expected["W"], atol=tolerance, rtol=tolerance)


@BY_OPTIMIZER
def test_an_optimizer_goes_on_after_a_copy_and_takes_new_parameters(optimizer, rng):
    optimizer = copy.deepcopy(optimizer)
    params = {"W": np.ones(3)}
    five_updates(optimizer, params, np.random.default_rng(1))
    twin, twin_params = copy.deepcopy(optimizer), copy.deepcopy(params)
    five_updates(optimizer, params, np.random.default_rng(2))
    five_updates(twin, twin_params, np.random.default_rng(2))
    assert_same(params["W"], twin_params["W"])
    params["b"] = np.ones(2)
    five_updates(optimizer, params, rng)
    assert not np.array_equal(params["b"], np.ones(2))


def test_defaults_are_the_books():
    settings = [vars(kind()) for kind in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)]
    common = {"lr": 0.01, "weight_decay": 0.0, "iter": 0}
    assert settings == [
        common,
        {**common, "momentum": 0.9, "v": None},
        {**common, "momentum": 0.9, "v": None},
        {**common, "eps": 1e-7, "h": None},
        {**common, "decay_rate": 0.99, "eps": 1e-7, "h": None},
        {**common, "lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-7, "m": None, "v": None},
    ]


@BY_OPTIMIZER
def test_weight_decay_adds_to_the_gradients_of_weights_alone(optimizer, rng):
    optimizer, plain = copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    optimizer.weight_decay = 0.3
    start = {key: rng.standard_normal(shape) for key, shape in {"W1": (3, 4), "b1": 4, "V": 2}.items()}
    params, expected = copy.deepcopy(start), copy.deepcopy(start)
    for _ in range(3):
        grads = {key: rng.standard_normal(value.shape) for key, value in start.items()}
        kept = copy.deepcopy(grads)
        plain.update(expected, {**grads, "W1": grads["W1"] + 0.3 * expected["W1"]})
        optimizer.update(params, grads)
        np.testing.assert_equal(grads, kept)
    for key in start:
        np.testing.assert_allclose(params[key], expected[key], rtol=1e-14)


def test_weight_decay_holds_for_every_optimizer_and_on_the_reference():
    for kind in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam):
        params, twin = {"W": np.ones(3, np.float32)}, {"W": np.ones(3, np.float32)}
        kind(weight_decay=0.5).update(params, {"W": np.zeros(3, np.float32)})
        with use_reference():
            kind(weight_decay=0.5).update(twin, {"W": np.zeros(3, np.float32)})
        assert params["W"].max() < 1
        assert_same(params["W"], twin["W"])


@BY_OPTIMIZER
def test_a_rate_may_be_a_number_a_function_or_an_array(optimizer):
    rates = np.array([0.5, 0.25, 0.125])
    results = []
    for lr in (rates, lambda step: 0.5 / 2**step, None):
        current, params = copy.deepcopy(optimizer), {"W": np.ones(2)}
        for step in range(3):
            current.lr = rates[step] if lr is None else lr
            assert current.iter == step
            assert current.current_lr == rates[step]
            current.update(params, {"W": np.ones(2)})
            assert lr is None or current.lr is lr
        results.append(params["W"])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@BY_OPTIMIZER
@pytest.mark.parametrize(
    "lr", [0.0, lambda step: 0, np.zeros(1), np.zeros(1, int)], ids=["number", "function", "array", "integers"]
)
def test_a_rate_of_0_changes_nothing(optimizer, lr):
    optimizer, params = copy.deepcopy(optimizer), {"W": np.ones(2)}
    optimizer.lr = lr
    optimizer.update(params, {"W": np.ones(2)})
    assert params["W"].tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_rate_may_have_any_floating_dtype(dtype):
    for lr in (np.dtype(dtype).type(0.5), np.full(1, 0.5, dtype)):
        params = {"W": np.ones(2)}
        SGD(lr).update(params, {"W": np.ones(2)})
        assert params["W"].tolist() == [0.5, 0.5]


@BY_OPTIMIZER
def test_updates_are_counted_unless_they_fail(optimizer):
    optimizer, W = copy.deepcopy(optimizer), {"W": np.ones(2)}
    for _ in range(2):
        optimizer.update(W, W.copy())
    with pytest.raises(ValueError, match="grads"):
        optimizer.update(W, {})
    assert optimizer.iter == 2


def test_a_rate_that_is_missing_or_wrong_in_its_step_changes_nothing():
    params, grads = {"W": np.ones(2)}, {"W": np.ones(2)}
    optimizer = Momentum(np.array([0.0]))
    optimizer.update(params, grads)
    before = copy.deepcopy(vars(optimizer))
    with pytest.raises(ValueError, match="lr: expected a rate for step 1, got an array of 1; give one for each"):
        optimizer.update(params, grads)
    np.testing.assert_equal(vars(optimizer), before)
    assert params["W"].tolist() == [1, 1]
    optimizer.lr = lambda step: -step
    with pytest.raises(ValueError, match=r"lr\(1\): expected a number that is at least 0 and finite, got -1"):
        optimizer.update(params, grads)
    optimizer.lr = lambda step: None
    with pytest.raises(TypeError, match=r"lr\(1\): expected a number, got NoneType"):
        optimizer.update(params, grads)
    optimizer.lr = np.ones(5)
    optimizer.lr[1] = np.nan
    with pytest.raises(ValueError, match=r"lr\[1\]: expected a number that is at least 0 and finite, got nan"):
        optimizer.update(params, grads)
    assert params["W"].tolist() == [1, 1]
    assert optimizer.iter == 1


@pytest.mark.parametrize("name", ["sgd", "Momentum", "nesterov", "AdaGrad", "RMSPROP", "adam"])
def test_an_optimizer_by_its_name_has_default_settings(name):
    made = optimizer_of(name)
    assert type(made).__name__.lower() == name.lower()
    assert vars(made) == vars(type(made)())
    assert optimizer_of(name) is not made


def test_an_optimizer_object_is_returned_as_it_is():
    adam = Adam(0.1)
    assert optimizer_of(adam) is adam


def test_parameters_that_share_memory_get_both_updates():
    W = np.zeros((2, 3))
    SGD(1.0).update({"W": W, "V": W.T}, {"W": np.ones((2, 3)), "V": np.full((3, 2), 2.0)})
    assert W.tolist() == [[-3.0] * 3] * 2


@BY_OPTIMIZER
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_a_gradient_that_overlaps_its_parameter_is_read_as_it_was(optimizer, offset, rng):
    memory = rng.standard_normal(10)
    apart, optimizer, other = memory.copy(), copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    for _ in range(2):
        optimizer.update({"W": memory[3:9]}, {"W": memory[3 - offset : 9 - offset]})
        other.update({"W": apart[3:9]}, {"W": apart[3 - offset : 9 - offset].copy()})
    np.testing.assert_array_equal(memory, apart)


@BY_OPTIMIZER
def test_a_setting_is_checked_whenever_it_is_set(optimizer):
    optimizer = copy.deepcopy(optimizer)
    for name in set(vars(optimizer)) - {"v", "h", "m", "iter"}:
        before = getattr(optimizer, name)
        with pytest.raises(TypeError, match=f"{name}: expected a number.*, got str"):
            setattr(optimizer, name, "x")
        with pytest.raises(ValueError, match=f"{name}: expected a number that is at least 0"):
            setattr(optimizer, name, -1)
        assert getattr(optimizer, name) == before


def test_a_list_for_a_parameter_is_refused_before_anything_changes():
    params = {"a": np.zeros(2), "b": [1.0, 2.0]}
    with pytest.raises(TypeError, match=r"params\['b'\]: expected an array or a number, got list"):
        SGD(1.0).update(params, {"a": np.ones(2), "b": [1.0, 1.0]})
    assert params["a"].tolist() == [0, 0]


def test_gradients_are_not_written_to():
    grads = {"W": np.ones(3)}
    Adam().update({"W": np.ones(3)}, grads)
    assert grads["W"].tolist() == [1, 1, 1]


def test_a_parameter_that_changed_its_shape_is_refused():
    optimizer = Momentum()
    optimizer.update({"W": np.ones(3)}, {"W": np.ones(3)})
    with pytest.raises(ValueError, match=r"params\['W'\]: expected shape \(3,\)"):
        optimizer.update({"W": np.ones(4)}, {"W": np.ones(4)})


@pytest.mark.parametrize("kind", [AdaGrad, RMSprop, Adam])
def test_eps_is_added_to_the_root(kind):
    params = {"W": np.zeros(3)}
    kind(0.5, eps=7.0).update(params, {"W": np.full(3, 2.0)})
    plain = {"W": np.zeros(3)}
    kind(0.5, eps=0.0).update(plain, {"W": np.full(3, 2.0)})
    root = {AdaGrad: 2.0, RMSprop: 0.2, Adam: 2 * 0.001**0.5}[kind]
    np.testing.assert_allclose(params["W"], plain["W"] * root / (root + 7), rtol=1e-13)


@pytest.mark.parametrize(
    "lr", [0.1, lambda step: 0.1 / (1 + step), np.linspace(0.1, 0.2, 50)], ids=["number", "f", "array"]
)
@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS)
def test_coefficients_of_many_steps_are_those_of_each(kind, lr):
    optimizer, steps = kind(lr), np.arange(7, 50)
    got = np.broadcast_arrays(*optimizer.coefficients(steps), steps)[:-1]
    np.testing.assert_array_equal(np.array(got).T, [optimizer.coefficients(step) for step in steps.tolist()])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("uses_reference", [False, True])
@pytest.mark.parametrize("kind", [Momentum, Nesterov, RMSprop, Adam, AdamW, Nadam])
def test_a_state_that_decays_ends_at_0_and_is_never_subnormal(kind, uses_reference, dtype):
    """CPUs take some hundred cycles for a subnormal number, and a moment would stay one for ever."""
    settings = {
        "RMSprop": {"decay_rate": 0.5},
        "Adam": {"beta2": 0.5},
        "AdamW": {"beta2": 0.5},
        "Nadam": {"beta2": 0.5},
    }
    optimizer = kind(0.1, **settings.get(kind.__name__, {}))
    tiny = float(np.finfo(dtype).tiny)
    params, grads = {"W": np.ones(3, dtype)}, {"W": np.array([1, 1e3 * tiny, 0], dtype)}
    with use_reference() if uses_reference else contextlib.nullcontext():
        for _ in range(10_000 if dtype == "float64" else 1_500):
            optimizer.update(params, grads)
            for name in optimizer.state_names():
                state = np.abs(getattr(optimizer, name)["W"])
                assert not np.any((state > 0) & (state < tiny))
            grads = {"W": np.zeros(3, dtype)}
    assert all(not getattr(optimizer, name)["W"].any() for name in optimizer.state_names())


@pytest.mark.parametrize("kind", [RMSprop, Adam, AdamW, Nadam])
def test_without_eps_no_mean_of_squares_becomes_0(kind):
    decay = {"decay_rate": 0.5} if kind is RMSprop else {"beta2": 0.5}
    optimizer, params = kind(0.1, eps=0, **decay), {"W": np.ones(1, np.float32)}
    for grad in [1.0] + 130 * [0.0]:
        optimizer.update(params, {"W": np.array([grad], np.float32)})
    assert 0 < getattr(optimizer, optimizer.state_names()[-1])["W"][0] < np.finfo(np.float32).tiny
