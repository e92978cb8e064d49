"""Optimizers change parameters in place, whatever their layout and dtype."""

import copy

import numpy as np
import pytest

from fastbp import use_reference
from fastbp.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
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
    assert settings == [
        {"lr": 0.01},
        {"lr": 0.01, "momentum": 0.9, "v": None},
        {"lr": 0.01, "momentum": 0.9, "v": None},
        {"lr": 0.01, "h": None},
        {"lr": 0.01, "decay_rate": 0.99, "h": None},
        {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "iter": 0, "m": None, "v": None},
    ]


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
        with pytest.raises(TypeError, match=f"{name}: expected a number, got str"):
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
