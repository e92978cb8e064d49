"""Exported files as people use them: alone, with awkward numbers and names, by the command; and what is refused."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastbp import (
    LeNet,
    MultiLayerNet,
    MultiLayerNetExtend,
    Sequential,
    SimpleConvNet,
    TwoLayerNet,
    export,
    functions,
)
from fastbp.book import ch07, ch08
from fastbp.book import layers as book
from fastbp.book.multi_layer_net_extend import MultiLayerNetExtend as BooksExtend
from fastbp.book.network import Network
from fastbp.cli import main
from fastbp.layers import (
    AddLayer,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Embedding,
    Flatten,
    LayerNormalization,
    Pooling,
    ReLU,
    Reshape,
    Softmax,
    SoftmaxWithLoss,
)
from fastbp.ops.contract import LAYERS
from tests.exporting import STRICT, assert_c_close, assert_close, by_c, by_numpy, by_onnx, call, compiled, compiler

BY_WRITER = pytest.mark.parametrize(
    "write", [export.to_onnx, export.to_c, export.to_numpy], ids=lambda write: write.__name__
)
BY_TARGET = pytest.mark.parametrize("target", ["onnx", "c", "numpy"])
SUFFIXES = {"onnx": ".onnx", "c": ".c", "numpy": ".py"}


def stack(*layers):
    return Sequential([*layers], SoftmaxWithLoss())


def affine(rng, D, M, dtype="float32"):
    return Affine(rng.standard_normal((D, M)).astype(dtype), rng.standard_normal(M).astype(dtype))


def assert_exported(network, folder, x, **arguments):
    """Every target predicts what the network does."""
    expected = network.predict(x)
    tolerance = {"float32": 3e-6, "float64": 1e-12}[str(expected.dtype)]
    assert_close(by_numpy(network, folder, x, **arguments), expected, tolerance)
    assert_c_close(by_c(network, folder, x, **arguments), expected, 2e-6)
    assert_close(by_onnx(network, folder, x, **arguments), expected, tolerance)


# Networks.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: TwoLayerNet(20, 8, 3, dtype=dtype, seed=0),
        lambda dtype: MultiLayerNet(20, [9, 8], 3, activation="sigmoid", dtype=dtype, seed=0),
        lambda dtype: MultiLayerNetExtend(20, [9, 8], 3, use_dropout=True, use_batchnorm=True, dtype=dtype, seed=0),
    ],
    ids=["TwoLayerNet", "MultiLayerNet", "MultiLayerNetExtend"],
)
def test_a_dense_network_is_exported_without_a_shape(make, dtype, tmp_path, rng):
    assert_exported(make(dtype), tmp_path, rng.standard_normal((7, 20)).astype("float32").astype(dtype))


@pytest.mark.parametrize("kind", [SimpleConvNet, LeNet])
def test_a_convolutional_network_is_exported(kind, tmp_path, rng):
    x = rng.standard_normal((3, 1, 28, 28)).astype("float32")
    assert_exported(kind(dtype="float32", seed=0), tmp_path, x, sample_shape=(1, 28, 28))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ch07.SimpleConvNet, (1, 28, 28)),
        (ch08.DeepConvNet, (1, 28, 28)),
        (lambda: BooksExtend(20, [9, 8], 3, use_dropout=True, use_batchnorm=True), (20,)),
    ],
    ids=["SimpleConvNet", "DeepConvNet", "MultiLayerNetExtend"],
)
def test_a_network_of_the_books_modules_is_exported(make, shape, tmp_path, rng):
    np.random.seed(0)
    network = make()
    for layer in network.stack():
        if isinstance(layer, book.BatchNormalization):
            layer.running_mean, layer.running_var = rng.standard_normal(layer.gamma.size), rng.random(layer.gamma.size)
    x = rng.standard_normal((2, *shape)).astype("float32").astype("float64")
    expected = network.predict(x)
    assert_close(by_numpy(network, tmp_path, x, sample_shape=shape), expected, 1e-12)
    assert_c_close(by_c(network, tmp_path, x, sample_shape=shape), expected, 2e-6)


def test_the_books_batch_normalization_takes_every_pixel_for_a_feature(tmp_path, rng):
    gamma, beta, mean, var = rng.uniform(0.5, 2, (4, 12)).astype("float32")
    filters = rng.standard_normal((3, 1, 2, 2)).astype("float32"), np.zeros(3, "float32")
    layers = [book.Convolution(*filters), book.BatchNormalization(gamma, beta, 0.9, mean, var), book.Dropout(0.25)]
    x = rng.standard_normal((2, 1, 3, 3)).astype("float32")
    assert_exported(Network({}, layers), tmp_path, x, sample_shape=(1, 3, 3))


def test_indices_are_taken_as_they_are(tmp_path, rng):
    network = stack(Embedding(rng.standard_normal((6, 4)).astype("float32")), Flatten(), affine(rng, 12, 3))
    x = rng.integers(0, 6, (5, 3))
    assert_exported(network, tmp_path, x)
    assert np.isnan(call(compiled(tmp_path / "network.c"), np.array([[0, 6, -1]]))[0, :3]).all()
    with pytest.raises(ValueError, match="expected indices from 0 to 5"):
        by_numpy(network, tmp_path, np.array([[0, -1, 2]]))
    with pytest.raises(TypeError, match="expected integers"):
        by_numpy(network, tmp_path, np.zeros((2, 3)))


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_the_end_makes_probabilities(end, tmp_path, rng):
    network, x = stack(affine(rng, 5, 4)), rng.standard_normal((3, 5)).astype("float32")
    expected = getattr(functions, end)(network.predict(x))
    assert_close(by_numpy(network, tmp_path, x, end=end), expected, 1e-6)
    assert_c_close(by_c(network, tmp_path, x, end=end), expected, 2e-6)
    assert_close(by_onnx(network, tmp_path, x, end=end), expected, 1e-6)


@pytest.mark.parametrize("axis", [1, 2, -1, -2, -3])
def test_a_softmax_along_any_axis_of_a_sample(axis, tmp_path, rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    layers = [LayerNormalization(np.ones(5, "float32"), np.zeros(5, "float32")), Softmax(axis)]
    assert_exported(stack(*layers), tmp_path, x, sample_shape=(3, 4, 5))


@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float64", "float32"), ("int64", "int8")], ids=str)
def test_parameters_of_other_dtypes_are_computed_in_one_that_holds_them(dtypes, tmp_path):
    W, b = np.arange(6).reshape(2, 3).astype(dtypes[0]), np.arange(3).astype(dtypes[1])
    network, x = stack(Affine(W[:, ::-1], b)), np.array([[0.5, 0.25]])
    assert_c_close(by_c(network, tmp_path, x), network.predict(x), 0)
    dtype = "float32" if dtypes[0] == "float16" else "float64"
    got = by_numpy(network, tmp_path, x)
    assert got.dtype == by_onnx(network, tmp_path, x.astype(dtype)).dtype == dtype
    assert_close(got, network.predict(x), 0)


@BY_WRITER
def test_an_export_leaves_the_network_as_it_was_and_repeats_its_bytes(write, tmp_path, rng):
    network = MultiLayerNetExtend(5, [4], 3, use_batchnorm=True, use_dropout=True, seed=0)
    x, t = rng.standard_normal((6, 5)), np.arange(6) % 3
    before = network.gradient(x, t)
    network.layers["Dropout1"].step -= 1
    step = network.layers["BatchNorm1"].step
    write(network, tmp_path / "one")
    write(network, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert network.layers["BatchNorm1"].step == step
    for key, gradient in network.gradient(x, t).items():
        np.testing.assert_array_equal(gradient, before[key])


# Expressions.


def every_function(x):
    """All that a twin may use, with what a language computes in another way for NaN."""
    positive = np.maximum(np.abs(x), 0.125)
    small = np.clip(np.minimum(x, 0.5), -0.5, 0.25)
    roots = np.sqrt(positive) - np.log(positive) * np.log1p(positive) / np.exp(-positive)
    shares = np.where(x > 0.5, np.expm1(small), np.where(x >= 0.25, -np.tanh(x), np.square(small) + small**3))
    steps = np.where(x < -1, 1, np.where(x <= -0.5, 2, np.where(x == 0.375, 3, np.where(x != 0.125, 4.5, 0))))
    return roots + shares + steps


@pytest.fixture
def patched(monkeypatch):
    """ReLU with another formula."""

    def patch(twin):
        record = LAYERS[ReLU]
        function = dataclasses.replace(record.activation, name="other", value_twin=twin)
        monkeypatch.setitem(LAYERS, ReLU, dataclasses.replace(record, activation=function))
        return stack(Affine(np.eye(1, dtype="float32"), np.zeros(1, "float32")), ReLU())

    return patch


def test_a_formula_means_the_same_in_every_language(patched, tmp_path):
    network = patched(every_function)
    x = np.array([-2, -1, -0.75, -0.5, 0, 0.125, 0.25, 0.375, 0.5, 1, 3], np.float32)[:, None]
    expected = every_function(x)
    assert_close(by_numpy(network, tmp_path, x), expected, 1e-6)
    assert_c_close(by_c(network, tmp_path, x), expected, 2e-6)
    assert_close(by_onnx(network, tmp_path, x), expected, 2e-6)


def test_a_nan_stays_one_in_c_where_it_does_in_numpy(patched, tmp_path):
    x = np.array([[np.nan], [1]], np.float32)
    for twin in (lambda x: np.maximum(x, 0), lambda x: np.minimum(0, x), lambda x: np.where(x <= 0, 0, x)):
        network = patched(twin)
        assert list(np.isnan(by_c(network, tmp_path, x)[:, 0])) == [True, False]


@BY_WRITER
def test_a_function_that_no_target_knows_is_named_with_its_layer(write, patched, tmp_path):
    with pytest.raises(TypeError, match=r"^ReLU1: .*got arctan; write it with"):
        write(patched(np.arctan), tmp_path / "file")


# The C file.


@pytest.mark.parametrize("compiled_by", ["gcc", "clang"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_c_file_compiles_without_a_warning(compiled_by, dtype, tmp_path, rng):
    images = np.ones((2, 1, 2, 2), dtype), np.zeros(2, dtype)
    ones = np.ones(2, dtype)
    layers = [Reshape((1, 6, 6)), Convolution(*images, 1, 1), BatchNormalization(ones, ones), Pooling(2, 2)]
    layers += [Pooling(2, 2, 1, 1, "average"), LayerNormalization(np.ones(4, dtype), np.ones(4, dtype))]
    layers += [record.layer() for record in LAYERS.values() if record.activation is not None]
    network, x = stack(*layers, affine(rng, 32, 4, dtype), Softmax()), rng.random((2, 36)).astype("float32")
    for level in ("-O0", "-O3"):
        got = by_c(network, tmp_path, x, level, "-Wshadow", "-Wconversion", compiled_by=compiled_by)
        assert_c_close(got, network.predict(x.astype(dtype)), 2e-6)


def test_the_c_file_needs_the_mathematics_of_the_library_alone(tmp_path):
    export.to_c(LeNet(seed=0), tmp_path / "lenet.c", sample_shape=(1, 28, 28), end="softmax")
    text = (tmp_path / "lenet.c").read_text()
    assert re.findall(r"#include (.*)", text) == ["<math.h>"]
    assert not re.search(r"(alloc|alloca|free) ?\(", text)
    library = tmp_path / "lenet.o"
    subprocess.run([compiler("gcc"), *STRICT, "-c", "-o", str(library), str(tmp_path / "lenet.c")], check=True)
    symbols = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True).stdout
    assert re.findall(r" [TDBC] (\w+)", symbols) == ["predict"]
    assert set(re.findall(r" U (\w+)", symbols)) <= {"exp", "fma", "_GLOBAL_OFFSET_TABLE_", "memcpy", "memset"}


def test_the_c_file_tells_the_architecture_and_the_threads(tmp_path):
    export.to_c(TwoLayerNet(784, 50, 10, dtype="float32"), tmp_path / "small.c")
    comment = (tmp_path / "small.c").read_text().split("*/")[0]
    assert "TwoLayerNet in C99: 784 numbers -> 10 numbers" in comment
    assert re.search(r"Affine1  784 -> 50\n \* {5}Relu1 {5}50 -> 50\n \* {5}Affine2 {3}50 -> 10\n", comment)
    assert "3,336 bytes of scratch are on the stack: several threads may call predict at once" in comment
    export.to_c(TwoLayerNet(2, 5000, 3, dtype="float32"), tmp_path / "large.c")
    text = (tmp_path / "large.c").read_text()
    assert "20,012 bytes of scratch are static: one thread at a time may call predict" in text.split("*/")[0]
    assert "static number a[A_SIZE], b[B_SIZE];" in text


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_float_comes_back(dtype, tmp_path, rng):
    kind = np.finfo(dtype)
    numbers = [0.0, -0.0, kind.max, -kind.max, kind.tiny, kind.smallest_subnormal, 0.1, 1e22, np.pi, np.inf, np.nan]
    b = np.array([*numbers, *rng.standard_normal(200)], dtype)
    network, x = stack(Affine(np.zeros((1, len(b)), dtype), b)), np.zeros((1, 1), dtype)
    with np.errstate(over="ignore"):
        expected = (b + 0).astype("float32")
    got = by_c(network, tmp_path, x)[0, : len(b)]
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(by_numpy(network, tmp_path, x)[0], b + 0)


@BY_WRITER
def test_a_name_of_a_layer_may_be_any_text(write, tmp_path, rng):
    names = ["*/ #error", '"""', "a\nb\\", "??/", "層", "x", ""]
    network = Sequential({name: affine(rng, 2, 2) for name in names}, SoftmaxWithLoss())
    x = rng.standard_normal((2, 2)).astype("float32")
    target = {export.to_onnx: by_onnx, export.to_numpy: by_numpy}.get(write)
    if target is None:
        assert_c_close(by_c(network, tmp_path, x), network.predict(x), 2e-6)
    else:
        assert_close(target(network, tmp_path, x), network.predict(x), 3e-6)


