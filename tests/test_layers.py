"""Layers equal the reference over dtypes, layouts and shapes; they keep what the book's code reads."""

import copy
import pickle
import tempfile
import warnings

import numpy as np
import pytest

from bench.cases import DTYPES, LAYERS, Draw
from fastbp import use_reference
from fastbp.layers import (
    AddLayer,
    Affine,
    CrossEntropyError,
    Identity,
    IdentityWithLoss,
    MatMul,
    MulLayer,
    ReLU,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.ops.contract import TWINS, is_reference
from tests.compare import assert_same


def strided(a):
    wide = np.zeros((*a.shape[:-1], a.shape[-1] * 2), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def memory_mapped(a):
    if a.size == 0:
        return a
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, a.dtype, shape=a.shape)
    mapped[...] = a
    return mapped


def unaligned(a):
    out = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": strided,
    "negative": lambda a: a[::-1].copy()[::-1],
    "read-only": read_only,
    "memory-mapped": memory_mapped,
    "unaligned": unaligned,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a: a.tolist() if a.dtype == np.float64 else a,
}

BY_CASE = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def results(layer, inputs, douts):
    """Everything that a forward and a backward hand out."""
    out = [layer.forward(*inputs)]
    gradient = layer.backward(*douts)
    out += gradient if isinstance(gradient, tuple) else [gradient]
    return out + [getattr(layer, name) for name in ("mask", "out", "dW", "db", "loss") if hasattr(layer, name)]


def assert_equals_reference(case, draw, transform=lambda a: a, dtype=None):
    layer = case.layer(draw)
    plain = [*case.inputs(draw), *case.dout(draw)]
    n = len(case.inputs(draw))
    given = [transform(a) for a in plain]
    before = copy.deepcopy(given)
    got = results(copy.deepcopy(layer), given[:n], given[n:])
    with use_reference():
        expected = results(layer, plain[:n], plain[n:])
    for mine, theirs in zip(got, expected, strict=True):
        assert_same(mine, theirs, dtype)
    for mine, original in zip(given, before, strict=True):
        np.testing.assert_array_equal(mine, original)


@BY_CASE
@BY_DTYPE
@pytest.mark.parametrize("size", [(1, 1, 1), (0, 3, 2), (1, 784, 50), (7, 13, 10), (100, 784, 50)], ids=str)
def test_layer_equals_the_reference(case, dtype, size):
    assert_equals_reference(case, Draw(dtype, size), dtype=dtype)


@BY_CASE
@BY_DTYPE
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_numbers_and_inputs_stay_unchanged(case, dtype, layout):
    assert_equals_reference(case, Draw(dtype, (7, 13, 10)), LAYOUTS[layout], dtype)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int32", "int64", "bool", "float32", "float64"])
def test_result_dtypes_are_numpys(dtype, rng):
    dtype = np.dtype(dtype)
    x = (rng.random((4, 3)) * 3).astype(dtype)
    relu, sigmoid, softmax, tanh, identity = ReLU(), Sigmoid(), Softmax(), Tanh(), Identity()
    assert relu.forward(x).dtype == dtype
    assert relu.backward(x).dtype == dtype
    with np.errstate(all="ignore"):
        exp_dtype = np.exp(x).dtype
    assert sigmoid.forward(x).dtype == exp_dtype
    assert sigmoid.backward(x).dtype == (x * sigmoid.out).dtype
    assert softmax.forward(x).dtype == exp_dtype
    assert softmax.backward(x).dtype == (x * softmax.out).dtype
    assert tanh.forward(x).dtype == exp_dtype
    assert tanh.backward(x).dtype == (x * tanh.out).dtype
    assert identity.forward(x).dtype == dtype
    assert identity.backward(x).dtype == dtype
    for other in (np.float32, np.float64, np.float16, np.int64):
        W, b = (rng.random((3, 2)) * 3).astype(other), np.zeros(2, other)
        affine = Affine(W, b)
        out = affine.forward(x)
        dx = affine.backward(out)
        assert out.dtype == (x @ W + b).dtype
        assert dx.dtype == (out @ W.T).dtype
        assert affine.dW.dtype == (x.T @ out).dtype
        assert affine.db.dtype == np.sum(out, axis=0).dtype
        np.testing.assert_allclose(out, x.astype(float) @ W + b, rtol=2e-3)
        np.testing.assert_allclose(affine.dW, x.astype(float).T @ out, rtol=2e-3)


