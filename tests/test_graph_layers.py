"""The layers as nodes of a graph: the layers' own numbers, and the same from what is inside them."""

import inspect

import numpy as np
import pytest

from fastbp import functions, graph, layers
from fastbp.graph import Variable, composites, places
from fastbp.graph import operations as graph_operations
from fastbp.graph.structure import behind

# Classes that are no operations by themselves, or none that a user applies.
ABSTRACT = ("Elementwise", "Extreme", "LayerNode", "Operation", "Places", "Reduction", "Total")


def operations(y):
    return sorted(type(variable.operation).__name__ for variable in behind(y)[0])


def leaves(y):
    return {v.name: v for v in behind(y)[1] if v.operation is None}


@pytest.mark.parametrize(
    "t",
    [[2, 0], [[0.1, 0.2, 0.7], [1, 0, 0]], np.eye(3, dtype=np.float32)[[2, 0]]],
    ids=["labels", "distributions", "one-hot float32"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_has_the_layers_numbers(t, dtype, rng):
    x, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 4), (4, 3), (3,)))
    affine, last = layers.Affine(W, b), layers.SoftmaxWithLoss()
    loss = last.forward(affine.forward(x), np.asarray(t))
    dx = affine.backward(last.backward())

    variables = Variable(x, "x"), Variable(W, "W"), Variable(b, "b")
    y = graph.softmax_with_loss(graph.affine(*variables), np.asarray(t))
    y.backward()
    assert y.value == loss
    for variable, expected in zip(variables, (dx, affine.dW, affine.db), strict=True):
        assert variable.grad.dtype == expected.dtype
        np.testing.assert_array_equal(variable.grad, expected)


def test_softmax_and_cross_entropy_are_the_layers(rng):
    x, t = rng.standard_normal((3, 4)), np.array([0, 3, 1])
    softmax, loss = layers.Softmax(), layers.CrossEntropyError()
    expected = loss.forward(softmax.forward(x), t)
    v = Variable(x)
    y = graph.cross_entropy(graph.softmax(v), t)
    y.backward()
    assert y.value == expected
    np.testing.assert_array_equal(v.grad, softmax.backward(loss.backward()))


@pytest.mark.parametrize("t", [[2, 0], [[0.1, 0.2, 0.7], [1, 0, 0]]], ids=["labels", "distributions"])
def test_opening_goes_level_by_level_with_the_same_numbers(t, rng):
    variables = [
        Variable(rng.standard_normal(shape), name) for shape, name in (((2, 4), "x"), ((4, 3), "W"), ((3,), "b"))
    ]
    y = graph.softmax_with_loss(graph.affine(*variables), Variable(t, "t"))
    y.name = "L"
    y.backward()
    expected = [y.value, *(variable.grad for variable in variables)]
    inside = [
        ["Add", "CrossEntropy", "MatMul", "Softmax"],
        ["Add", "Divide", "Divide", "Exp", "Log", "MatMul", "Multiply", "Negate", "Sum", "Sum"],
    ]
    for names in inside:
        y = graph.opened(y)
        assert y.name == "L"
        assert operations(y) == names
        y.backward()
        for got, exact in zip([y.value, *(variable.grad for variable in variables)], expected, strict=True):
            np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2])
def test_softmax_along_an_axis(axis, rng):
    x, dout = rng.standard_normal((2, 3, 4, 5))
    layer, v = layers.Softmax(axis), Variable(x)
    y = graph.softmax(v, axis=axis)
    opened = graph.opened(y)
    np.testing.assert_array_equal(y.value, layer.forward(x))
    y.backward(dout)
    np.testing.assert_array_equal(v.grad, layer.backward(dout))
    opened.backward(dout)
    np.testing.assert_allclose(v.grad, layer.backward(dout), rtol=1e-12, atol=1e-15)


def test_a_layers_settings_come_after_its_operands(rng):
    x, t = rng.standard_normal((2, 3, 4))
    np.testing.assert_array_equal(graph.softmax(x, 0).value, functions.softmax(x, 0))
    assert inspect.signature(graph.softmax).parameters["axis"].default == -1
    loss = graph.huber_with_loss(x, t, 0.1)
    assert loss.value == layers.HuberWithLoss(0.1).forward(x, t)
    for given, named in [((x, 0, 1), {}), ((x, 0), {"axis": 1}), ((x,), {"axes": 0})]:
        with pytest.raises(TypeError, match="argument"):
            graph.softmax(*given, **named)


@pytest.mark.parametrize(("shape", "t"), [((1,), 0), ((1,), [0]), ((3, 1), [0, 0, 0]), ((3, 1), [[0], [0], [0]])])
def test_of_one_class_the_label_is_0(shape, t, rng):
    y = graph.softmax_with_loss(Variable(rng.standard_normal(shape)), t)
    inside = graph.opened(graph.opened(y))
    y.backward()
    inside.backward()
    assert y.value == inside.value == 0


