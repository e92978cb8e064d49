"""Reshape, transpose, concatenate and extremes: NumPy's values, gradients to the elements that are taken."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbp import graph
from fastbp.graph import Variable
from fastbp.graph.structure import behind
from tests.test_graph import drawn, numerical
from tests.test_layers import LAYOUTS

# Each operation: its function of variables and arrays, and the shapes that it takes.
OPERATIONS = {
    "reshape": (lambda lib, x: lib.reshape(x, (4, 3)), [(2, 6)]),
    "reshape to a row": (lambda lib, x: lib.reshape(x, -1), [(2, 3, 2)]),
    "reshape of a number": (lambda lib, x: lib.reshape(x, (1, 1)), [()]),
    "reshape to a number": (lambda lib, x: lib.reshape(x, ()), [(1, 1)]),
    "transpose": (lambda lib, x: lib.transpose(x), [(2, 3, 4)]),
    "transpose of a row": (lambda lib, x: lib.transpose(x), [(3,)]),
    "transpose of axes": (lambda lib, x: lib.transpose(x, (2, 0, 1)), [(2, 3, 4)]),
    "transpose of axes from behind": (lambda lib, x: lib.transpose(x, (-1, 0, 1)), [(2, 3, 4)]),
    "concatenate": (lambda lib, *xs: lib.concatenate(xs), [(2, 3), (1, 3), (0, 3), (4, 3)]),
    "concatenate along an axis": (lambda lib, *xs: lib.concatenate(xs, axis=-1), [(2, 3), (2, 1)]),
    "concatenate all": (lambda lib, *xs: lib.concatenate(xs, axis=None), [(2, 3), (2,)]),
    **{
        f"{name} along {axis}, keepdims={keepdims}": (
            lambda lib, x, name=name, axis=axis, keepdims=keepdims: getattr(lib, name)(x, axis=axis, keepdims=keepdims),
            [(2, 3, 4)],
        )
        for name, axis, keepdims in itertools.product(("max", "min"), (None, 0, -1, (0, 2)), (False, True))
    },
}
BY_NAME = pytest.mark.parametrize("name", OPERATIONS)


@BY_NAME
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_numpys_and_gradients_those_of_differences(name, dtype, rng):
    function, shapes = OPERATIONS[name]
    arrays = [np.asarray(drawn(rng, shape, (-2, 2)), dtype)[()] for shape in shapes]
    variables = [Variable(array, "x") for array in arrays]
    y = function(graph, *variables)
    expected = np.asarray(function(np, *arrays))
    assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(y.value, expected)
    seed = rng.standard_normal(y.shape).astype(dtype)
    y.backward(seed)
    for position, (variable, array) in enumerate(zip(variables, arrays, strict=True)):
        assert (np.shape(variable.grad), variable.grad.dtype) == (np.shape(array), dtype)
        exact = numerical(lambda *moved: function(np, *moved) * seed, [a.astype(float) for a in arrays], position)
        np.testing.assert_allclose(variable.grad, exact, rtol=1e-6, atol=1e-6)


@BY_NAME
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_numbers(name, layout, rng):
    function, shapes = OPERATIONS[name]
    plain = [rng.standard_normal(shape) for shape in shapes]
    laid_out = [LAYOUTS[layout](np.asarray(array)) if np.size(array) > 1 else array for array in plain]
    results = []
    for arrays in (plain, laid_out):
        variables = [Variable(array) for array in arrays]
        y = function(graph, *variables)
        y.backward()
        results.append([y.value, *(variable.grad for variable in variables)])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(got, expected)


@BY_NAME
def test_a_result_has_memory_of_its_own(name, rng):
    function, shapes = OPERATIONS[name]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    y = function(graph, *map(Variable, arrays))
    before = np.copy(y.value)
    for array in arrays:
        array[...] = 7
    np.testing.assert_array_equal(y.value, before)


@BY_NAME
def test_numpys_functions_take_variables(name, rng):
    function, shapes = OPERATIONS[name]
    variables = [Variable(rng.standard_normal(shape)) for shape in shapes]
    y = function(np, *variables)
    assert type(y) is Variable
    np.testing.assert_array_equal(y.value, function(graph, *variables).value)


@BY_NAME
def test_they_go_down_to_single_numbers(name, rng):
    function, shapes = OPERATIONS[name]
    variables = [Variable(rng.standard_normal(shape), f"x{i}_") for i, shape in enumerate(shapes)]
    y = (function(graph, *variables) ** 2).sum()
    y.backward()
    opened = graph.opened(y, elements=True)
    opened.backward()
    assert opened.value == pytest.approx(y.value)
    found = {v.name: v for v in behind(opened)[1] if v.operation is None}
    for variable in variables:
        for number, index in enumerate(np.ndindex(variable.shape), start=1):
            label = str(number) if len(index) == 1 else "".join(str(i + 1) for i in index)
            if variable.shape and variable.name + label in found:
                assert found[variable.name + label].grad == pytest.approx(variable.grad[index])
            elif variable.shape:
                assert variable.grad[index] == 0


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.data())
def test_any_shape_and_any_order_of_axes(shape, data):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    axes = data.draw(st.permutations(range(len(shape))))
    v = Variable(x)
    y = v.transpose(*axes).reshape(-1, 1) if x.size else v.transpose(*axes)
    np.testing.assert_array_equal(y.value, x.transpose(axes).reshape(y.shape))
    seed = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(seed)
    np.testing.assert_array_equal(v.grad, seed.reshape(x.transpose(axes).shape).transpose(np.argsort(axes)))


def test_the_methods_take_numbers_and_tuples_as_numpys_do():
    v = Variable(np.arange(6.0).reshape(2, 3))
    for y in (v.reshape(3, 2), v.reshape((3, 2)), v.reshape([3, -1])):
        np.testing.assert_array_equal(y.value, v.value.reshape(3, 2))
    for y in (v.T, v.transpose(), v.transpose(1, 0), v.transpose((1, 0)), v.transpose(None)):
        np.testing.assert_array_equal(y.value, v.value.T)
    assert (v.ndim, v.size, v.shape, v.dtype) == (2, 6, (2, 3), np.float64)
    number = Variable(2.0)
    assert (number.ndim, number.size, number.shape, number.dtype) == (0, 1, (), np.float64)
    assert Variable(np.ones(2, np.float32)).dtype == np.float32


def test_extremes_that_are_equal_share_the_gradient():
    v = Variable([[3.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    v.max(axis=1).backward([1.0, 3.0])
    np.testing.assert_array_equal(v.grad, [[0.5, 0, 0.5], [1, 1, 1]])
    v.min().backward()
    np.testing.assert_allclose(v.grad, [[0, 0, 0], [1 / 3] * 3])
    single = graph.opened(v.min(), elements=True)
    single.backward()
    found = {x.name: x.grad for x in behind(graph.opened(Variable([2.0, 2.0], "v").max(), elements=True))[1]}
    assert {"v1", "v2"} <= found.keys()
    number = Variable(2.0)
    number.max().backward()
    assert number.grad == 1


def test_an_extreme_of_nan_is_nan_and_passes_no_gradient():
    v = Variable([1.0, np.nan])
    y = v.max()
    y.backward()
    assert np.isnan(y.value)
    np.testing.assert_array_equal(v.grad, [0, 0])


def test_a_bound_of_clip_is_included_and_none_is_no_bound():
    v = Variable([-1.0, 0.0, 0.5, 1.0, 2.0])
    v.clip(0, 1).backward()
    np.testing.assert_array_equal(v.grad, [0, 1, 1, 1, 0])
    for low, high in ((None, 1), (0, None), (None, None)):
        np.testing.assert_array_equal(v.clip(low, high).value, np.clip(v.value, low, high))
    low, high = Variable(1.0), Variable(-1.0)  # NumPy gives the upper one
    y = graph.clip(v, low, high)
    np.testing.assert_array_equal(y.value, [-1] * 5)
    y.backward()
    assert (low.grad, high.grad) == (0, 5)
    np.testing.assert_array_equal(v.grad, np.where(v.value == -1, 0, 0))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x: x.reshape(4), r"reshape: expected shapes and axes that go together, got x: \(2, 3\)"),
        (lambda x: x.transpose(0), "transpose: expected"),
        (lambda x: x.transpose(0, 5), "transpose: expected"),
        (lambda x: graph.concatenate([x, x.T]), r"concatenate: expected .* x: \(2, 3\) and \(3, 2\)"),
        (lambda x: graph.concatenate([x, 1.0]), "concatenate: expected"),
        (lambda x: x.max(axis=2), "max: expected"),
        (lambda x: x.sum(axis=2), "sum: expected"),
        (lambda x: x[:0].max(), "max: expected"),
    ],
)
def test_shapes_and_axes_that_do_not_go_together_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(Variable(np.ones((2, 3)), "x"))


def test_a_wrong_type_of_shape_or_axis_is_refused():
    x = Variable(np.ones((2, 3)), "x")
    for wrong in (lambda: x.reshape(1.5), lambda: x.reshape("ab"), lambda: x.max(axis="a"), lambda: x.transpose("ab")):
        with pytest.raises(TypeError, match=r"expected shapes and axes that go together, got x: \(2, 3\)"):
            wrong()


def test_they_are_drawn():
    x = Variable(np.arange(4.0), "x")
    y = graph.concatenate([x.reshape(2, 2).T, graph.clip(x.reshape(2, 2), 0, 1)]).max() + graph.minimum(x, 2).sum()
    svg = y.draw().svg
    for text in ("reshape (2, 2)", "T", "concatenate", "clip(·, 0, 1)", "max", "min(·, 2)"):
        assert f">{text}<" in svg
    assert ">abs<" in abs(x).draw().svg
