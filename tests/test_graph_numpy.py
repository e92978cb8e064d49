"""Variables in code that was written for numbers and NumPy: ufuncs, functions, formatting, subclasses."""

import math

import numpy as np
import pytest

from fastbp import graph
from fastbp.graph import Variable, protocol
from tests.test_graph import numerical

UNARY = [u for u in protocol.UFUNCS if u.nin == 1]
BINARY = [u for u in protocol.UFUNCS if u.nin == 2 and u is not np.matmul]


def by_ufunc(ufuncs):
    return pytest.mark.parametrize("ufunc", ufuncs, ids=lambda ufunc: ufunc.__name__)


@by_ufunc([*UNARY, *BINARY])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_a_ufunc_of_variables_is_an_operation_of_the_graph(ufunc, shape, rng):
    arrays = [rng.uniform(0.5, 2, shape)[()] for _ in range(ufunc.nin)]
    variables = [Variable(array) for array in arrays]
    y = ufunc(*variables)
    assert type(y) is Variable
    np.testing.assert_allclose(y.value, ufunc(*arrays), rtol=1e-14)
    if ufunc is not np.positive:
        y.backward()
        for position, variable in enumerate(variables):
            np.testing.assert_allclose(variable.grad, numerical(ufunc, arrays, position), rtol=1e-6, atol=1e-9)


@by_ufunc(BINARY)
def test_one_operand_may_be_an_array_or_a_number(ufunc, rng):
    x, array = Variable(rng.uniform(0.5, 2, 3)), rng.uniform(0.5, 2, 3)
    for other in (array, 2.0, np.float32(2), 3):
        np.testing.assert_allclose(ufunc(x, other).value, ufunc(x.value, other), rtol=1e-6)
        np.testing.assert_allclose(ufunc(other, x).value, ufunc(other, x.value), rtol=1e-6)


def test_products_of_matrices(rng):
    x, W = rng.standard_normal((2, 3)), Variable(rng.standard_normal((3, 4)))
    for y in (x @ W, np.matmul(x, W), np.dot(x, W)):
        y.sum().backward()
        np.testing.assert_array_equal(y.value, x @ W.value)
        np.testing.assert_allclose(W.grad, np.outer(x.sum(axis=0), np.ones(4)), rtol=1e-14)
    np.testing.assert_array_equal(np.dot(W, 2).value, 2 * W.value)
    with pytest.raises(TypeError, match=r"np.dot: expected b of at most two axes, got shape \(2, 3, 4\)"):
        np.dot(x, Variable(np.ones((2, 3, 4))))


def test_questions_about_values_give_values():
    x = Variable([1.0, np.nan, -2.0])
    np.testing.assert_array_equal(np.isnan(x), [False, True, False])
    np.testing.assert_array_equal(np.sign(x), [1, np.nan, -1])
    np.testing.assert_array_equal(np.zeros(3) < x, [True, False, False])
    np.testing.assert_array_equal(np.greater(x, -x), [True, False, False])
    assert np.float64(3) > Variable(2.0)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((3,), 1, 3)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "amax", "amin"])
def test_reductions_of_numpys_take_axes(name, rng):
    array = rng.standard_normal((2, 3, 4))
    x, function = Variable(array), getattr(np, name)
    for arguments in ({}, {"axis": 1}, {"axis": (0, 2)}, {"axis": -1, "keepdims": True}, {"dtype": None, "out": None}):
        if "dtype" in arguments and name not in ("sum", "mean"):
            continue
        np.testing.assert_array_equal(function(x, **arguments).value, function(array, **arguments))
    np.testing.assert_array_equal(function(x, 1).value, function(array, 1))


def test_reduce_of_a_ufunc_begins_with_the_first_axis(rng):
    array = rng.standard_normal((2, 3))
    for ufunc in (np.add, np.maximum, np.minimum):
        for arguments in ({}, {"axis": 1}, {"axis": None}, {"axis": 1, "keepdims": True}):
            np.testing.assert_allclose(
                ufunc.reduce(Variable(array), **arguments).value, ufunc.reduce(array, **arguments)
            )


def test_clip_of_numpys_takes_its_bounds_by_both_names():
    x = Variable([-1.0, 0.5, 2.0])
    for y in (np.clip(x, 0, 1), np.clip(x, a_min=0, a_max=1), np.clip(x, min=0, max=1)):
        np.testing.assert_array_equal(y.value, [0, 0.5, 1])
    np.testing.assert_array_equal(np.clip(x, None, 1).value, [-1, 0.5, 1])


