"""Every mistake gets an error that names the argument, what was expected, what came, and the remedy."""

import copy

import numpy as np
import pytest

from bench.cases import LAYERS, Draw
from fastbp import (
    MultiLayerNet,
    MultiLayerNetExtend,
    Sequential,
    TwoLayerNet,
    graph,
    load,
    numerical_gradient,
    numerical_gradient_2d,
    set_num_threads,
)
from fastbp.layers import (
    AddLayer,
    Affine,
    CrossEntropyError,
    Dropout,
    Identity,
    IdentityWithLoss,
    MulLayer,
    QuantileWithLoss,
    ReLU,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.optimizers import SGD, Adam, Momentum, optimizer

X, W, B, T = np.ones((4, 3)), np.ones((3, 2)), np.ones(2), np.array([0, 2, 1, 0])


def after(layer, *inputs):
    layer.forward(*inputs)
    return layer


def after_loss():
    layer = SoftmaxWithLoss()
    layer.forward([[1.0, 2.0]], [0])
    return layer


def two_layers():
    return TwoLayerNet(3, 5, 3, seed=0)


def of_two_layers():
    used = Adam()
    two_layers().fit(X, T, optimizer=used)
    return used


TYPE_ERRORS = {
    "complex input": (lambda: ReLU().forward(X.astype(complex)), "x: expected real numbers", "complex128"),
    "longdouble input": (lambda: Sigmoid().forward(X.astype(np.longdouble)), "x: expected", "float128"),
    "object input": (lambda: Softmax().forward(X.astype(object)), "x: expected", "object"),
    "text": (lambda: ReLU().forward("abc"), "x: expected real numbers", "str"),
    "dates": (lambda: ReLU().forward(np.zeros(3, "M8[s]")), "x: expected real numbers", "datetime64"),
    "an axis that is no integer": (lambda: Softmax(0.5).forward(X), "axis: expected an integer", "float"),
    "masked input": (lambda: ReLU().forward(np.ma.masked_equal(X, 0)), "x: expected a plain array", "masked array"),
    "ragged list": (lambda: ReLU().forward([[1, 2], [3]]), "x: expected an array of numbers", "list"),
    "nothing": (lambda: ReLU().forward(None), "x: expected real numbers", "NoneType"),
    "complex dout": (lambda: after(ReLU(), X).backward(X * 1j), "dout: expected real numbers", "complex128"),
    "complex weights": (lambda: Affine(W * 1j, B), "W: expected real numbers", "complex128"),
    "weights as a list": (lambda: Affine([[1.0]], B), "W: expected a NumPy array, got list", "pass np.array(W)"),
    "masked weights": (lambda: Affine(np.ma.masked_equal(W, 0), B), "W: expected a plain array", "mask"),
    "float labels": (lambda: SoftmaxWithLoss().forward(X, T.astype(float)), "t: expected integer labels", "astype"),
    "boolean labels": (lambda: SoftmaxWithLoss().forward(X, T > 0), "t: expected integer labels", "bool"),
    "complex node": (lambda: MulLayer().forward(1j, 2), "x: expected real numbers", "complex"),
    "text node": (lambda: AddLayer().forward("a", "b"), "x: expected real numbers", "str"),
    "text loss gradient": (lambda: after(SoftmaxWithLoss(), X, T).backward("1"), "dout: expected", "str"),
    "integer parameter": (
        lambda: SGD().update({"W": np.ones(2, int)}, {"W": B}),
        "params['W']: expected floats",
        "int64",
    ),
    "text rate": (lambda: SGD("0.1"), "lr: expected a number, a function of the step or a 1-D array, got str", "0.01"),
    "text weight decay": (lambda: SGD(weight_decay="1"), "weight_decay: expected a number, got str", "0.01"),
    "a class for an optimizer": (lambda: optimizer(SGD), "optimizer: expected a name or an", "got the class SGD"),
    "a number for an optimizer": (lambda: optimizer(0.1), "optimizer: expected a name or an optimizer", "got float"),
    "integer numerical gradient": (
        lambda: numerical_gradient(np.sum, np.arange(3)),
        "x: expected an array of",
        "int64",
    ),
    "half precision numerical gradient": (
        lambda: numerical_gradient(np.sum, np.ones(3, np.float16)),
        "x: expected an array of float64 or float32",
        "float16",
    ),
    "numerical gradient of text": (lambda: numerical_gradient(str, B.copy()), "f(x): expected real numbers", "str"),
    "fractional seed": (lambda: TwoLayerNet(3, 2, 2, seed=1.5), "seed: expected an integer, got float", "such as 0"),
    "text seed": (lambda: TwoLayerNet(3, 2, 2, seed="a"), "seed: expected an integer, got str", "such as 0"),
    "labels of accuracy as floats": (
        lambda: two_layers().accuracy(X, T.astype(float)),
        "t: expected integer labels",
        "float64",
    ),
    "text for binary targets": (lambda: SigmoidWithLoss().forward(T, list("abca")), "t: expected real numbers", "list"),
    "text ratio": (lambda: Dropout("0.5"), "dropout_ratio: expected a number", "str"),
    "fractional seed of dropout": (lambda: Dropout(seed=1.5), "seed: expected an integer, got float", "such as 0"),
    "boolean threads": (lambda: set_num_threads(True), "n: expected an integer", "True"),
    "not a layer": (lambda: Sequential([ReLU(), 3], SoftmaxWithLoss()), "layers[1]: expected a layer", "int"),
    "a class for a layer": (
        lambda: Sequential([ReLU], SoftmaxWithLoss()),
        "layers[0]: expected a layer",
        "pass an object, ReLU(...)",
    ),
    "a class by name": (lambda: Sequential({"a": ReLU}, SoftmaxWithLoss()), "layers['a']: expected", "the class ReLU"),
    "a class for a loss": (lambda: Sequential([ReLU()], SoftmaxWithLoss), "loss: expected", "SoftmaxWithLoss(...)"),
    "labels in words": (lambda: SoftmaxWithLoss().forward(X, [*"abca"]), "t: expected real numbers", "np.unique(t"),
    "objects for labels": (
        lambda: SoftmaxWithLoss().forward(X, np.array([*"abca"], object)),
        "t: expected real numbers",
        "return_inverse=True",
    ),
    "words in rows": (lambda: ReLU().forward(X.astype(str)), "x: expected real numbers", "dtype=np.float64"),
    "one hidden size": (lambda: MultiLayerNet(6, 5, 2), "hidden_size_list: expected the sizes", "a list such as [5]"),
    "no hidden sizes": (lambda: MultiLayerNetExtend(6, None, 2), "hidden_size_list: expected the sizes", "NoneType"),
    "a class for an activation": (
        lambda: MultiLayerNet(6, [5], 2, activation=ReLU),
        "activation: expected the name",
        "the class ReLU",
    ),
    "a word in a graph": (lambda: graph.Variable(1.0) + "b", "operand of add: expected", "pass an array of them"),
    "not a loss": (lambda: Sequential([ReLU()], "softmax"), "loss: expected a layer", "str"),
    "fractional size": (lambda: TwoLayerNet(3.5, 2, 2), "input_size: expected an integer, got float", "neurons"),
    "other dtype": (lambda: TwoLayerNet(3, 2, 2, dtype=int), "dtype: expected float32 or float64", "int"),
    "text deviation": (lambda: TwoLayerNet(3, 2, 2, "big"), "weight_init_std: expected a number, got str", "0.01"),
    "no such dtype": (lambda: TwoLayerNet(3, 2, 2, dtype="foo"), "dtype: expected float32 or float64", "foo"),
    "layers missing": (lambda: Sequential(None, SoftmaxWithLoss()), "layers: expected a list or dict", "NoneType"),
    "params missing": (lambda: SGD().update(None, {}), "params: expected a dict of arrays", "NoneType"),
    "grads missing": (lambda: SGD().update({"W": B}, [B]), "grads: expected a dict of arrays", "list"),
    "parameter deleted": (
        lambda: two_layers().params.pop("W1"),
        "params['W1']: expected to stay",
        "network without it",
    ),
    "list for a parameter": (
        lambda: two_layers().params.update(W1=[1]),
        "params['W1']: expected a NumPy array",
        "list",
    ),
    "fractional threads": (lambda: set_num_threads(1.5), "n: expected an integer", "1.5"),
}

VALUE_ERRORS = {
    "wrong number of features": (
        lambda: Affine(W, B).forward(np.ones((4, 5))),
        "x: expected one sample (3,)",
        "(4, 5)",
    ),
    "a number for a batch": (lambda: Affine(W, B).forward(1.0), "x: expected one sample (3,)", "()"),
    "flat weights": (lambda: Affine(B, B), "W: expected 2 dimensions", "(2,)"),
    "wrong bias": (lambda: Affine(W, np.ones(3)), "b: expected shape (2,)", "got (3,)"),
    "wrong dout of affine": (lambda: after(Affine(W, B), X).backward(X), "dout: expected shape (4, 2)", "(4, 3)"),
    "wrong dout of relu": (lambda: after(ReLU(), X).backward(B), "dout: expected shape (4, 3)", "(2,)"),
    "wrong dout of sigmoid": (lambda: after(Sigmoid(), X).backward(1.0), "dout: expected shape (4, 3)", "()"),
    "wrong dout of softmax": (lambda: after(Softmax(), X).backward(B), "dout: expected shape (4, 3)", "(2,)"),
    "wrong dout of a node": (lambda: after(MulLayer(), X, 2).backward(B), "dout: expected shape (4, 3)", "(2,)"),
    "nodes that do not broadcast": (lambda: AddLayer().forward(X, B), "x, y: expected shapes that broadcast", "(2,)"),
    "wrong dout of tanh": (lambda: after(Tanh(), X).backward(B), "dout: expected shape (4, 3)", "(2,)"),
    "wrong dout of identity": (lambda: after(Identity(), X).backward(B), "dout: expected shape (4, 3)", "(2,)"),
    "wrong dout of dropout": (lambda: after(Dropout(), X).backward(B), "dout: expected shape (4, 3)", "(2,)"),
    "all dropped": (lambda: Dropout(1.0), "dropout_ratio: expected a number", "less than 1, got 1.0"),
    "negative seed of dropout": (lambda: Dropout(seed=-1), "seed: expected at least 0, got -1", "such as 0"),
    "seed beyond 63 bits": (lambda: Dropout(seed=2**63), "seed: expected at most 9223372036854775807", "5808"),
    "array for a loss gradient": (
        lambda: after(SoftmaxWithLoss(), X, T).backward(B),
        "dout: expected one number",
        "(2,)",
    ),
    "label too large": (
        lambda: SoftmaxWithLoss().forward(X, T + 1),
        "t: expected labels from 0 to 2, got 3",
        "index 1",
    ),
    "label negative": (
        lambda: SoftmaxWithLoss().forward(X, T - 1),
        "t: expected labels from 0 to 2, got -1",
        "index 0",
    ),
    "label beyond int64": (
        lambda: SoftmaxWithLoss().forward(X, T.astype("u8") - np.uint64(1)),
        "t: expected labels",
        "184467",
    ),
    "label for cross entropy": (
        lambda: CrossEntropyError().forward(X / 3, T + 1),
        "t: expected labels from 0 to 2",
        "3",
    ),
    "number of labels": (lambda: SoftmaxWithLoss().forward(X, T[:3]), "t: expected labels of shape (4,)", "(3,)"),
    "not a distribution": (lambda: SoftmaxWithLoss().forward(X, 2 * X), "t: expected rows of probabilities", "row 0"),
    "three axes": (lambda: SoftmaxWithLoss().forward(np.ones((2, 2, 2)), [0]), "x: expected one sample", "(2, 2, 2)"),
    "no axis": (lambda: Softmax().forward(1.0), "x: expected at least one axis", "one number"),
    "an axis beyond the last": (lambda: Softmax(2).forward(X), "axis: expected -2 to 1 for x of shape", "2"),
    "points of three axes": (
        lambda: numerical_gradient_2d(np.sum, np.ones((2, 2, 2))),
        "X: expected points (N, D)",
        "(2, 2, 2)",
    ),
    "no classes": (lambda: Softmax().forward(np.ones((2, 0))), "x: expected at least one class", "(2, 0)"),
    "binary target above 1": (
        lambda: SigmoidWithLoss().forward(T, T),
        "t: expected labels 0 and 1 or probabilities from 0 to 1, got 2 at index 1;",
        "take SoftmaxWithLoss",
    ),
    "binary target below 0": (
        lambda: SigmoidWithLoss().forward(X, np.eye(4, 3) - np.eye(4, 3, 1)),
        "t: expected labels 0 and 1 or probabilities from 0 to 1, got -1.0",
        "at index (0, 1);",
    ),
    "binary target of another shape": (lambda: SigmoidWithLoss().forward(X, T), "t: expected shape (4, 3)", "(4,)"),
    "logits with three axes": (
        lambda: SigmoidWithLoss().forward(np.ones((2, 2, 2)), np.ones((2, 2, 2))),
        "x: expected logits (N,) or (N, C)",
        "(2, 2, 2)",
    ),
    "targets of another shape": (lambda: IdentityWithLoss().forward(X, B), "t: expected shape (4, 3)", "(2,)"),
    "gradient missing": (lambda: SGD().update({"W": B}, {"b": B}), "grads: expected a gradient for 'W'", "['b']"),
    "gradient shape": (lambda: SGD().update({"W": B}, {"W": X}), "grads['W']: expected shape (2,)", "(4, 3)"),
    "negative rate": (lambda: SGD(-1), "lr: expected a number that is at least 0", "-1"),
    "negative rate of a step": (lambda: SGD(np.array([1.0, -1])), "lr[1]: expected a number that is at least 0", "-1"),
    "rates in two dimensions": (lambda: SGD(np.ones((2, 3))), "lr: expected one rate for each step", "(2, 3)"),
    "negative weight decay": (lambda: SGD(weight_decay=-1), "weight_decay: expected a number that is at least 0", "-1"),
    "unknown optimizer": (lambda: optimizer("lion"), "optimizer: expected one of sgd, momentum, nesterov", "'lion'"),
    "rate not a number": (lambda: Adam(np.nan), "lr: expected a number", "nan"),
    "rate beyond float64": (lambda: SGD(10**400), "lr: expected a number that is at least 0 and finite", "0000"),
    "dout beyond float64": (lambda: after_loss().backward(10**400), "dout: expected a number that float64", "1.8e+308"),
    "negative seed": (lambda: TwoLayerNet(3, 2, 2, seed=-1), "seed: expected at least 0, got -1", "such as 0"),
    "numerical gradient of an array": (
        lambda: numerical_gradient(lambda x: x * 2, B.copy()),
        "f(x): expected one number",
        "(2,)",
    ),
    "momentum of one": (lambda: Momentum(momentum=1), "momentum: expected a number", "less than 1"),
    "smoothing beyond 1": (lambda: SoftmaxWithLoss(1.5), "label_smoothing: expected a number", "at most 1, got 1.5"),
    "quantile beyond 1": (
        lambda: QuantileWithLoss([0.5, 1.5]),
        "quantiles[1]: expected a number",
        "at most 1, got 1.5",
    ),
    "no layers": (lambda: Sequential([], SoftmaxWithLoss()), "layers: expected at least one", "none"),
    "size zero": (lambda: TwoLayerNet(3, 0, 2), "hidden_size: expected at least 1, got 0", "neurons"),
    "negative deviation": (
        lambda: TwoLayerNet(3, 2, 2, -1),
        "weight_init_std: expected a number that is at least 0",
        "-1",
    ),
    "parameter shape": (lambda: two_layers().params.update(W1=X), "params['W1']: expected shape (3, 5)", "(4, 3)"),
    "accuracy of nothing": (lambda: two_layers().accuracy(X[:0], T[:0]), "x: expected at least one sample", "none"),
    "accuracy of other labels": (
        lambda: two_layers().accuracy(X, T[:2]),
        "t: expected labels of shape (4,)",
        "(2,)",
    ),
    "accuracy of a label too large": (
        lambda: two_layers().accuracy(X, T + 1),
        "t: expected labels from 0 to 2, got 3",
        "index 1",
    ),
    "accuracy of no distribution": (
        lambda: two_layers().accuracy(X, 2 * X),
        "t: expected rows of probabilities",
        "row 0",
    ),
    "no threads": (lambda: set_num_threads(0), "n: expected at least 1", "0"),
    "an optimizer misspelt": (lambda: optimizer("adan"), "optimizer: expected one of sgd", "did you mean adam?"),
    "x for t": (lambda: two_layers().fit(T, X), "x: expected samples", "exchanged, give x first"),
    "an empty path": (lambda: two_layers().save(""), "path: expected the name of a file, got ''", "name one"),
    "a null character in a path": (lambda: load("a\0.npz"), "path: expected the name of a file", "name one"),
    "a null character in a checkpoint": (
        lambda: two_layers().fit(X, T, checkpoint="a\0"),
        "checkpoint: expected the name of a file",
        "name one",
    ),
    "an optimizer of another network": (
        lambda: TwoLayerNet(3, 4, 3).fit(X, T, optimizer=of_two_layers()),
        "as the optimizer's m['W1'], got (3, 4)",
        "a new Adam()",
    ),
    "accuracy after a regression": (
        lambda: Sequential([Affine(W, B)], IdentityWithLoss()).accuracy(X, X[:, :2] / 3),
        "t: expected rows of probabilities",
        "of what IdentityWithLoss learns take loss(x, t)",
    ),
}


def message(error):
    return str(error.value)


@pytest.mark.parametrize(("call", "says", "got"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_a_wrong_type_is_a_type_error(call, says, got):
    with pytest.raises(TypeError) as error:
        call()
    assert says in message(error)
    assert got in message(error)


@pytest.mark.parametrize(("call", "says", "got"), VALUE_ERRORS.values(), ids=VALUE_ERRORS)
def test_a_wrong_shape_or_value_is_a_value_error(call, says, got):
    with pytest.raises(ValueError, match=r"expected") as error:
        call()
    assert says in message(error)
    assert got in message(error)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_backward_before_forward_is_a_runtime_error(case):
    draw = Draw("float64", (2, 3, 4))
    with pytest.raises(RuntimeError, match=rf"{case.name}.backward: expected forward to have run.*call {case.name}"):
        case.layer(draw).backward(*(case.dout(draw) or (1,)))


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_after_an_error_a_layer_holds_what_it_held_before(case):
    draw = Draw("float64", (4, 6, 5))
    layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
    layer.forward(*inputs)
    expected = copy.deepcopy(layer).backward(*douts)
    with pytest.raises(TypeError):
        layer.forward(*[a * 1j for a in inputs])
    with pytest.raises((TypeError, ValueError)):
        layer.backward(np.ones((9, 9)))
    np.testing.assert_equal(layer.backward(*douts), expected)


def test_a_failed_update_changes_nothing():
    params = {"a": np.ones(2), "b": np.ones(2)}
    optimizer = Momentum()
    with pytest.raises(ValueError, match="grads"):
        optimizer.update(params, {"a": np.ones(2), "b": np.ones(3)})
    assert params["a"].tolist() == [1, 1]
    assert optimizer.v is None


def test_a_read_only_parameter_is_refused():
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        SGD().update({"W": frozen}, {"W": np.ones(2)})
    with pytest.raises(ValueError, match="read-only"):
        numerical_gradient(np.sum, frozen)


def test_an_unknown_parameter_is_a_key_error():
    with pytest.raises(KeyError) as error:
        two_layers().params["W9"]
    assert message(error) == "'params: expected one of W1, b1, W2, b2, got W9; take one of these'"
