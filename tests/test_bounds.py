"""Nothing that a caller passes, replaces or writes to between two calls makes a kernel read outside an array.

What once ended the process runs in a process of its own, so that it fails here as a test does.
"""

import contextlib

import numpy as np
import pytest

from bench.cases import LAYERS, Draw
from fastbp import Sequential, graph
from fastbp.layers import (
    Affine,
    CrossEntropyError,
    IdentityWithLoss,
    ReLU,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
)
from fastbp.optimizers import OPTIMIZERS, SGD, Adam
from tests.subprocesses import run_python

N, C = 4, 3
KEPT = "x", "y", "t", "mask", "out"
OTHERS = {
    "longer": lambda a: np.concatenate([a] * 50_000),
    "shorter": lambda a: a[:-1],
    "wider": lambda a: np.concatenate([a] * 2, axis=-1),
    "flat": lambda a: a.reshape(-1)[:-1],
    "a number": lambda a: a.reshape(-1)[0],
    "nothing": lambda a: a[:0],
    "a list": lambda a: [1, 2],
    "text": lambda a: "text",
    "objects": lambda a: np.append(a, a).astype(object),
}


def labelled(kind):
    layer = kind()
    layer.forward(Draw("float64", (N, N, C)).probabilities(N, C), np.array([0, 2, 1, 0]))
    return layer


@pytest.mark.parametrize("label", [-1, C, 10**12, -(10**12)])
@pytest.mark.parametrize("kind", [SoftmaxWithLoss, CrossEntropyError])
def test_labels_written_to_after_forward_are_refused(kind, label):
    layer = labelled(kind)
    layer.t[1] = label
    with pytest.raises(ValueError, match=rf"t: expected labels from 0 to 2, got {label} at index 1"):
        layer.backward()
    layer.t[1] = 2
    np.testing.assert_array_equal(layer.backward(), labelled(kind).backward())


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, CrossEntropyError])
def test_other_labels_set_after_forward_count(kind):
    layer, other = labelled(kind), kind()
    other.forward(Draw("float64", (N, N, C)).probabilities(N, C), np.array([2, 2, 0, 1]))
    for t in (np.array([2, 2, 0, 1]), [2, 2, 0, 1], np.array([2, 2, 0, 1], ">u2"), np.eye(3)[[2, 2, 0, 1]]):
        layer.t = t
        np.testing.assert_array_equal(layer.backward(), other.backward())


# What there is nothing wrong with: factors that broadcast, labels of more classes, and what the layer does not read.
GOES_WELL = {
    *(("MulLayer", name, OTHERS["a number"]) for name in "xy"),
    *((name, "y", OTHERS["wider"]) for name in ("CrossEntropyError", "SoftmaxWithLoss")),
    *(
        (name, "x", other)
        for name in ("Affine", "BatchNormalization", "Convolution", "MatMul", "Pooling")
        for other in OTHERS.values()
    ),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_what_forward_left_is_checked_where_it_was_replaced(case, other):
    draw = Draw("float64", (N, 6, C))
    layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
    layer.forward(*inputs)
    expected = layer.backward(*douts)
    for name in KEPT:
        kept = getattr(layer, name, None)
        if not isinstance(kept, np.ndarray) or (case.name, name, other) in GOES_WELL:
            continue
        setattr(layer, name, other(kept))
        with pytest.raises((TypeError, ValueError)):
            layer.backward(*douts)
        setattr(layer, name, kept)
    np.testing.assert_equal(layer.backward(*douts), expected)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_a_shape_that_is_set_between_forward_and_backward_reads_nothing_else(case):
    draw = Draw("float64", (N, 6, C))
    layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
    layer.forward(*inputs)
    expected = layer.backward(*douts)
    for array in [*inputs, *vars(layer).values()]:
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous or array.size < 2:
            continue
        before = array.shape
        for shape in ((array.size,), (1, array.size), (array.size, 1)):
            array.shape = shape
            with contextlib.suppress(TypeError, ValueError):
                layer.backward(*douts)
        array.shape = before
    np.testing.assert_equal(layer.backward(*douts), expected)


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss])
def test_weights_of_another_batch_are_refused(kind):
    x = Draw("float64", (N, N, C)).probabilities(N, C)
    layer, other = kind(), kind()
    layer.forward(x, x, np.arange(N) + 1.0)
    other.forward(x[:1], x[:1], [1.0])
    layer.y, layer.t = other.y, other.t
    with pytest.raises(ValueError, match="sample_weight: expected shape"):
        layer.backward()


