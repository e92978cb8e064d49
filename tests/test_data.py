"""The data sets: what a good file gives, what a bad one says."""

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from fastbp import data


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays(rng):
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (5, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(5),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(3),
    }


@pytest.fixture
def folder(tmp_path, arrays):
    for i, (name, array) in enumerate(arrays.items()):
        if i % 2:
            (tmp_path / name).write_bytes(idx(array))
        else:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path


def test_mnist_files_gzipped_or_not(folder, arrays):
    mnist = data.load_mnist(folder, np.float32)
    expected = arrays["train-images-idx3-ubyte"].reshape(5, 784) / 255
    np.testing.assert_allclose(mnist.x_train, expected, rtol=1e-6)
    assert mnist.x_train.dtype == mnist.x_test.dtype == np.float32
    assert mnist.t_train.tolist() == [0, 1, 2, 3, 4]
    assert mnist.x_test.shape == (3, 784)


def test_the_real_mnist(mnist_folder):
    mnist = data.load_mnist(mnist_folder)
    assert mnist.t_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.x_test.shape == (10000, 784)
    assert mnist.x_train.max() == 1


# What becomes of a good file's bytes, and what is said about it.
BAD_FILES = {
    "truncated gzip": (lambda good: good[:-100], "expected a whole gzip file"),
    "not gzip": (lambda good: b"<html>not found</html>", "expected a whole gzip file"),
    "truncated": (
        lambda good: gzip.compress(gzip.decompress(good)[:-1]),
        "expected 3,920 bytes for shape (5, 28, 28), got 3,919",
    ),
    "too long": (
        lambda good: gzip.compress(gzip.decompress(good) + b"\0"),
        "expected 3,920 bytes for shape (5, 28, 28), got 3,921",
    ),
    "not idx": (lambda good: gzip.compress(b"hello"), "expected an IDX file"),
    "header only": (lambda good: gzip.compress(b"\0\0\x08\x03\0"), "the file is truncated"),
    "no images": (
        lambda good: gzip.compress(idx(np.zeros((0, 28, 28)))),
        "expected at least one element, got shape (0, 28, 28)",
    ),
    "absurd sizes": (
        lambda good: gzip.compress(b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8),
        "expected at least one element, got shape (0, 4294967295, 4294967295)",
    ),
    "too many axes": (lambda good: gzip.compress(b"\0\0\x08\x41" + b"\0\0\0\x01" * 65 + b"\0"), "expected an IDX file"),
}


@pytest.mark.parametrize(("damage", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(folder, damage, says):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz") as error:
        data.load_mnist(folder)
    assert says in str(error.value)


def test_files_that_do_not_belong_together(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(ValueError, match="expected 5 labels, as many as images, got 4"):
        data.load_mnist(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros((5, 2))))
    with pytest.raises(ValueError, match="expected 1 axes"):
        data.load_mnist(folder)


def test_labels_that_are_not_digits(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.array([1, 2, 12, 3, 10])))
    with pytest.raises(ValueError, match=r"train-labels.*: expected labels from 0 to 9, got 12 at index 2"):
        data.load_mnist(folder)


def test_test_images_of_another_size(folder):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((3, 8, 8)))))
    with pytest.raises(ValueError, match=r"t10k-images.*: expected images of shape \(28, 28\).*got \(8, 8\)"):
        data.load_mnist(folder)


@pytest.mark.parametrize("dtype", [int, np.float16, "complex128", "text"])
def test_other_dtypes_are_refused(folder, dtype):
    for load in (data.load_digits, lambda dtype: data.load_mnist(folder, dtype)):
        with pytest.raises(TypeError, match="dtype: expected float32 or float64"):
            load(dtype)


def test_missing_files_and_folders(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected t10k-labels-idx1-ubyte or .*\.gz, got neither"):
        data.load_mnist(folder)
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        data.load_mnist(folder / "nowhere")


@pytest.fixture
def mirror(tmp_path, arrays, monkeypatch):
    """A mirror on this machine, its checksums, and an empty cache."""
    served = tmp_path / "served"
    served.mkdir()
    requests = []
    checksums = {}
    for name, array in arrays.items():
        content = gzip.compress(idx(array))
        (served / f"{name}.gz").write_bytes(content)
        checksums[name] = hashlib.sha256(content).hexdigest()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def log_message(self, *args):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(data, "MNIST_FILES", checksums)
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(data, "MNIST_MIRRORS", (f"{address}gone/", address))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield served, requests
    server.shutdown()
    server.server_close()


def test_mnist_is_downloaded_once(mirror, arrays):
    _, requests = mirror
    first = data.load_mnist()
    np.testing.assert_allclose(first.x_test, arrays["t10k-images-idx3-ubyte"].reshape(3, 784) / 255)
    count = len(requests)
    assert count >= 4
    data.load_mnist()
    assert len(requests) == count


def test_a_download_with_another_checksum_is_refused(mirror):
    served, _ = mirror
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(OSError, match=r"t10k-labels-idx1-ubyte.gz: expected to download it.*check the connection"):
        data.load_mnist()


def test_digits():
    digits = data.load_digits(np.float32)
    assert digits.x_train.shape == (1438, 64)
    assert digits.x_test.shape == (359, 64)
    assert digits.x_train.dtype == np.float32
    assert digits.x_train.max() == 1
    assert set(digits.t_test) == set(range(10))
