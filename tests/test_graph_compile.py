"""Compiled graphs: the same bits as the graph run operation by operation, whatever the threads; clear refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import graph
from fastbp.graph import Variable, composites
from fastbp.graph.operations import ELEMENTWISE
from fastbp.runtime import generated
from tests.subprocesses import run_python
from tests.test_graph import OPERATIONS, Cube, numerical

BY_DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def example(a, b):
    return (graph.exp(-a * b) / (1 + graph.exp(-a)) * graph.tanh(b)).sum()


@pytest.fixture(scope="module")
def compiled_example():
    return graph.compile(example)


def eager(function, arrays):
    variables = [Variable(array) for array in arrays]
    y = function(*variables)
    y.backward()
    return y.value, [variable.grad for variable in variables]


def assert_bits(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_one_operation_has_the_bits_of_the_graph(name, dtype, rng):
    function, _, derivatives, interval = OPERATIONS[name]
    arrays = [rng.uniform(*interval, (7, 9)).astype(dtype) for _ in derivatives]
    g = graph.compile(function)
    value, gradients = eager(function, arrays)
    got, got_gradients = g.value_and_grad(*arrays)
    if dtype == np.float16:  # the kernel rounds once, at the end
        for result, exact in zip([got, *got_gradients], [value, *gradients], strict=True):
            assert result.dtype == dtype
            np.testing.assert_allclose(result, exact, rtol=5e-3, atol=1e-3)
        return
    assert_bits(g(*arrays), value)
    assert_bits(got, value)
    for result, exact in zip(got_gradients, gradients, strict=True):
        assert_bits(result, exact)


@BY_DTYPE
def test_an_expression_has_the_bits_of_the_graph(compiled_example, dtype, rng):
    arrays = rng.standard_normal((2, 5003)).astype(dtype)
    value, gradients = eager(example, arrays)
    got, got_gradients = compiled_example.value_and_grad(*arrays)
    assert type(got) is dtype
    for result, exact in zip(got_gradients, gradients, strict=True):
        assert_bits(result, exact)
    assert_bits(compiled_example(*arrays), got)
    # Only the order of the sum differs.
    terms = graph.exp(Variable(-arrays[0] * arrays[1])).value / (1 + np.exp(-arrays[0])) * np.tanh(arrays[1])
    assert abs(float(got) - float(value)) <= 4 * np.finfo(dtype).eps * np.abs(terms).sum()


@BY_DTYPE
def test_results_are_bitwise_the_same_for_any_number_of_threads(compiled_example, dtype, rng):
    arrays = rng.standard_normal((2, 100_003)).astype(dtype)
    results = []
    for n in (1, 2, 3, 7):
        with fastbp.num_threads(n):
            value, gradients = compiled_example.value_and_grad(*arrays)
            results.append([value, *gradients])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_bits(a, b)


def test_what_comes_twice_is_computed_once(compiled_example):
    assert compiled_example.source.count("exp(") == 2
    assert compiled_example.source.count("tanh(") == 1
    g = graph.compile(lambda x, y: (x * y) * (y * x) + (x * y))
    assert [line.split(" = ")[1] for line in g.source.splitlines() if line.strip().startswith("t")][:2] == [
        "x * y",
        "t0 * t0",
    ]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 17, generated.BLOCK - 1, generated.BLOCK, generated.BLOCK + 1])
@pytest.mark.parametrize("reduce", [graph.sum, graph.mean])
def test_sum_and_mean_of_any_size(reduce, size, rng):
    if not size and reduce is graph.mean:
        pytest.skip("the mean of nothing")
    x, w = rng.standard_normal(size), 1.5

    def f(x, w):
        return reduce(x * x * w)

    got, (dx, dw) = graph.compile(f).value_and_grad(x, w)
    value, (x_grad, w_grad) = eager(f, [x, w])
    np.testing.assert_allclose([got, dw], [value, w_grad], rtol=1e-14)
    np.testing.assert_allclose(dx, x_grad, rtol=1e-15)


def test_numbers_are_broadcast_and_get_the_sum_of_their_gradients(rng):
    g = graph.compile(lambda x, w, b: graph.tanh(x * w + b))
    x = rng.standard_normal((5, 4)).astype(np.float32)
    value, (dx, dw, db) = g.value_and_grad(x, 0.5, np.float32(2))
    assert value.dtype == dx.dtype == dw.dtype == db.dtype == np.float32
    assert (value.shape, dx.shape, dw.shape, db.shape) == ((5, 4), (5, 4), (), ())
    slope = 1 - np.tanh(x * 0.5 + 2.0) ** 2
    np.testing.assert_allclose(value, np.tanh(x * 0.5 + 2), rtol=1e-6)
    np.testing.assert_allclose([dw, db], [(slope * x).sum(), slope.sum()], rtol=1e-4)
    assert g(1.0, 2.0, 3.0) == pytest.approx(np.tanh(5))
    assert g(x, np.float64(0.5), 2).dtype == np.float64


def test_any_layout_and_dtype_is_taken(compiled_example, rng):
    a, b = rng.standard_normal((2, 6, 8))
    expected, (da, db) = compiled_example.value_and_grad(a, b)
    for changed in (np.asfortranarray(a), a[::-1][::-1], a.astype(">f8")):
        value, gradients = compiled_example.value_and_grad(changed, b)
        assert_bits(value, expected)
        assert_bits(gradients[0], da)
        assert_bits(gradients[1], db)
    whole = np.arange(4)
    assert_bits(compiled_example(whole, whole), compiled_example(whole * 1.0, whole * 1.0))


def test_constant_gradients_and_unused_inputs(rng):
    x = rng.standard_normal(5)
    value, (dx, dw) = graph.compile(lambda x, w: (x + 1).sum()).value_and_grad(x, np.ones(3))
    np.testing.assert_allclose(value, (x + 1).sum())
    np.testing.assert_array_equal(dx, np.ones(5))
    np.testing.assert_array_equal(dw, np.zeros(3))
    value, (dx,) = graph.compile(lambda x: x).value_and_grad(x)
    np.testing.assert_array_equal(value, x)
    np.testing.assert_array_equal(dx, np.ones(5))
    assert graph.compile(lambda x, w: (w * w).sum()).value_and_grad(x, 3.0)[0] == 9


def test_out_is_written_to(compiled_example, rng):
    a, b = rng.standard_normal((2, 50))
    _, (da, db) = compiled_example.value_and_grad(a, b)
    outs = np.empty(50), np.empty(50)
    _, gradients = compiled_example.value_and_grad(a, b, out=(None, outs))
    assert all(gradient is out for gradient, out in zip(gradients, outs, strict=True))
    np.testing.assert_array_equal(outs, [da, db])
    g = graph.compile(lambda x, y: x * y + x)
    expected, out = a * b + a, np.empty((50, 2))[:, 0]
    assert g(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_out_may_be_an_input_or_given_twice(rng):
    a, b = rng.standard_normal((2, 50))
    g = graph.compile(lambda x, y: x * y + x)
    expected = a * b + a
    shared = np.empty(50)
    g.value_and_grad(a, b, out=(None, (shared, shared)))
    np.testing.assert_array_equal(shared, a)
    assert g(a, b, out=a) is a
    np.testing.assert_array_equal(a, expected)
    behind = np.arange(51.0)
    np.testing.assert_array_equal(g(behind[:-1], b, out=behind[1:]), np.arange(50.0) * b + np.arange(50.0))


def test_inputs_are_not_written_to_and_results_are_ones_own(compiled_example, rng):
    a, b = rng.standard_normal((2, 30))
    before = a.copy(), b.copy()
    a.flags.writeable = False
    _, first = compiled_example.value_and_grad(a, b)
    _, second = compiled_example.value_and_grad(a, b)
    np.testing.assert_array_equal([a, b], before)
    assert not any(np.shares_memory(x, y) for x in first for y in second)


def test_a_computed_graph_with_its_inputs(rng):
    x, w = Variable(rng.standard_normal(5), "x"), Variable(2.0, "w")
    y = (graph.sigmoid(x * w) ** 2).mean()
    y.backward()
    g = graph.compile(y, [x, w])
    value, (dx, dw) = g.value_and_grad(x.value, 2.0)
    np.testing.assert_allclose([value, dw], [y.value, w.grad], rtol=1e-14)
    np.testing.assert_allclose(dx, x.grad, rtol=1e-14)


def test_a_function_of_any_number_of_inputs():
    g = graph.compile(lambda x, *weights: sum((x * w for w in weights), x))
    assert g(2.0, 3.0, 4.0) == 16
    assert g(2.0) == 2
    assert "weights1" in graph_source_of(3)


def graph_source_of(count):
    g = graph.compile(lambda x, *weights: sum((x * w for w in weights), x))
    with pytest.raises(RuntimeError, match="source: expected a call first"):
        _ = g.source
    g(*range(count))
    return g.source


def test_names_that_mean_something_in_the_source_do_no_harm():
    g = graph.compile(lambda i, T, exp, t0, value: i * T + graph.exp(exp) * t0 + value)
    assert g(2.0, 3.0, 0.0, 5.0, 7.0) == 18
    x = Variable(2.0, "my input")
    twin = Variable(3.0, "my input")
    assert graph.compile(x * twin + 1, [x, twin])(5.0, 6.0) == 31


def test_an_operation_of_ones_own_compiles():
    value, (dx,) = graph.compile(lambda x: graph.apply(Cube(), x).sum()).value_and_grad(np.array([1.0, 2.0]))
    assert value == 9
    np.testing.assert_array_equal(dx, [3, 12])


@BY_DTYPE
def test_nan_inf_and_tails_come_through(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4, -1e4] * 3, dtype)
    for name in ELEMENTWISE:
        function = getattr(graph, name)
        assert_bits(graph.compile(function)(x), function(Variable(x)).value)
    assert_bits(graph.compile(graph.maximum)(x, x[::-1]), np.maximum(x, x[::-1]))
    assert_bits(graph.compile(graph.minimum)(x, x[::-1]), np.minimum(x, x[::-1]))
    assert_bits(graph.compile(lambda x: graph.clip(x, -1, None))(x), np.clip(x, -1, None))


def outside(x):
    return x * Variable(2.0, "w")


def branching(x):
    return x * 2 if x > 0 else x


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x, y: x @ y, "matmul: expected an operation on single elements"),
        (lambda x: x.reshape(-1), "reshape: expected an operation on single elements"),
        (lambda x: x.T, "transpose: expected an operation on single elements"),
        (lambda x, y: graph.concatenate([x, y]), "concatenate: expected an operation on single elements"),
        (lambda x: x.max(), "max: expected operations on single elements"),
        (lambda x: x.min(axis=0), "min along axis 0: expected operations on single elements"),
        (lambda x: x / x.size, "size: expected a function that does not read the size of its inputs"),
        (lambda x: x / len(x.shape), "shape: expected a function that does not read the shape"),
        (lambda x: x[0], "index: expected an operation on single elements"),
        (lambda x: x.sum(axis=0), "sum along axis 0: expected operations on single elements"),
        (lambda x: x.sum() * 2, "sum: expected it to be the last operation"),
        (lambda x: graph.log(x.mean()), "mean: expected it to be the last operation"),
        (outside, "variable 'w', which is not among the inputs"),
        (branching, "expected a function without branches"),
        (lambda x: x * np.ones(3), "expected constants that are numbers"),
        (lambda x: Variable(2.0, "w") * 3, "expected a result computed from its inputs"),
    ],
)
def test_what_cannot_be_fused_says_so(function, says):
    with pytest.raises(graph.CompileError, match=says):
        graph.compile(function)


@pytest.mark.parametrize("name", composites.LAYERS)
def test_a_layer_that_cannot_be_fused_says_what_to_do(name):
    with pytest.raises(graph.CompileError) as refused:
        graph.compile(getattr(graph, name))
    assert str(refused.value) == (
        f"{name}: expected an operation on single elements, got one that cannot be fused into a kernel; "
        f"call graph.{name} itself, and compile what comes before and after it"
    )


def test_wrong_use_is_refused(compiled_example):
    x, other = Variable(1.0, "x"), Variable(1.0, "other")
    for wrong, kind, says in (
        (lambda: graph.compile(x * 2, [other]), ValueError, "variable 'other', which is not behind it"),
        (lambda: graph.compile(x * other, [x]), ValueError, "variable 'other', which is not among the inputs"),
        (lambda: graph.compile(x * 2), TypeError, "inputs: expected the variables"),
        (lambda: graph.compile(3), TypeError, "f: expected a function or a Variable"),
        (lambda: graph.compile(x, [x]), RuntimeError, "no graph behind it"),
        (lambda: graph.compile(lambda x: 3), TypeError, "f: expected it to return a Variable"),
        (lambda: compiled_example(1.0), TypeError, r"arrays: expected 2 inputs \(a, b\), got 1"),
        (lambda: compiled_example(np.ones(2), np.ones(3)), ValueError, r"b: expected shape \(2,\), as a.*got \(3,\)"),
        (lambda: compiled_example("a", 1.0), TypeError, "a: expected real numbers"),
        (lambda: compiled_example(1.0, 2.0, out=3), TypeError, "out: expected an array of float64, got int"),
        (
            lambda: compiled_example.value_and_grad(np.ones(2), 2.0, out=(None, (np.ones(3), None))),
            ValueError,
            r"out: expected a writeable array of shape \(2,\)",
        ),
        (lambda: compiled_example.value_and_grad(1.0, 2.0, out=np.ones(2)), TypeError, "out: expected .value, "),
    ):
        with pytest.raises(kind, match=says):
            wrong()


CACHED = """
import sys
from fastbp import graph
g = graph.compile(lambda x, y: (x * y + {number}).sum())
print(g([1.0, 2.0], [3.0, 4.0]))
"""


def test_the_cache_is_keyed_by_what_is_computed(tmp_path):
    def files():
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("graph-*.bin")}

    assert run_python(CACHED.format(number=1), FASTBP_CACHE=tmp_path) == "13.0"
    first = files()
    assert len(first) == 1
    assert run_python(CACHED.format(number=1), FASTBP_CACHE=tmp_path) == "13.0"
    assert files() == first
    assert run_python(CACHED.format(number=2), FASTBP_CACHE=tmp_path) == "15.0"
    assert len(files()) == 2
    assert run_python(CACHED.format(number=3), FASTBP_CACHE="off") == "17.0"


# Random expressions: each keeps its values and derivatives moderate over the whole line.
UNARY = [
    ("tanh", graph.tanh, np.tanh),
    ("sigmoid", graph.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    ("exp(-x²)", lambda x: graph.exp(-(x**2)), lambda x: np.exp(-(x**2))),
    ("log(1 + x²)", lambda x: graph.log(1 + x * x), lambda x: np.log(1 + x * x)),
    ("√(1 + x²)", lambda x: graph.sqrt(1 + x * x), lambda x: np.sqrt(1 + x * x)),
    ("softplus", graph.softplus, lambda x: np.logaddexp(0, x)),
    ("sin", np.sin, np.sin),
    ("cos", np.cos, np.cos),
    ("−x/2", lambda x: -x / 2, lambda x: -x / 2),
]
BINARY = [
    ("+", lambda x, y: x + y, np.add),
    ("−", lambda x, y: x - y, np.subtract),
    ("×", lambda x, y: x * y, np.multiply),
    ("x/(1 + y²)", lambda x, y: x / (1 + y**2), lambda x, y: x / (1 + y**2)),
]
EXPRESSIONS = st.recursive(
    st.sampled_from([("input", 0), ("input", 1)]),
    lambda inner: st.one_of(st.tuples(st.sampled_from(UNARY), inner), st.tuples(st.sampled_from(BINARY), inner, inner)),
    max_leaves=8,
)


def evaluated(expression, inputs, which):
    if expression[0] == "input":
        return inputs[expression[1]]
    operands = [evaluated(part, inputs, which) for part in expression[1:]]
    return expression[0][which](*operands)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(EXPRESSIONS, st.integers(0, 2**32 - 1))
def test_random_expressions_agree(expression, seed):
    arrays = np.random.default_rng(seed).uniform(-1.5, 1.5, (2, 11))

    def in_graph(x, y):
        return evaluated(expression, (x, y), 1) + 0 * x * y

    def in_numpy(x, y):
        return evaluated(expression, (x, y), 2)

    value, gradients = eager(in_graph, arrays)
    got, got_gradients = graph.compile(in_graph).value_and_grad(*arrays)
    assert_bits(got, value)
    np.testing.assert_allclose(value, in_numpy(*arrays), rtol=1e-12, atol=1e-12)
    for position, (result, exact) in enumerate(zip(got_gradients, gradients, strict=True)):
        assert_bits(result, exact)
        np.testing.assert_allclose(exact, numerical(in_numpy, arrays, position), rtol=1e-5, atol=1e-7)