# The Python file.


def test_the_python_file_runs_where_fastbp_is_not(tmp_path, rng):
    network = stack(
        Convolution(rng.standard_normal((2, 1, 2, 2)), np.ones(2)), Pooling(2, 2), Flatten(), affine(rng, 8, 3)
    )
    x = rng.standard_normal((4, 1, 5, 5))
    export.to_numpy(network, tmp_path / "network.py", sample_shape=(1, 5, 5))
    np.save(tmp_path / "x.npy", x)
    packages = tmp_path / "packages"
    packages.mkdir()
    for found in Path(np.__file__).parents[1].glob("numpy*"):
        (packages / found.name).symlink_to(found)
    code = """
import importlib.util, sys
assert importlib.util.find_spec("fastbp") is importlib.util.find_spec("numba") is None
import numpy as np
from network import predict
np.save("y.npy", predict(np.load("x.npy")))
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("fastbp", "numba")))
"""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    variables["PYTHONPATH"] = os.pathsep.join([str(packages), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", code],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    assert_close(np.load(tmp_path / "y.npy"), network.predict(x), 1e-12)


def test_the_python_file_checks_its_samples_and_takes_an_empty_batch(tmp_path, rng):
    network = stack(affine(rng, 5, 3))
    with pytest.raises(ValueError, match=r"expected a batch \(N, 5\), got shape \(2, 4\)"):
        by_numpy(network, tmp_path, np.zeros((2, 4)))
    assert by_numpy(network, tmp_path, np.zeros((0, 5))).shape == (0, 3)
    assert by_onnx(network, tmp_path, np.zeros((0, 5), "float32")).shape == (0, 3)


def test_the_python_file_has_what_it_needs_alone(tmp_path):
    export.to_numpy(TwoLayerNet(3, 2, 2), tmp_path / "network.py")
    text = (tmp_path / "network.py").read_text()
    assert re.findall(r"^def (\w+)", text, re.MULTILINE) == ["predict", "activation_relu", "_array"]
    assert re.findall(r"^import (.*)", text, re.MULTILINE) == ["base64", "numpy as np"]


# The shape of a sample.


@BY_WRITER
def test_a_shape_that_the_layers_do_not_tell_is_asked_for(write, tmp_path):
    with pytest.raises(ValueError, match=r"^sample_shape: .*\(1, 28, 28\), \(1, 29, 29\).* fit\); give it, such as"):
        write(SimpleConvNet(seed=0), tmp_path / "file")
    with pytest.raises(ValueError, match=r"^sample_shape: .*none of the usual ones fits"):
        write(stack(ReLU()), tmp_path / "file")
    assert not [*tmp_path.iterdir()]


def test_a_shape_that_fits_alone_is_found(tmp_path, rng):
    filters = rng.standard_normal((2, 3, 3, 3)).astype("float32"), np.zeros(2, "float32")
    network = stack(Convolution(*filters), ReLU(), affine(rng, 32, 2))
    x = rng.standard_normal((2, 3, 6, 6)).astype("float32")
    assert_close(by_numpy(network, tmp_path, x), network.predict(x), 3e-6)
    rows = stack(Reshape((3, 6, 6)), Convolution(*filters))
    assert by_numpy(rows, tmp_path, x.reshape(2, -1)).shape == (2, 2, 4, 4)


@BY_WRITER
@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((5,), ValueError, r"Affine1: expected samples of 4 numbers"),
        ((0, 4), ValueError, r"sample_shape"),
        ((2.0, 2), TypeError, r"sample_shape: expected an integer"),
        (4, TypeError, r"sample_shape: expected a tuple of integers, got int"),
    ],
    ids=str,
)
def test_a_shape_that_does_not_fit_is_refused(write, shape, error, message, tmp_path, rng):
    with pytest.raises(error, match=message):
        write(stack(affine(rng, 4, 2)), tmp_path / "file", sample_shape=shape)