def test_threads_that_share_a_layer_get_a_result_or_an_error():
    code = """
import sys, threading, time
import numpy as np
from fastbp import layers
sys.setswitchinterval(1e-6)
def work(layer, takes, n, end):
    rng = np.random.default_rng(n)
    x, t = rng.dirichlet(np.ones(10), n), rng.integers(0, 10, n)
    given = {"x": x, "t": t, "w": np.ones(n)}
    while time.monotonic() < end:
        try:
            layer.forward(*(given[name] for name in takes))
            layer.backward(*([] if len(takes) > 1 else [x]))
        except ValueError: pass
        except Exception as error: print(layer, repr(error))
for layer, takes in [
    (layers.ReLU(), "x"), (layers.Sigmoid(), "x"), (layers.Softmax(), "x"), (layers.Dropout(0.5, seed=0), "x"),
    (layers.Identity(), "x"), (layers.Affine(np.ones((10, 10)), np.ones(10)), "x"),
    (layers.CrossEntropyError(), "xt"), (layers.SoftmaxWithLoss(), "xt"), (layers.SoftmaxWithLoss(), "xtw"),
    (layers.SigmoidWithLoss(), "xx"), (layers.IdentityWithLoss(), "xx"), (layers.ExpWithLoss(), "xxw"),
]:
    work(layer, takes, 3, time.monotonic() + 0.01)
    end = time.monotonic() + 0.3
    threads = [threading.Thread(target=work, args=(layer, takes, n, end)) for n in (3, 50, 7, 4000)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(type(layer).__name__, flush=True)
"""
    assert run_python(code).split() == [
        "ReLU", "Sigmoid", "Softmax", "Dropout", "Identity", "Affine", "CrossEntropyError", "SoftmaxWithLoss",
        "SoftmaxWithLoss", "SigmoidWithLoss", "IdentityWithLoss", "ExpWithLoss",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "layer", [ReLU(), Softmax(), Affine(np.ones((3, 3)), np.ones(3))], ids=lambda l: type(l).__name__
)
def test_a_gradient_of_another_batch_is_refused(layer):
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"dout: expected shape \(2, 3\)"):
        layer.backward(np.ones((1000, 3)))


class Growing(dict):
    """Holds a larger array after the first look at it, as another thread may put it there."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return np.ones(10 if self.looks == 1 else 10**6)

    def get(self, key, default=None):
        return self[key]


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind is not SGD], ids=lambda kind: kind.__name__)
def test_parameters_that_outgrow_the_state_between_two_looks_are_refused(kind):
    with pytest.raises(ValueError, match=r"\['W'\]: expected 1000000 numbers, as the parameter has, got 10"):
        kind().update(Growing(W=None), Growing(W=None))


def of_order(places):
    class Liar(np.random.Generator):
        def permutation(self, x):
            return places(x)

    return Liar(np.random.PCG64(0))


@pytest.mark.parametrize(
    "places",
    [
        lambda n: np.arange(n) + 1,
        lambda n: np.arange(n) - 1,
        lambda n: np.arange(n) + 10**12,
        lambda n: np.arange(2 * n),
        lambda n: np.arange(n - 1),
        lambda n: np.arange(n)[:, np.newaxis],
        lambda n: np.arange(n) / 2,
        lambda n: np.arange(n).astype(str),
    ],
)
def test_an_order_outside_the_samples_is_refused(places):
    rng = np.random.default_rng(0)
    network = Sequential([Affine(rng.random((5, 3)), np.zeros(3))], SoftmaxWithLoss())
    before = network.params["W1"].copy()
    with pytest.raises(ValueError, match="seed: expected a generator that puts 20 samples in the order of integers"):
        network.fit(rng.random((20, 5)), rng.integers(0, 3, 20), batch_size=8, seed=of_order(places))
    np.testing.assert_array_equal(network.params["W1"], before)


@pytest.mark.parametrize(
    ("name", "array"), [("b", np.zeros(1)), ("b", np.zeros((3, 1))), ("W", np.zeros((5, 4))), ("W", np.zeros(5))]
)
def test_fit_refuses_parameters_that_were_set_and_do_not_fit(name, array):
    rng = np.random.default_rng(0)
    network = Sequential(
        [Affine(rng.random((5, 3)), np.zeros(3)), ReLU(), Affine(rng.random((3, 3)), np.zeros(3))], SoftmaxWithLoss()
    )
    setattr(network.layers["Affine1"], name, array)
    before = network.params["W2"].copy()
    with pytest.raises(ValueError, match=r"[Wb]: expected"):
        network.fit(rng.random((20, 5)), rng.integers(0, 3, 20), batch_size=8, seed=0)
    np.testing.assert_array_equal(network.params["W2"], before)


def test_an_order_of_another_width_and_one_that_is_written_to_later_count_as_they_came():
    rng = np.random.default_rng(0)
    x, t, W = rng.random((20, 5)), rng.integers(0, 3, 20), rng.random((5, 3))
    order = np.arange(20, dtype=np.int8)

    def fitted(seed):
        network = Sequential([Affine(W.copy(), np.zeros(3))], SoftmaxWithLoss())
        network.fit(x, t, epochs=2, batch_size=8, optimizer=Adam(), seed=seed, on_steps=lambda _: order.fill(99))
        return network.params["W1"]

    expected = fitted(of_order(np.arange))
    np.testing.assert_array_equal(fitted(of_order(lambda n: np.copyto(order, range(n)) or order)), expected)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (np.array([0, 1]), lambda key: key.fill(3)),
        (np.array([True, True, False, False]), lambda key: key.fill(True)),
        ([0, 1], lambda key: key.__setitem__(0, 3)),
        ((np.array([0, 1]),), lambda key: key[0].fill(3)),
    ],
)
def test_an_index_that_is_written_to_after_forward_keeps_its_gradient(key, change):
    x = graph.Variable(np.arange(4.0))
    y = (x[key] * np.array([2.0, 3.0])).sum()
    change(key)
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 3, 0, 0])


def test_an_output_that_lies_about_its_shape_is_refused():
    class Liar(np.ndarray):
        shape = property(lambda self: (1_000_000,))

    compiled = graph.compile(graph.exp)
    out = np.empty(3).view(Liar)
    with pytest.raises(ValueError, match=r"out: expected a writeable array of shape \(1000000,\), got shape \(3,\)"):
        compiled(np.ones(1_000_000), out=out)