def test_integers_stay_exact():
    W = np.array([[2**60 + 1, 1], [0, 1]])
    assert Affine(W, np.zeros(2, int)).forward([1, 0])[0] == 2**60 + 1
    assert ReLU().forward(np.array([2**60 + 1, -5])).tolist() == [2**60 + 1, 0]


def test_float16_is_computed_in_float32_and_rounded_once(rng):
    x, W = rng.random((2, 500)).astype(np.float16), rng.random((500, 3)).astype(np.float16)
    exact = (x.astype(float) @ W.astype(float)).astype(np.float16)
    np.testing.assert_array_equal(Affine(W, np.zeros(3, np.float16)).forward(x), exact)


@pytest.mark.parametrize("shape", [(1, 500), (0, 500), (500, 1), (7, 500)], ids=str)
@pytest.mark.parametrize("kind", [Affine, MatMul])
def test_float16_in_columns_gives_the_numbers_of_rows(kind, shape, rng):
    x, W = rng.random(shape).astype(np.float16), rng.random((shape[1], 3)).astype(np.float16)
    layer = kind(W) if kind is MatMul else kind(W, np.zeros(3, np.float16))
    with use_reference():
        expected = layer.forward(x)
        gradients = layer.backward(expected), layer.dW
    assert_same(layer.forward(np.asfortranarray(x)), expected)
    assert_same(layer.backward(expected), gradients[0])
    assert_same(layer.dW, gradients[1])


def test_affine_sees_updates_of_the_very_arrays_it_was_given(rng):
    params = {"W1": rng.random((3, 2)), "b1": rng.random(2)}
    affine = Affine(params["W1"], params["b1"])
    x = rng.random((4, 3))
    before = affine.forward(x)
    params["W1"] -= 0.5
    params["b1"] += 1
    assert affine.W is params["W1"]
    assert affine.b is params["b1"]
    np.testing.assert_allclose(affine.forward(x), before - 0.5 * x.sum(axis=1, keepdims=True) + 1)


def test_affine_takes_one_sample_a_batch_and_images(rng):
    affine = Affine(rng.random((12, 5)), rng.random(5))
    images = rng.random((3, 2, 2, 3))
    out = affine.forward(images)
    np.testing.assert_allclose(out, images.reshape(3, 12) @ affine.W + affine.b)
    assert affine.x.shape == (3, 12)
    assert affine.backward(out).shape == images.shape
    sample = images[0].reshape(12)
    np.testing.assert_allclose(affine.forward(sample), out[0])
    dx = affine.backward(out[0])
    np.testing.assert_allclose(dx, affine.W @ out[0])
    np.testing.assert_allclose(affine.dW, np.outer(sample, out[0]))
    np.testing.assert_allclose(affine.db, out[0])


def test_affine_gradients_without_dx_are_the_same(rng):
    affine = Affine(rng.random((12, 5)), rng.random(5))
    dout = affine.forward(rng.random((3, 12)))
    affine.backward(dout)
    dW, db = affine.dW, affine.db
    affine.backward_parameters(dout)
    assert affine.dW is not dW
    np.testing.assert_array_equal(affine.dW, dW)
    np.testing.assert_array_equal(affine.db, db)


def test_bias_gradient_is_the_sum_over_the_batch():
    affine = Affine(np.zeros((1, 3)), np.zeros(3))
    affine.forward(np.zeros((2, 1)))
    affine.backward(np.array([[1.0, 2, 3], [4, 5, 6]]))
    assert affine.db.tolist() == [5, 7, 9]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", ">i2"])
@pytest.mark.parametrize("weights", ["int8", "float64"])
def test_bias_gradient_of_integers_is_numpys_sum(dtype, weights):
    affine = Affine(np.ones((2, 3), weights), np.zeros(3, weights))
    dout = np.full((5, 3), 100).astype(dtype)
    affine.forward(np.ones((5, 2), weights))
    affine.backward(dout)
    assert_same(affine.db, np.sum(dout, axis=0))
    affine.backward_parameters(dout)
    assert_same(affine.db, np.sum(dout, axis=0))


def test_relu_keeps_the_mask_and_does_not_overwrite_dout():
    x = np.array([[1.0, -0.5], [-2.0, 3.0]])
    relu, dout = ReLU(), np.ones((2, 2))
    assert relu.forward(x).tolist() == [[1, 0], [0, 3]]
    assert relu.mask.tolist() == [[False, True], [True, False]]
    assert relu.backward(dout).tolist() == [[1, 0], [0, 1]]
    assert dout.tolist() == [[1, 1], [1, 1]]
    assert Relu is ReLU