# Errors.


class Doubled:
    def forward(self, x):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


class LoudReLU(ReLU):
    pass


class Shifted(TwoLayerNet):
    def predict(self, x, train_flg=False):
        return super().predict(x, train_flg) + 1


def with_own_forward():
    layer = ReLU()
    layer.forward = layer.forward
    return layer


@BY_WRITER
@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (
            Doubled(),
            TypeError,
            r"Doubled1, layer 2 of 3: expected a layer of fastbp.layers, got .*\.Doubled, whose",
        ),
        (LoudReLU(), TypeError, r"LoudReLU1, layer 2 of 3: .*got .*\.LoudReLU, whose code"),
        (AddLayer(), TypeError, r"AddLayer1, layer 2 of 3: .*got .*\.AddLayer, whose code"),
        (with_own_forward(), TypeError, r"ReLU1, layer 2 of 3: expected the forward of its class"),
        (Embedding(np.ones((3, 2))), ValueError, r"Embedding1, layer 2 of 3: expected Embedding to be the first"),
        (Softmax(0), ValueError, r"Softmax1: axis: expected one of a sample, got 0"),
        (Reshape((3, 3)), ValueError, r"Reshape1: expected samples that fill a shape \(3, 3\)"),
    ],
    ids=["own", "derived", "of two inputs", "replaced", "indices", "axis", "shape"],
)
def test_a_layer_that_cannot_leave_is_named_with_its_place(write, layer, error, message, tmp_path, rng):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error, match=message):
        write(stack(affine(rng, 4, 2), layer, Dropout(0.5)), tmp_path / "file", sample_shape=(4,))
    assert (tmp_path / "file").read_bytes() == b"old"