def test_a_name_of_an_array_may_become_that_of_a_variable():
    total, x = np.ones(2), Variable([1.0, 2.0])
    before = total
    total += x
    total.backward()
    np.testing.assert_array_equal(total.value, [2, 3])
    np.testing.assert_array_equal(before, [1, 1])
    np.testing.assert_array_equal(x.grad, [1, 1])


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (
            np.asarray,
            "array: expected numbers, got variable 'x', a Variable, whose graph would be lost; pass its .value",
        ),
        (np.array, "array: expected numbers"),
        (lambda x: np.array([x, x]), "array: expected numbers"),
        (lambda x: np.array([1.0, x]), "array: expected numbers"),
        (lambda x: np.array(x, dtype=object), "array: expected numbers"),
        (lambda x: np.asarray(x, dtype=float), "array: expected numbers"),
        (np.median, "np.median: expected a function that a graph has.*clip, concatenate.*or pass .value"),
        (np.arctan, "np.arctan: expected a function that a graph has.*exp.*or pass .value"),
        (np.multiply.reduce, "np.multiply.reduce: expected a function that a graph has"),
        (np.add.accumulate, "np.add.accumulate: expected a function that a graph has"),
        (lambda x: np.add(x, 1, out=np.ones(2)), "np.add: expected the arguments that the operation of a graph has"),
        (lambda x: np.exp(x, where=[True, False]), "np.exp: expected the arguments"),
        (lambda x: np.sum(x, dtype=np.float32), "np.sum: expected the arguments"),
        (lambda x: np.sum(x, 0, np.float32), "np.sum: expected the arguments"),
        (lambda x: np.reshape(x, (2, 1), order="F"), "np.reshape: expected the arguments"),
    ],
)
def test_what_a_graph_cannot_do_is_an_error_and_no_array_of_objects(use, says):
    with pytest.raises(TypeError, match=says):
        use(Variable([1.0, 2.0], "x"))


def test_numbers_are_formatted_rounded_and_converted():
    for y in (Variable(2.375), Variable(np.float64(2.375)), Variable(1.375) + 1):
        assert f"{y:.2f} {y:8.1e}|{y:>7.1f}" == f"{2.375:.2f} {2.375:8.1e}|{2.375:>7.1f}"
        assert (int(y), round(y), round(y, 1), float(y)) == (2, 2, 2.4, 2.375)
        assert type(int(y)) is int
        assert math.floor(y) == 2
    x = Variable([1.26, 2.0], "x")
    assert f"{x}" == str(x) == repr(x) == "Variable(array([1.26, 2.  ]), name='x')"
    np.testing.assert_array_equal(round(x, 1), [1.3, 2])
    with pytest.raises(TypeError, match=r"format: expected a single number for '.2f', got shape \(2,\)"):
        f"{x:.2f}"
    with pytest.raises(TypeError):
        int(x)


def test_data_is_another_name_of_value():
    w = Variable([1.0, 2.0])
    assert w.data is w.value
    for _ in range(3):
        (w * w).sum().backward()
        w.data -= 0.25 * w.grad
    np.testing.assert_array_equal(w.value, np.array([1, 2]) / 8)
    w.data = 3
    assert type(w.value) is float
    y = w * 2
    with pytest.raises(RuntimeError, match="expected its value to come from its operation"):
        y.data = 1
    with pytest.raises(TypeError, match="value: expected"):
        w.data = "text"


class Scalar(Variable):
    """A subclass with methods and attributes of its own."""

    def doubled(self):
        return self * 2


class Special(Scalar):
    """A subclass of a subclass."""


def test_results_of_a_subclass_are_of_that_subclass():
    x, plain = Scalar(3.0, "x"), Variable(2.0)
    x.note = "own"
    for y in (x * plain, plain * x, 2 - x, np.exp(x), x.sum(), graph.maximum(plain, x), x.doubled().doubled()):
        assert type(y) is Scalar
    assert type(x * Special(1.0)) is type(Special(1.0) * x) is Special
    assert type(plain * plain) is Variable
    y = x.doubled() * plain
    y.backward()
    assert (y.value, x.grad, plain.grad) == (12, 4, 6)
    assert graph.compile(y, [x, plain])(3.0, 2.0) == 12
    assert "x" in y.draw().svg
    assert graph.opened(y).value == 12


def test_a_class_of_single_numbers_by_another_name_runs_its_programs():
    Value = Variable

    def program(a, b):
        c = a - b
        d = b * 3 - a**3
        c += 2 * c - 1
        d += (a - b).relu() * 4 + d
        c -= -d / 2.0
        e = (c * d).relu() + (5.0 - c) ** 2
        return e / 8.0 + 7.0 / (e + 1)

    a, b = Value(-3.0), Value(1.5)
    y = program(a, b)
    y.backward()

    def plain(a, b):
        class Number(float):
            def relu(self):
                return Number(max(self, 0.0))

        for name in ("add", "sub", "mul", "truediv", "pow", "radd", "rsub", "rmul", "rtruediv", "neg"):
            operation = getattr(float, f"__{name}__")
            setattr(Number, f"__{name}__", lambda x, *y, operation=operation: Number(operation(x, *y)))
        return float(program(Number(a), Number(b)))

    assert y.data == plain(-3.0, 1.5)
    h = 1e-6
    assert a.grad == pytest.approx((plain(-3 + h, 1.5) - plain(-3 - h, 1.5)) / (2 * h), rel=1e-6)
    assert b.grad == pytest.approx((plain(-3, 1.5 + h) - plain(-3, 1.5 - h)) / (2 * h), rel=1e-6)
    a.grad = 0
    y.backward()
    assert a.grad != 0


def test_single_numbers_have_the_gradients_of_torch():
    torch = pytest.importorskip("torch")

    def program(x):
        z = 3 * x - 1 + x
        q = z.relu() - z * x
        return (z * z).relu() * 0.5 + q + q * x

    for start in (-4.0, 2.5):
        x, other = Variable(start), torch.tensor(start, dtype=torch.float64, requires_grad=True)
        y, expected = program(x), program(other)
        y.backward()
        expected.backward()
        assert (y.data, x.grad) == (expected.item(), other.grad.item())