def test_relu_of_zero_is_masked_and_of_nan_is_nan():
    relu = ReLU()
    np.testing.assert_array_equal(relu.forward([0.0, -0.0, np.nan]), [0, 0, np.nan])
    assert relu.mask.tolist() == [True, True, False]


def test_tanh_of_known_numbers():
    layer = Tanh()
    np.testing.assert_allclose(layer.forward([0.0, np.log(2), -1000]), [0, 0.6, -1], rtol=1e-15)
    np.testing.assert_allclose(layer.backward([2.0, 2, 2]), [2, 2 * 0.64, 0], rtol=1e-15)


def test_identity_hands_out_new_arrays(rng):
    x, layer = rng.random((3, 4)), Identity()
    for result in (layer.forward(x), layer.backward(x)):
        assert_same(result, x)
        assert not np.shares_memory(result, x)


def test_no_result_is_overwritten_by_a_later_call(rng):
    for case in LAYERS:
        draw = Draw("float64", (7, 13, 10))
        layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
        first = results(layer, inputs, douts)
        kept = copy.deepcopy(first)
        results(layer, [np.flip(a, 0).copy() for a in inputs], douts)
        for mine, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(mine, before)


def test_add_and_multiply_sum_gradients_of_broadcast_operands():
    multiply = MulLayer()
    x, y = np.arange(6.0).reshape(2, 3), np.array([[10.0], [20.0]])
    np.testing.assert_array_equal(multiply.forward(x, y), x * y)
    dx, dy = multiply.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(dx, np.broadcast_to(y, (2, 3)))
    np.testing.assert_array_equal(dy, [[3.0], [12.0]])
    add = AddLayer()
    add.forward(2.0, x)
    dx, dy = add.backward(1)
    assert dx == 6
    np.testing.assert_array_equal(dy, np.ones((2, 3)))


@pytest.mark.parametrize("layer", [AddLayer(), MulLayer()])
def test_a_python_number_for_dout_does_not_widen_float32(layer):
    layer.forward(np.ones((2, 3), np.float32), np.ones(3, np.float32))
    assert [gradient.dtype for gradient in layer.backward(1.5)] == [np.float32, np.float32]


def test_add_and_multiply_of_numbers_stay_numbers():
    multiply = MulLayer()
    assert multiply.forward(100, 2) == 200
    assert multiply.backward(1.5) == (3.0, 150.0)
    assert (multiply.x, multiply.y) == (100, 2)


def test_a_loss_takes_labels_one_hot_and_one_sample(rng):
    x, labels = rng.standard_normal((5, 4)), np.array([0, 3, 1, 1, 2])
    one_hot = np.eye(4)[labels]
    by_label, by_one_hot = SoftmaxWithLoss(), SoftmaxWithLoss()
    loss = by_label.forward(x, labels)
    assert isinstance(loss, float)
    assert loss == by_label.loss == pytest.approx(by_one_hot.forward(x, one_hot), rel=1e-14)
    np.testing.assert_allclose(by_label.backward(), by_one_hot.backward(), atol=1e-16)
    np.testing.assert_allclose(by_label.backward(), (by_label.y - one_hot) / 5, atol=1e-16)
    np.testing.assert_allclose(by_label.backward(3), 3 * (by_label.y - one_hot) / 5, atol=1e-16)
    single = SoftmaxWithLoss()
    alone = single.forward(x[1], 3)
    assert alone == single.forward(x[1], [3]) == single.forward(x[1], one_hot[1])
    assert single.backward().shape == single.y.shape == (4,)
    assert alone == pytest.approx(-np.log(by_label.y[1, 3]))