@BY_WRITER
@pytest.mark.parametrize(
    "network", [Shifted(2, 2, 2), Doubled(), TwoLayerNet, None], ids=["shifted", "doubled", "class", "none"]
)
def test_what_does_not_predict_by_layers_is_refused(write, network, tmp_path):
    with pytest.raises(TypeError, match=r"^network: expected .*, got \w+"):
        write(network, tmp_path / "file")


@BY_WRITER
def test_an_unknown_end_is_refused(write, tmp_path):
    with pytest.raises(ValueError, match="end: expected one of softmax, sigmoid, got 'tanh'"):
        write(TwoLayerNet(2, 2, 2), tmp_path / "file", end="tanh")


@BY_WRITER
def test_a_layer_without_outputs_is_refused(write, tmp_path):
    with pytest.raises(ValueError, match="Affine1: expected at least one number in each sample"):
        write(stack(Affine(np.ones((2, 0)), np.ones(0))), tmp_path / "file")


@pytest.mark.parametrize("border", [1, 2])
def test_the_books_pooling_with_a_border_is_refused(border, tmp_path):
    network = Network({}, [book.Pooling(2, 2, 2, border)])
    with pytest.raises(ValueError, match=r"Layer1: pad: expected 0 in a pooling of fastbp.book, got"):
        export.to_c(network, tmp_path / "file", sample_shape=(1, 4, 4))


