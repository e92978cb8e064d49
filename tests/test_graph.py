"""Variables and their operations: NumPy's values, the chain rule's gradients, clear errors."""

import gc
import sys

import numpy as np
import pytest

import fastbp
from fastbp import graph
from fastbp.graph import Variable, operations
from fastbp.graph.elementwise import where
from fastbp.graph.operations import ELEMENTWISE, Operation, elementwise, times
from fastbp.ops.contract import ACTIVATIONS

# Each operation: the function of variables, its NumPy twin, its derivatives, and the interval of its operands.
OPERATIONS = {
    "add": (lambda x, y: x + y, np.add, (lambda x, y: x * 0 + 1, lambda x, y: y * 0 + 1), (-2, 2)),
    "subtract": (lambda x, y: x - y, np.subtract, (lambda x, y: x * 0 + 1, lambda x, y: y * 0 - 1), (-2, 2)),
    "multiply": (lambda x, y: x * y, np.multiply, (lambda x, y: y + x * 0, lambda x, y: x + y * 0), (-2, 2)),
    "divide": (lambda x, y: x / y, np.divide, (lambda x, y: 1 / y + x * 0, lambda x, y: -x / y**2), (0.5, 2)),
    "power": (
        lambda x, y: x**y,
        np.power,
        (lambda x, y: y * x ** (y - 1), lambda x, y: x**y * np.log(x)),
        (0.5, 2),
    ),
    "maximum": (
        graph.maximum,
        np.maximum,
        (lambda x, y: np.where(x > y, 1.0, 0), lambda x, y: np.where(x > y, 0, 1.0)),
        (-2, 2),
    ),
    "minimum": (
        graph.minimum,
        np.minimum,
        (lambda x, y: np.where(x < y, 1.0, 0), lambda x, y: np.where(x < y, 0, 1.0)),
        (-2, 2),
    ),
    "clip": (
        lambda x, y: graph.clip(x, -0.5, y),
        lambda x, y: np.clip(x, -0.5, y),
        (
            lambda x, y: np.where((x >= -0.5) & (x <= y), 1.0, 0),
            lambda x, y: np.where(np.maximum(x, -0.5) > y, 1.0, 0),
        ),
        (-2, 2),
    ),
    "bounds": (
        lambda x, y: graph.clip(0.25, x, y),
        lambda x, y: np.clip(0.25, x, y),
        (
            lambda x, y: np.where((x > 0.25) & (x <= y), 1.0, 0),
            lambda x, y: np.where(np.maximum(x, 0.25) > y, 1.0, 0),
        ),
        (-2, 2),
    ),
    "negate": (lambda x: -x, np.negative, (lambda x: x * 0 - 1,), (-2, 2)),
    "square": (lambda x: x**2, np.square, (lambda x: 2 * x,), (-2, 2)),
    "cube": (lambda x: x**3, lambda x: x**3, (lambda x: 3 * x**2,), (-2, 2)),
    "fourth": (lambda x: x**4, lambda x: x**4, (lambda x: 4 * x**3,), (-2, 2)),
    "inverse square": (lambda x: x**-2, lambda x: x**-2, (lambda x: -2 * x**-3,), (0.5, 2)),
    "x ** 0.5": (lambda x: x**0.5, np.sqrt, (lambda x: 0.5 / np.sqrt(x),), (0.5, 2)),
    "x ** -0.5": (lambda x: x**-0.5, lambda x: 1 / np.sqrt(x), (lambda x: -0.5 * x**-1.5,), (0.5, 2)),
    "x ** 2.5": (lambda x: x**2.5, lambda x: x**2.5, (lambda x: 2.5 * x**1.5,), (0.5, 2)),
    "x ** 0": (lambda x: x**0, np.ones_like, (np.zeros_like,), (0.5, 2)),
    "x ** 1": (lambda x: x**1, np.copy, (np.ones_like,), (-2, 2)),
    "2 ** x": (lambda x: 2**x, np.exp2, (lambda x: np.exp2(x) * np.log(2),), (-2, 2)),
    "1 - x": (lambda x: 1 - x, lambda x: 1 - x, (lambda x: x * 0 - 1,), (-2, 2)),
    "1 / x": (lambda x: 1 / x, lambda x: 1 / x, (lambda x: -1 / x**2,), (0.5, 2)),
    "exp": (graph.exp, np.exp, (np.exp,), (-2, 2)),
    "log": (graph.log, np.log, (lambda x: 1 / x,), (0.5, 2)),
    "sqrt": (graph.sqrt, np.sqrt, (lambda x: 0.5 / np.sqrt(x),), (0.5, 2)),
    "abs": (abs, np.abs, (np.sign,), (-2, 2)),
    "sin": (graph.sin, np.sin, (np.cos,), (-2, 2)),
    "cos": (graph.cos, np.cos, (lambda x: -np.sin(x),), (-2, 2)),
    "tanh": (graph.tanh, np.tanh, (lambda x: 1 - np.tanh(x) ** 2,), (-2, 2)),
    "sigmoid": (
        graph.sigmoid,
        lambda x: 1 / (1 + np.exp(-x)),
        (lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,),
        (-2, 2),
    ),
    "relu": (graph.relu, lambda x: np.where(x > 0, x, 0), (lambda x: np.where(x > 0, 1.0, 0),), (-2, 2)),
    "softplus": (graph.softplus, lambda x: np.log1p(np.exp(x)), (lambda x: 1 / (1 + np.exp(-x)),), (-2, 2)),
}
BINARY = {name: case for name, case in OPERATIONS.items() if len(case[2]) == 2}
SHAPES = [
    ((), ()),
    ((3,), ()),
    ((), (3,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((4, 1, 3), (2, 1)),
    ((1,), (5,)),
    ((0, 3), (3,)),
]


def drawn(rng, shape, interval):
    values = rng.uniform(*interval, shape)
    return values if shape else float(values)


def summed_to(gradient, shape):
    while np.ndim(gradient) > len(shape):
        gradient = gradient.sum(axis=0)
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    return np.sum(gradient, axis=axes, keepdims=True) if axes else gradient


def numerical(f, arrays, position, h=1e-5):
    """Central differences of the sum of f by one of its arrays."""
    result = np.zeros(np.shape(arrays[position]))
    for index in np.ndindex(result.shape):
        sums = []
        for step in (h, -h):
            moved = [np.array(array, dtype=float) for array in arrays]
            moved[position][index] += step
            sums.append(np.sum(f(*moved)))
        result[index] = (sums[0] - sums[1]) / (2 * h)
    return result


@pytest.mark.parametrize("name", OPERATIONS)
def test_one_operation_has_numpys_value_and_the_closed_forms_gradient(name, rng):
    function, numpy, derivatives, interval = OPERATIONS[name]
    for shapes in SHAPES if name in BINARY else [((),), ((3,),), ((2, 0),), ((2, 3),)]:
        arrays = [drawn(rng, shape, interval) for shape in shapes]
        variables = [Variable(array) for array in arrays]
        y = function(*variables)
        np.testing.assert_allclose(y.value, numpy(*arrays), rtol=1e-14)
        y.backward()
        for position, (variable, derivative) in enumerate(zip(variables, derivatives, strict=True)):
            exact = summed_to(np.broadcast_to(derivative(*arrays), y.shape), shapes[position])
            assert np.shape(variable.grad) == shapes[position]
            np.testing.assert_allclose(variable.grad, exact, rtol=1e-13, atol=1e-13)
            np.testing.assert_allclose(variable.grad, numerical(numpy, arrays, position), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_and_gradients_keep_the_dtype(name, dtype):
    function, _, derivatives, (_, high) = OPERATIONS[name]
    variables = [Variable(np.linspace(high / 2, high, 6).astype(dtype)) for _ in derivatives]
    y = function(*variables)
    y.backward()
    assert y.value.dtype == dtype
    assert {variable.grad.dtype for variable in variables} == {np.dtype(dtype)}


def test_dtypes_are_those_of_numpy(rng):
    single, double = Variable(np.ones(3, np.float32)), Variable(np.ones(3))
    assert (single * 2).value.dtype == np.float32
    assert (single * np.float64(2)).value.dtype == np.float64
    assert (single * double).value.dtype == np.float64
    assert (single * np.ones(3, np.int64)).value.dtype == np.float64
    assert Variable(np.ones(3, np.int8)).value.dtype == np.float16
    assert type((Variable(2) * 3).value) is float


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sum_and_mean_along_axes(axis, keepdims, rng):
    x = rng.standard_normal((2, 3, 4))
    for name in ("sum", "mean"):
        v = Variable(x)
        y = getattr(graph, name)(v, axis, keepdims)
        np.testing.assert_allclose(y.value, getattr(np, name)(x, axis=axis, keepdims=keepdims), rtol=1e-14)
        seed = rng.standard_normal(y.shape) if y.shape else 1.7
        y.backward(seed)
        np.testing.assert_allclose(
            v.grad,
            numerical(lambda x, n=name, s=seed: getattr(np, n)(x, axis=axis, keepdims=keepdims) * s, [x], 0),
            1e-7,
        )


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 2)),
    ],
)
def test_matrix_products(x_shape, y_shape, rng):
    arrays = [rng.standard_normal(x_shape), rng.standard_normal(y_shape)]
    x, y = map(Variable, arrays)
    product = x @ y
    np.testing.assert_allclose(product.value, arrays[0] @ arrays[1], rtol=1e-14)
    product.backward()
    for position, variable in enumerate((x, y)):
        assert variable.grad.shape == variable.value.shape
        np.testing.assert_allclose(variable.grad, numerical(np.matmul, arrays, position), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("key", [1, -1, slice(0, 2), (0, 1), (slice(None), 1), ([0, 0, 1], [1, 1, 2]), None, ...])
def test_an_index_gives_its_gradient_to_the_elements_taken(key, rng):
    x = rng.standard_normal((2, 3))
    v = Variable(x)
    y = v[key] * 3
    np.testing.assert_array_equal(y.value, x[key] * 3)
    y.backward()
    np.testing.assert_allclose(v.grad, numerical(lambda x: x[key] * 3, [x], 0), rtol=1e-7, atol=1e-9)


def test_a_mask_is_an_index():
    v = Variable(np.array([1.0, -2, 3]))
    v[v > 0].sum().backward()
    np.testing.assert_array_equal(v.grad, [1, 0, 1])


def test_apples_have_the_books_numbers():
    price, number, tax = Variable(100, "price"), Variable(2, "number"), Variable(1.1, "tax")
    total = price * number * tax
    total.backward()
    assert total.value == pytest.approx(220)
    assert [price.grad, number.grad, tax.grad, total.grad] == pytest.approx([2.2, 110, 200, 1])


def test_gradients_of_a_value_used_twice_add_up():
    x = Variable(3.0)
    y = x * x + x
    y.backward()
    assert x.grad == 7


def test_a_second_backward_gives_the_same():
    x = Variable(np.array([1.0, 2.0]))
    y = (x * x).sum()
    y.backward()
    first = x.grad
    y.backward()
    np.testing.assert_array_equal(first, x.grad)
    y.backward(10)
    np.testing.assert_array_equal(x.grad, [20, 40])
    np.testing.assert_array_equal(first, [2, 4])


def test_gradients_do_not_share_memory():
    x, y, z = (Variable(np.ones(3)) for _ in range(3))
    for total in (x + y + z, (x + y + z) * 1):
        total.backward()
        x.grad[:] = 5
        y.grad[0] = 6
        np.testing.assert_array_equal(z.grad, [1, 1, 1])
        assert y.grad.tolist() == [6, 1, 1]


def test_a_seed_in_the_shape_of_the_result():
    x = Variable(np.array([1.0, 2.0]))
    (x * 3).backward([1, 10])
    np.testing.assert_array_equal(x.grad, [3, 30])


def test_reflected_operations_with_numbers_and_arrays():
    x = Variable(2.0)
    assert [(1 + x).value, (1 - x).value, (3 * x).value, (1 / x).value, (3**x).value] == [3, -1, 6, 0.5, 9]
    for y in (np.ones(2) + x, np.float64(1) + x):
        assert type(y) is Variable
    np.testing.assert_array_equal((np.array([1.0, 2]) @ Variable(np.array([3.0, 4]))).value, 11)


def test_comparisons_are_of_values():
    x = Variable(2.0)
    assert x > 1
    assert x >= 2
    assert x < 3
    assert x <= 2
    assert x == 2
    assert x != 3
    assert x < Variable(3.0)
    np.testing.assert_array_equal(Variable(np.array([1.0, 3.0])) > 2, [False, True])
    assert len({x, Variable(2.0)}) == 2


def test_python_numbers_follow_ieee_as_arrays_do():
    for name in ELEMENTWISE:
        function = getattr(graph, name)
        for x in (0.0, -1.0, 1e4, -1e4, np.inf, -np.inf, np.nan):
            np.testing.assert_allclose(
                function(Variable(x)).value, function(Variable(np.array([x]))).value[0], rtol=1e-15, err_msg=str(x)
            )
    assert (Variable(1.0) / 0.0).value == np.inf
    assert (Variable(-1.0) / Variable(0.0)).value == -np.inf
    assert np.isnan((Variable(0.0) / 0.0).value)
    assert np.isnan((Variable(-8.0) ** (1 / 3)).value)
    assert (Variable(10.0) ** 400).value == np.inf


def test_the_gradient_of_abs_is_the_sign(rng):
    for array in (np.array([np.inf, 2.0, 0.0, -0.0, -2.0, -np.inf, np.nan]), np.array([1.0, -1.0], np.float32)):
        x = Variable(array)
        abs(x).backward()
        assert_same(x.grad, np.sign(array))
    for number in (np.inf, 2.0, 0.0, -2.0, np.nan):
        x = Variable(number)
        abs(x).backward()
        np.testing.assert_equal(x.grad, float(np.sign(number)))


def test_softplus_is_exact_in_both_tails():
    x = np.array([-700.0, -50, -1e-3, 0, 1e-3, 50, 700])
    np.testing.assert_allclose(graph.softplus(Variable(x)).value, np.logaddexp(0, x), rtol=3e-16)


def test_eager_functions_run_on_the_reference_too(rng):
    x = rng.uniform(0.5, 2, 7)
    for function in (graph.exp, graph.log, graph.sin, graph.cos, graph.tanh, graph.sigmoid, lambda v: v**2.5):
        compiled = function(Variable(x)).value
        with fastbp.use_reference():
            np.testing.assert_allclose(function(Variable(x)).value, compiled, rtol=1e-15)


def test_a_chain_of_100_000_nodes():
    x = Variable(1.0)
    y = x
    for _ in range(100_000):
        y = y + x
    y.backward()
    assert (y.value, x.grad) == (100_001, 100_001)
    assert sys.getrecursionlimit() < 100_000
    del y
    gc.collect()


def test_a_wide_graph_is_visited_once_per_node():
    y = Variable(1.0)
    x = y
    for _ in range(200):  # 2**200 paths
        y = y + y
    y.backward()
    assert x.grad == 2.0**200


def test_every_elementwise_operation_of_the_table_is_a_function_and_a_method():
    # Those of the layers' activations have their cases in test_operations.
    assert set(ELEMENTWISE) <= {*OPERATIONS, *(record.activation.name for record in ACTIVATIONS.values())}
    for name, kind in ELEMENTWISE.items():
        function = getattr(graph, name)
        assert (function.__name__, function.__doc__) == (name, kind.__doc__)
        assert name in graph.__all__
        x = Variable(0.5)
        assert getattr(x, name)().value == function(x).value


@pytest.fixture
def leaky(monkeypatch):
    """An operation with a setting, whose entry leaves the table afterwards."""
    monkeypatch.setattr(operations, "ELEMENTWISE", dict(ELEMENTWISE))
    return elementwise(
        "LeakyReLU",
        "x where x > 0, else alpha·x.",
        lambda x, alpha: where(x > 0, x, alpha * x),
        times(lambda x, y, alpha: where(x > 0, 1.0, alpha)),
        name="leaky_relu",
        symbol="leaky",
        settings={"alpha": 0.01},
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_entry_makes_an_operation_with_settings(leaky, dtype, rng):
    assert operations.ELEMENTWISE["leaky_relu"] is leaky
    array = rng.standard_normal(9).astype(dtype)
    for settings, alpha in (({}, 0.01), ({"alpha": 0.25}, 0.25)):
        x = Variable(array, "x")
        y = graph.apply(leaky(**settings), x)
        y.backward()
        np.testing.assert_array_equal(y.value, np.where(array > 0, array, dtype(alpha) * array))
        np.testing.assert_array_equal(x.grad, np.where(array > 0, 1, dtype(alpha)))
        assert y.value.dtype == x.grad.dtype == dtype
        value, (gradient,) = graph.compile(y, [x]).value_and_grad(array)
        assert_same(value, y.value)
        assert_same(gradient, x.grad)
        assert ">leaky<" in y.draw().svg
        number = Variable(-2.0)
        assert graph.apply(leaky(**settings), number).value == -2 * alpha
    with raises(TypeError, "leaky_relu: expected the settings alpha, got beta; leave it out"):
        leaky(beta=1)
    with raises(TypeError, "exp: expected no settings, got alpha; leave it out"):
        graph.exp(x, alpha=1)


def assert_same(got, expected):
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)


class Cube(Operation):
    """x³."""

    symbol = "x³"

    def forward(self, x):
        return x * x * x

    def backward(self, dout, out, x):
        return (dout * (3 * x * x),)


def test_an_operation_of_ones_own():
    x = Variable(np.array([1.0, 2.0]), "x")
    y = graph.apply(Cube(), x)
    y.backward()
    np.testing.assert_array_equal(y.value, [1, 8])
    np.testing.assert_array_equal(x.grad, [3, 12])


class Product(Operation):
    """x·y with a backward that is given."""

    def __init__(self, backward):
        self.backward = backward

    def forward(self, *operands):
        return operands[0] * operands[-1]


@pytest.mark.parametrize(
    ("operands", "backward", "kind", "says"),
    [
        (
            [2.0],
            lambda dout, out, x: dout * x,
            TypeError,
            r"a gradient in it, got float; return \(dx,\), with the comma",
        ),
        ([np.ones(3)], lambda dout, out, x: dout * x, TypeError, "a gradient in it, got ndarray"),
        ([np.ones(1)], lambda dout, out, x: dout * x, TypeError, "a gradient in it, got ndarray"),
        (
            [2.0, 3.0],
            lambda dout, out, x, y: (dout * y,),
            ValueError,
            r"a gradient for each of 2 operands, got one of 1; .*\(dx, dy\)",
        ),
        ([2.0], lambda dout, out, x: (dout, dout), ValueError, "a gradient in it, got one of 2"),
        ([2.0], lambda dout, out, x: None, TypeError, "a gradient in it, got no return"),
    ],
)
def test_a_backward_of_ones_own_that_returns_no_tuple_of_gradients_says_so(operands, backward, kind, says):
    variables = [Variable(value) for value in operands]
    y = graph.apply(Product(backward), *variables)
    with pytest.raises(kind, match=f"Product.backward: expected a tuple with {says}"):
        y.sum().backward()
    with pytest.raises(kind, match=r"Product\.backward: expected a tuple with a gradient"):
        graph.compile(y.sum(), variables)
    assert all(variable.grad is None for variable in variables)


def raises(kind, *says):
    return pytest.raises(kind, match=".*".join(says))


def test_backward_needs_a_graph():
    with raises(RuntimeError, "variable 'x': expected a variable that was computed from others"):
        Variable(1.0, "x").backward()


def test_shapes_that_do_not_broadcast_are_both_named():
    with raises(ValueError, r"add: expected shapes that broadcast, got a: \(2,\) and b: \(3,\)"):
        Variable(np.ones(2), "a") + Variable(np.ones(3), "b")
    with raises(ValueError, r"maximum: .*\(2,\) and \(3,\)"):
        graph.maximum(Variable(np.ones(2)), np.ones(3))
    with raises(ValueError, r"matmul: .*\(2, 3\) and \(2, 3\); the inner sizes must be equal"):
        Variable(np.ones((2, 3))) @ np.ones((2, 3))


@pytest.mark.parametrize("bad", ["text", 1j, None, [[1], [1, 2]], np.ma.array([1.0]), object()])
def test_what_is_not_real_numbers_is_refused(bad):
    with pytest.raises(TypeError, match="expected"):
        Variable(bad)
    with pytest.raises(TypeError, match="expected"):
        Variable(1.0) * bad


def test_a_wrong_seed_index_or_name_is_refused():
    x = Variable(np.ones(3))
    with raises(ValueError, r"seed: expected one number or the shape \(3,\)"):
        (x * 2).backward(np.ones(2))
    with raises(IndexError, r"index: expected one that fits the shape \(3,\)"):
        x[3]
    with raises(TypeError, "index: expected a constant"):
        x[Variable(1)]
    with raises(TypeError, "value: expected numbers, got a Variable"):
        Variable(x)
    with raises(TypeError, "name: expected a text"):
        Variable(1, 2)


def write_element(x):
    x.value[0] = 5


def swap_elements(x):
    x.value[:] = x.value[::-1].copy()


def add_in_place(x):
    x.value += 1


def replace(x):
    x.value = x.value * 1


@pytest.mark.parametrize("change", [write_element, swap_elements, add_in_place, replace])
def test_a_value_changed_between_forward_and_backward_is_an_error(change):
    x = Variable(np.array([1.0, 2.0]), "x")
    y = x * x
    change(x)
    with raises(RuntimeError, "another value of variable 'x' since the result of multiply was computed"):
        y.backward()
    (x * x).backward()
    np.testing.assert_array_equal(x.grad, 2 * x.value)


def test_a_replaced_number_and_a_changed_constant_are_errors():
    x = Variable(2.0, "x")
    y = x * 3
    x.value += 1
    with raises(RuntimeError, "another value of variable 'x'"):
        y.backward()
    constant = np.ones(2)
    y = x * constant
    constant[0] = 2
    with raises(RuntimeError, "an array of constants"):
        y.backward()


def test_a_computed_value_cannot_be_changed():
    x = Variable(np.ones(3))
    y = x[0:2] * 1
    with pytest.raises(ValueError, match="read-only"):
        y.value[0] = 2
    with raises(RuntimeError, "the result of multiply: expected its value to come from its operation"):
        y.value = np.ones(2)
    assert x.value.flags.writeable


def test_a_step_of_gradient_descent_in_place():
    w = Variable(np.array([1.0, 2.0]))
    for _ in range(100):
        (w * w).sum().backward()
        w.value -= 0.1 * w.grad
    np.testing.assert_allclose(w.value, 0, atol=1e-9)


def test_mixing_with_a_cleared_graph_is_an_error():
    x = Variable(2.0, "x")
    h = x * 3
    y = h + 1
    y.backward()
    y.clear()
    assert (y.value, h.value, x.grad) == (7, 6, 3)
    for use in (lambda: h * 2, lambda: x + h, h.backward, y.backward, y.draw):
        with raises(RuntimeError, "which was cleared"):
            use()
    (x * 3).backward()
    assert x.grad == 3


def test_a_variable_over_a_cleared_one_is_an_error_too():
    x = Variable(2.0)
    h = x * 3
    other = h * h
    (h + 1).clear()
    with raises(RuntimeError, "which was cleared"):
        other.backward()