def test_down_to_single_numbers_the_gradient_is_y_minus_t():
    a, t = Variable(np.log([3.0, 2.0, 5.0]), "a"), Variable([0, 1, 0], "t")
    y = graph.opened(graph.softmax_with_loss(a, t), elements=True)
    y.backward()
    assert operations(y) == sorted(["Exp", "Divide", "Log", "Multiply"] * 3 + ["Total"] * 2 + ["Negate"])
    assert y.value == pytest.approx(-np.log(0.2))
    found = leaves(y)
    assert [found[f"a{i}"].grad for i in (1, 2, 3)] == pytest.approx([0.3, 0.2 - 1, 0.5])
    assert a.grad is None


def test_a_whole_network_down_to_single_numbers(rng):
    variables = [
        Variable(rng.standard_normal(shape), name) for shape, name in (((2, 3), "x"), ((3, 2), "W"), ((2,), "b"))
    ]
    y = graph.softmax_with_loss(graph.affine(*variables), [1, 0]) + (variables[1] ** 2)[0].mean()
    y.backward()
    opened = graph.opened(y, elements=True)
    opened.backward()
    assert opened.value == pytest.approx(y.value)
    found = leaves(opened)
    for variable in variables:
        for index in np.ndindex(variable.shape):
            name = variable.name + "".join(str(i + 1) for i in index)
            assert found[name].grad == pytest.approx(variable.grad[index])


def test_opening_leaves_the_graph_as_it_was():
    a = Variable([0.3, 2.9, 4.0], "a")
    y = graph.softmax(a)
    before = operations(y)
    graph.opened(y)
    assert operations(y) == before


def test_the_table_in_the_docs_lists_every_operation():
    table = graph_operations.__doc__
    for module in (graph_operations, places, composites):
        for name, kind in vars(module).items():
            is_operation = isinstance(kind, type) and issubclass(kind, graph.Operation) and not name.startswith("_")
            if is_operation and name not in ABSTRACT:
                assert f"`{name}`" in table


def test_operands_of_a_layer_have_names(rng):
    x, t = rng.standard_normal((3, 4)), [0, 3, 1]
    y = graph.softmax(x=x)
    assert graph.softmax_with_loss(x, t=t).value == graph.softmax_with_loss(t=t, x=x).value
    assert graph.cross_entropy(y=y, t=t).value == graph.cross_entropy(y, t).value
    with pytest.raises(TypeError, match="'t'"):
        graph.softmax_with_loss(x)


def test_every_layer_of_the_table_is_a_function_and_those_of_the_chapter_can_be_opened():
    for name, kind in composites.LAYERS.items():
        function = getattr(graph, name)
        assert function.__doc__ == kind.__doc__
        parameters = list(inspect.signature(function).parameters)
        assert parameters[: len(kind.parameters)] == list(kind.parameters)
        assert kind.inside is not None or not hasattr(composites, kind.__name__)
        assert name in graph.__all__


def test_a_layer_with_nothing_inside_stays_as_it_is(rng):
    class Closed(composites.LayerNode):
        """A softmax that cannot be opened, and that has no name for the table."""

        layer = layers.Softmax

    y = graph.apply(Closed(), Variable(rng.standard_normal(3))) * 2
    assert operations(graph.opened(y)) == ["Closed", "Multiply"]
    with pytest.raises(ValueError, match="elements: expected layers that can be opened, got layer"):
        graph.opened(y.sum(), elements=True)
    assert Closed not in composites.LAYERS.values()


def test_products_of_stacks_go_down_to_single_numbers(rng):
    for x_shape, y_shape in [((2, 3), (3,)), ((3,), (3, 2)), ((3,), (3,)), ((2, 1, 3), (2, 3, 2)), ((3,), (2, 3, 2))]:
        x, y = Variable(rng.standard_normal(x_shape), "x"), Variable(rng.standard_normal(y_shape), "y")
        total = ((x @ y) ** 2).sum()
        total.backward()
        single = graph.opened(total, elements=True)
        single.backward()
        assert single.value == pytest.approx(total.value)
        found = leaves(single)
        for variable in (x, y):
            for position, index in enumerate(np.ndindex(variable.shape), start=1):
                label = str(position) if len(variable.shape) == 1 else "".join(str(i + 1) for i in index)
                assert found[variable.name + label].grad == pytest.approx(variable.grad[index])


def test_wrong_use_is_refused(rng):
    with pytest.raises(ValueError, match="elements: expected a single number"):
        graph.opened(graph.softmax(Variable([1.0, 2.0])), elements=True)
    with pytest.raises(RuntimeError, match="no graph behind it"):
        graph.opened(Variable(1.0))
    with pytest.raises(ValueError, match="t: expected labels from 0 to 2, got 3"):
        graph.softmax_with_loss(Variable(np.zeros((1, 3))), [3])
    with pytest.raises(TypeError, match="t: expected integer labels"):
        graph.softmax_with_loss(Variable(np.zeros((2, 3))), [0.5, 1])
    with pytest.raises(ValueError, match="x: expected"):
        graph.affine(Variable(np.zeros((2, 3))), np.zeros((2, 3)), np.zeros(3))