# The command.


@pytest.fixture
def model(tmp_path):
    network = TwoLayerNet(6, 5, 3, dtype="float32", seed=0)
    network.save(tmp_path / "model.npz")
    return network, tmp_path / "model.npz"


def run(capsys, *arguments):
    status = main(["export", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@BY_TARGET
def test_the_command_writes_beside_the_model_or_where_it_is_told(target, model, tmp_path, capsys):
    _, path = model
    beside, there = path.with_suffix(SUFFIXES[target]), tmp_path / "there"
    status, out, err = run(capsys, path, "--to", target)
    assert (status, err) == (0, "")
    assert out == f"{path}: saved to {beside}, {beside.stat().st_size:,} bytes\n"
    assert run(capsys, path, "--to", target, "-o", there)[0] == 0
    assert there.read_bytes() == beside.read_bytes()


def test_the_command_passes_on_the_shape_and_the_end(tmp_path, capsys):
    network = SimpleConvNet(dtype="float32", seed=0)
    network.save(tmp_path / "model.npz")
    arguments = tmp_path / "model.npz", "--to", "numpy"
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "or --shape 1,28,28" in err
    assert run(capsys, *arguments, "--shape", "1,28,28", "--end", "softmax")[0] == 0
    export.to_numpy(network, tmp_path / "expected.py", sample_shape=(1, 28, 28), end="softmax")
    assert (tmp_path / "model.py").read_bytes() == (tmp_path / "expected.py").read_bytes()


@BY_TARGET
def test_the_commands_mistakes_are_told(target, model, tmp_path, capsys):
    _, path = model
    missing = tmp_path / "missing" / "file"
    for arguments, message in (
        ((path, "--to", target, "-o", missing), "expected a folder"),
        ((tmp_path / "none.npz", "--to", target), "expected a file that fastbp saved, got none there"),
        ((path, "--to", target, "-o", path), "expected another file than the saved network"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, "")
        assert message in err
    (tmp_path / "other.npz").write_bytes(b"other")
    assert run(capsys, tmp_path / "other.npz", "--to", target)[0] == 2


def test_the_command_says_how_to_install_onnx(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, err = run(capsys, model[1], "--to", "onnx")
    assert status == 2
    assert "onnx: expected to be installed, got nothing; install it with: pip install onnx" in err


def test_the_commands_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "example:\n  fastbp export lenet.npz --to c --shape 1,28,28" in capsys.readouterr().out


def test_a_folder_in_the_place_of_the_file_is_told(model, tmp_path):
    with pytest.raises(ValueError, match="expected a file or a new name, got a folder"):
        export.to_c(model[0], tmp_path)
