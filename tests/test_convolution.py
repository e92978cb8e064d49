"""Convolution and pooling: equal to their reference and to PyTorch for any window, on any memory and any threads."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Sequential, allocation, gradient_check, use_reference
from fastbp.layers import Affine, Convolution, LeakyReLU, Pooling, ReLU, SoftmaxWithLoss, Tanh
from tests.compare import assert_same

DTYPES = ["float16", "float32", "float64", "int64"]


def lanes(x):
    """The same images with the samples side by side in memory."""
    return np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)


MEMORY = {
    "C": np.ascontiguousarray,
    "lanes": lanes,
    "Fortran": np.asfortranarray,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "reversed": lambda x: x[:, ::-1, :, ::-1].copy()[:, ::-1, :, ::-1],
    "every second": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "unaligned": lambda x: np.frombuffer(b" " + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
}


@st.composite
def windows(draw):
    """Images, filters, and how these are moved, so that at least one place is left."""
    FH, FW = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    pad = draw(st.integers(0, 3))
    return {
        "N": draw(st.sampled_from([0, 1, 2, 3, 16, 31, 100, 200])),
        "C": draw(st.integers(1, 4)),
        "F": draw(st.sampled_from([1, 2, 3, 5, 6, 9, 17])),
        "H": draw(st.integers(max(1, FH - 2 * pad), FH + 6)),
        "W": draw(st.integers(max(1, FW - 2 * pad), FW + 6)),
        "FH": FH,
        "FW": FW,
        "stride": draw(st.integers(1, 4)),
        "pad": pad,
        "dtype": draw(st.sampled_from(DTYPES)),
        "memory": draw(st.sampled_from(list(MEMORY))),
        "seed": draw(st.integers(0, 2**31)),
    }


def numbers(rng, dtype, *shape):
    return (3 * rng.standard_normal(shape)).astype(dtype)


def convolved(case):
    """Everything that a convolution hands out for a case."""
    rng, dtype, place = np.random.default_rng(case["seed"]), case["dtype"], MEMORY[case["memory"]]
    W = numbers(rng, dtype, case["F"], case["C"], case["FH"], case["FW"])
    layer = Convolution(W, numbers(rng, dtype, case["F"]), case["stride"], case["pad"])
    out = layer.forward(place(numbers(rng, dtype, case["N"], case["C"], case["H"], case["W"])))
    dout = place(numbers(rng, dtype, *out.shape))
    dx = layer.backward(dout)
    results = out, dx, layer.dW, layer.db, np.sum(np.square(dout, dtype=np.float64)) ** 0.5
    layer.backward_parameters(dout)
    np.testing.assert_array_equal(layer.dW, results[2])
    np.testing.assert_array_equal(layer.db, results[3])
    return results


@settings(max_examples=150, deadline=None)
@given(windows())
def test_a_convolution_equals_the_reference(case):
    *got, size = convolved(case)
    with use_reference():
        *expected, _ = convolved(case)
    for mine, theirs in zip(got[:-1], expected[:-1], strict=True):
        assert_same(mine, theirs)
    assert_same(got[-1], expected[-1], magnitude=max(1.0, size))  # db: its terms have both signs


def pooled(case, mode):
    rng, dtype, place = np.random.default_rng(case["seed"]), case["dtype"], MEMORY[case["memory"]]
    pad = min(case["pad"], case["FH"] - 1, case["FW"] - 1)
    layer = Pooling(case["FH"], case["FW"], case["stride"], pad, mode)
    size = case["N"], case["C"], max(case["H"], case["FH"]), max(case["W"], case["FW"])
    x = numbers(rng, dtype, *size)
    if x.dtype.kind == "f":
        x[rng.random(x.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    out = layer.forward(place(x))
    return out, layer.backward(place(numbers(rng, dtype, *out.shape)))


@settings(max_examples=150, deadline=None)
@given(windows(), st.sampled_from(["max", "average"]))
def test_a_pooling_equals_the_reference(case, mode):
    with np.errstate(invalid="ignore"):
        got = pooled(case, mode)
        with use_reference():
            expected = pooled(case, mode)
    for mine, theirs in zip(got, expected, strict=True):
        assert_same(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(windows())
def test_a_convolution_equals_that_of_pytorch(case):
    torch = pytest.importorskip("torch")
    case = case | {"dtype": "float64", "N": max(1, case["N"])}
    *got, _ = convolved(case)
    rng, place = np.random.default_rng(case["seed"]), MEMORY[case["memory"]]
    W = torch.tensor(numbers(rng, "float64", case["F"], case["C"], case["FH"], case["FW"]), requires_grad=True)
    b = torch.tensor(numbers(rng, "float64", case["F"]), requires_grad=True)
    x = numbers(rng, "float64", case["N"], case["C"], case["H"], case["W"])
    x = torch.tensor(x, requires_grad=True)
    out = torch.nn.functional.conv2d(x, W, b, case["stride"], case["pad"])
    out.backward(torch.tensor(np.array(place(numbers(rng, "float64", *out.shape)), "float64")))
    for mine, theirs in zip(got, (out.detach(), x.grad, W.grad, b.grad), strict=True):
        assert_same(mine, theirs.numpy())


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from(["max", "average"]))
def test_a_pooling_equals_that_of_pytorch(case, mode):
    torch = pytest.importorskip("torch")
    pad = min(case["pad"], case["FH"] // 2, case["FW"] // 2, case["FH"] - 1, case["FW"] - 1)
    rng = np.random.default_rng(case["seed"])
    size = max(1, case["N"]), case["C"], max(case["H"], case["FH"]), max(case["W"], case["FW"])
    given_x = numbers(rng, "float64", *size)
    x = torch.tensor(given_x, requires_grad=True)
    function = torch.nn.functional.max_pool2d if mode == "max" else torch.nn.functional.avg_pool2d
    out = function(x, (case["FH"], case["FW"]), case["stride"], pad)
    dout = numbers(rng, "float64", *out.shape)
    out.backward(torch.tensor(dout))
    layer = Pooling(case["FH"], case["FW"], case["stride"], pad, mode)
    assert_same(layer.forward(MEMORY[case["memory"]](given_x)), out.detach().numpy())
    assert_same(layer.backward(dout), x.grad.numpy())


def test_the_books_figure_of_a_convolution():
    x = np.array([[1.0, 2, 3, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1]])
    W = np.array([[2.0, 0, 1], [0, 1, 2], [1, 0, 2]])
    layer = Convolution(W.reshape(1, 1, 3, 3), np.array([3.0]))
    assert layer.forward(x.reshape(1, 1, 4, 4))[0, 0].tolist() == [[18, 19], [9, 18]]
    padded = Convolution(W.reshape(1, 1, 3, 3), np.zeros(1), pad=1).forward(x.reshape(1, 1, 4, 4))[0, 0]
    assert padded.tolist() == [[7, 12, 10, 2], [4, 15, 16, 10], [10, 6, 15, 6], [8, 10, 4, 3]]


def test_the_first_of_several_largest_pixels_gets_the_gradient():
    layer = Pooling(2, 2)
    assert layer.forward(np.ones((1, 1, 2, 2))).tolist() == [[[[1]]]]
    assert layer.arg_max.tolist() == [[[[0]]]]
    assert layer.backward(np.full((1, 1, 1, 1), 5.0)).tolist() == [[[[5, 0], [0, 0]]]]


def test_results_have_their_samples_side_by_side_and_elementwise_layers_keep_that(rng):
    x = rng.standard_normal((5, 2, 6, 7))
    out = Convolution(rng.standard_normal((3, 2, 2, 2)), np.zeros(3)).forward(x)
    for layer in (ReLU(), Tanh(), LeakyReLU()):
        assert out.transpose(1, 2, 3, 0).flags.c_contiguous
        y = layer.forward(out)
        assert y.strides == out.strides
        dx = layer.backward(np.ascontiguousarray(y))
        assert dx.strides == out.strides
        with use_reference():
            assert_same(y, layer.forward(np.ascontiguousarray(out)))
            assert_same(dx, layer.backward(np.ascontiguousarray(y)))
    pooled = Pooling(2, 2).forward(out)
    assert pooled.transpose(1, 2, 3, 0).flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(dtype, rng):
    x, W = rng.standard_normal((130, 3, 20, 20)).astype(dtype), rng.standard_normal((10, 3, 5, 5)).astype(dtype)
    layer, pool = Convolution(W, np.zeros(10, dtype), pad=1), Pooling(3, 3)
    dout = rng.standard_normal((130, 10, 18, 18)).astype(dtype)

    def results():
        out = layer.forward(x)
        dx = layer.backward(dout)
        y = pool.forward(out)
        return out, dx, layer.dW, layer.db, y, pool.backward(y)

    found = []
    for threads in (1, 2, 5):
        with fastbp.num_threads(threads):
            found.append([result.tobytes() for result in results()])
    assert found[0] == found[1] == found[2]


def test_the_gradient_of_a_convolutional_network_is_that_of_differences(rng):
    conv = Convolution(0.3 * rng.standard_normal((3, 2, 3, 3)), 0.1 * rng.standard_normal(3), stride=2, pad=1)
    affine = Affine(0.3 * rng.standard_normal((3 * 2 * 2, 4)), np.zeros(4))
    network = Sequential([conv, Tanh(), Pooling(2, 2, 1, mode="average"), affine], SoftmaxWithLoss())
    gradient_check(network, rng.standard_normal((4, 2, 5, 5)), rng.integers(0, 4, 4)).raise_if_failed()


def test_a_convolution_builds_no_matrix_of_windows(rng):
    x, layer = rng.standard_normal((50, 4, 28, 28)), Convolution(rng.standard_normal((4, 4, 5, 5)), np.zeros(4), pad=2)
    layer.backward(layer.forward(x[:1]))  # compiles
    allocation.release()
    tracemalloc.start()
    layer.backward(layer.forward(x))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * x.nbytes  # the output and dx; the windows are 25 times x


def test_an_infinite_weight_and_a_nan_pixel_come_through(rng):
    W, x = np.zeros((1, 1, 1, 1)), np.ones((1, 1, 2, 2))
    W[...], x[0, 0, 1, 1] = np.inf, np.nan
    np.testing.assert_array_equal(Convolution(W, np.zeros(1)).forward(x)[0, 0], [[np.inf, np.inf], [np.inf, np.nan]])


def convolution(rng, **settings):
    return Convolution(rng.standard_normal((3, 2, 3, 3)), np.zeros(3), **settings)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Convolution(np.ones((3, 2, 3)), np.ones(3)), ValueError, r"W: expected filters \(FN, C, FH, FW\)"),
        (lambda: Convolution(np.ones((3, 2, 3, 0)), np.ones(3)), ValueError, "W: expected filters"),
        (lambda: Convolution(np.ones((3, 2, 3, 3)), np.ones(2)), ValueError, r"b: expected shape \(3,\)"),
        (lambda: Convolution([[[[1.0]]]], np.ones(1)), TypeError, "W: expected a NumPy array"),
        (lambda: Convolution(np.ones((3, 2, 3, 3), complex), np.ones(3)), TypeError, "W: expected real numbers"),
        (lambda: Convolution(np.ones((3, 2, 3, 3)), np.ones(3), stride=0), ValueError, "stride: expected at least 1"),
        (lambda: Convolution(np.ones((3, 2, 3, 3)), np.ones(3), pad=-1), ValueError, "pad: expected at least 0"),
        (lambda: Convolution(np.ones((3, 2, 3, 3)), np.ones(3), pad=1.5), TypeError, "pad: expected an integer"),
        (lambda: Pooling(0, 2), ValueError, "pool_h: expected at least 1"),
        (lambda: Pooling(2, 2, pad=2), ValueError, "pad: expected less than the window 2×2"),
        (lambda: Pooling(2, 2, mode="sum"), ValueError, "mode: expected one of max, average, got 'sum'"),
    ],
)
def test_what_is_no_layer_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("make", [convolution, lambda rng: Pooling(3, 3)])
def test_what_fits_no_layer_is_refused_and_leaves_it_as_it_was(make, rng):
    layer = make(rng)
    x = rng.standard_normal((2, 2, 5, 5))
    with pytest.raises(RuntimeError, match="expected forward to have run"):
        layer.backward(x)
    out = layer.forward(x)
    expected = layer.backward(out)
    for bad, error, message in [
        (x[0], ValueError, r"x: expected images \(N, C, H, W\), got shape \(2, 5, 5\)"),
        (x[:, :, :2], ValueError, "x: expected images of at least 3 pixels"),
        (x.astype(complex), TypeError, "x: expected real numbers"),
        (np.ma.masked_array(x), TypeError, "masked array"),
    ]:
        with pytest.raises(error, match=message):
            layer.forward(bad)
    with pytest.raises(ValueError, match="dout: expected shape"):
        layer.backward(out[:1])
    assert layer.x is x
    np.testing.assert_array_equal(layer.backward(out), expected)


def test_images_of_other_channels_are_refused(rng):
    with pytest.raises(ValueError, match="x: expected 2 channels, as the filters"):
        convolution(rng).forward(rng.standard_normal((2, 3, 5, 5)))


def test_a_shape_that_is_set_after_forward_does_not_count(rng):
    layer, x = convolution(rng), rng.standard_normal((2, 2, 5, 5))
    out = layer.forward(x)
    expected = layer.backward(out)
    layer.W.shape, x.shape = (2, 27, 1, 1), (10, 10)
    np.testing.assert_array_equal(layer.backward(out), expected)