@pytest.mark.parametrize("t_dtype", ["float16", "float32", "float64", "int8", "int64", "bool", ">f8"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_gradient_of_a_loss_has_numpys_dtype(dtype, t_dtype, rng):
    y, labels = rng.dirichlet(np.ones(4), 3).astype(dtype), np.array([0, 3, 1])
    t = np.eye(4)[labels].astype(t_dtype)
    together, error = SoftmaxWithLoss(), CrossEntropyError()
    together.forward(np.log(y), t)
    error.forward(y, t)
    assert together.y.dtype == dtype
    assert_same(together.backward(), ((together.y - t) / 3).astype((y - t).dtype), dtype)
    assert_same(error.backward(), -t.astype((y - t).dtype) / y / 3, dtype)
    together.forward(np.log(y), labels)
    assert together.backward().dtype == dtype


def test_targets_are_checked_on_the_reference_without_a_kernel(monkeypatch):
    for name in ("first_bad_label", "first_bad_distribution"):
        monkeypatch.setattr(TWINS[name], "kernel", None)
    with use_reference():
        assert SoftmaxWithLoss().forward([[0.0, 0.0]], [1]) == pytest.approx(np.log(2))
        assert SoftmaxWithLoss().forward([[0.0, 0.0]], [[0.5, 0.5]]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", [SoftmaxWithLoss(), CrossEntropyError()])
def test_labels_changed_after_forward_do_no_harm(loss):
    t = np.array([1, 2, 0])
    loss.forward(np.full((3, 3), 1 / 3), t)
    expected = loss.backward()
    t[:] = 10**12
    np.testing.assert_array_equal(loss.backward(), expected)


def test_weights_reshaped_after_forward_are_refused():
    W = np.ones((6, 2))
    affine = Affine(W, np.ones(2))
    affine.forward(np.ones((4, 6)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of setting a shape, in some versions of NumPy
        W.shape = (3, 4)
    with pytest.raises(ValueError, match=r"W: expected 6 rows, as when forward ran, got shape \(3, 4\)"):
        affine.backward(np.ones((4, 4)))


def test_every_integer_dtype_holds_labels(rng):
    x = rng.standard_normal((3, 4))
    expected = SoftmaxWithLoss().forward(x, [0, 3, 1])
    for dtype in ("int8", "uint8", "int32", ">i4", "uint64"):
        assert SoftmaxWithLoss().forward(x, np.array([0, 3, 1], dtype)) == expected


def test_softmax_then_cross_entropy_has_the_gradient_of_softmax_with_loss(rng):
    x = rng.standard_normal((6, 5))
    for t in (np.array([0, 4, 2, 2, 1, 3]), rng.dirichlet(np.ones(5), 6)):
        softmax, error, together = Softmax(), CrossEntropyError(), SoftmaxWithLoss()
        assert error.forward(softmax.forward(x), t) == pytest.approx(together.forward(x, t), rel=1e-14)
        np.testing.assert_allclose(softmax.backward(error.backward(2.5)), together.backward(2.5), atol=1e-15)


@BY_DTYPE
@pytest.mark.parametrize("layout", LAYOUTS)
def test_softmax_along_an_axis_is_that_of_the_rows_along_it(dtype, layout, rng):
    x, dout = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    for axis in range(-3, 3):
        along, of_rows = Softmax(axis), Softmax()
        given = [LAYOUTS[layout](a) for a in (x, dout)]
        rows = [np.moveaxis(a, axis, -1).reshape(-1, x.shape[axis]).copy() for a in (x, dout)]
        for got, expected in [
            (along.forward(given[0]), of_rows.forward(rows[0])),
            (along.backward(given[1]), of_rows.backward(rows[1])),
        ]:
            assert got.shape == x.shape
            assert_same(np.moveaxis(got, axis, -1).reshape(-1, x.shape[axis]), expected)


@pytest.mark.parametrize("loss", [SoftmaxWithLoss, CrossEntropyError])
@pytest.mark.parametrize(
    ("shape", "t"),
    [((1,), 0), ((1,), [0]), ((1, 1), [0]), ((1, 1), [[0]]), ((3, 1), [0, 0, 0]), ((3, 1), np.zeros((3, 1), np.uint8))],
)
def test_of_one_class_the_label_is_0_and_the_probability_1(loss, shape, t):
    by_label, by_probability = loss(), loss()
    assert by_label.forward(np.ones(shape), t) == by_probability.forward(np.ones(shape), np.ones(shape)) == 0
    assert_same(by_label.backward(), by_probability.backward())
    for wrong in (np.zeros(shape), np.zeros(shape, bool), np.full(shape, 2)):
        with pytest.raises(ValueError, match="t: expected rows of probabilities"):
            by_label.forward(np.ones(shape), wrong)


def test_the_loss_is_exact_for_logits_of_any_size():
    layer = SoftmaxWithLoss()
    assert layer.forward([[1000.0, -1000.0]], [1]) == 2000
    assert layer.backward().tolist() == [[1, -1]]
    assert layer.forward([[1000.0, -1000.0]], [0]) == 0
    assert CrossEntropyError().forward([[1.0, 0.0]], [0]) == 0


def test_sigmoid_with_loss_is_the_binary_cross_entropy(rng):
    x, t = rng.standard_normal((6, 3)), rng.random((6, 3))
    layer = SigmoidWithLoss()
    loss = layer.forward(x, t)
    y = 1 / (1 + np.exp(-x))
    assert isinstance(loss, float)
    assert loss == layer.loss == pytest.approx(-np.sum(t * np.log(y) + (1 - t) * np.log(1 - y)) / 6, rel=1e-14)
    np.testing.assert_allclose(layer.y, y, rtol=1e-15)
    np.testing.assert_array_equal(layer.t, t)
    np.testing.assert_allclose(layer.backward(2.5), 2.5 * (y - t) / 6, atol=1e-16)


def test_sigmoid_with_loss_takes_one_logit_for_each_sample(rng):
    x, t = rng.standard_normal(6), np.array([0, 1, 1, 0, 0, 1])
    flat, column = SigmoidWithLoss(), SigmoidWithLoss()
    assert flat.forward(x, t) == column.forward(x.reshape(6, 1), t.reshape(6, 1))
    assert_same(flat.backward(), column.backward().reshape(6))
    assert flat.y.shape == flat.t.shape == (6,)
    # Two logits, 0 and x, are the same two classes.
    assert flat.loss == pytest.approx(SoftmaxWithLoss().forward(np.stack([0 * x, x], axis=1), t), rel=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("t_dtype", ["bool", "int8", "int64", "uint64", "float16", "float32", "float64"])
def test_labels_of_sigmoid_with_loss_do_not_widen_and_probabilities_do(dtype, t_dtype):
    x, t = np.array([0.5, -1.5, 2.5], dtype), np.array([0, 1, 1], t_dtype)
    layer = SigmoidWithLoss()
    layer.forward(x, t)
    expected = np.result_type(dtype, t_dtype) if t.dtype.kind == "f" else np.dtype(dtype)
    assert layer.y.dtype == dtype
    assert_same(layer.backward(), ((layer.y - t) / 3).astype(expected), dtype)


def test_identity_with_loss_is_half_the_squared_error_mean_over_the_batch():
    layer = IdentityWithLoss()
    assert layer.forward([[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [3.0, 1.0]]) == (5 + 16) / 2 / 2
    assert layer.backward().tolist() == [[0.5, 1], [0, 2]]


def test_an_empty_batch_gives_empty_outputs_zero_gradients_and_no_loss():
    affine = Affine(np.ones((3, 2)), np.ones(2))
    assert affine.forward(np.zeros((0, 3))).shape == (0, 2)
    assert affine.backward(np.zeros((0, 2))).shape == (0, 3)
    assert affine.dW.tolist() == [[0, 0]] * 3
    assert affine.db.tolist() == [0, 0]
    for loss in (SoftmaxWithLoss(), CrossEntropyError()):
        assert loss.forward(np.zeros((0, 3)), np.zeros(0, int)) == 0.0
        assert loss.backward().shape == (0, 3)
    for loss in (IdentityWithLoss(), SigmoidWithLoss()):
        assert loss.forward(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0
        assert loss.backward().shape == (0, 3)


@BY_CASE
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_a_copied_layer_goes_on_the_same_way(case, clone):
    draw = Draw("float64", (7, 13, 10))
    layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
    layer.forward(*inputs)
    np.testing.assert_equal(clone(layer).backward(*douts), layer.backward(*douts))
    np.testing.assert_equal(results(clone(layer), inputs, douts), results(layer, inputs, douts))


def test_use_reference_is_over_when_its_block_is_over():
    with pytest.raises(ZeroDivisionError), use_reference():
        _ = 1 / 0
    assert not is_reference()


@BY_DTYPE
def test_smoothed_labels_are_mixed_with_the_uniform_distribution(dtype):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 4)).astype(dtype), rng.integers(0, 4, 6)
    mixed = (0.75 * np.eye(4)[labels] + 0.25 / 4).astype(dtype)
    smoothed, plain = SoftmaxWithLoss(label_smoothing=0.25), SoftmaxWithLoss()
    np.testing.assert_allclose(smoothed.forward(x, labels), plain.forward(x, mixed), rtol=1e-6)
    assert_same(smoothed.backward(), plain.backward(), np.dtype(dtype))
    assert smoothed.forward(x, np.eye(4, dtype=dtype)[labels]) == smoothed.forward(x, labels)
    smoothed.label_smoothing = 0.0
    assert smoothed.forward(x, labels) == plain.forward(x, labels)
    smoothed.label_smoothing = 2.0
    with pytest.raises(ValueError, match="label_smoothing: expected a number that is at least 0"):
        smoothed.forward(x, labels)
