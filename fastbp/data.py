"""The two data sets of the demonstrations: scikit-learn's small digits, and MNIST in its IDX files."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from fastbp.checks import Array, network_dtype
from fastbp.extras import require

__all__ = ["Dataset", "load_digits", "load_mnist", "missing_mnist", "read_idx", "read_mnist"]

MNIST_FILES = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""Names of the four files, and the SHA-256 of each one's gzipped original."""

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Where they are downloaded from, tried in order."""

_IDX_UNSIGNED_BYTE = 8
_MOST_AXES = 64  # of a NumPy array


@dataclass(frozen=True)
class Dataset:
    """Images as rows of numbers from 0 to 1, and their labels.

    Attributes
    ----------
    name : str
    x_train, x_test : ndarray (N, D)
    t_train, t_test : ndarray (N,) of int64

    Examples
    --------
    >>> digits = load_digits()
    >>> digits.name, digits.x_train.shape, digits.t_test.shape
    ('digits', (1438, 64), (359,))
    """

    name: str
    x_train: Array
    t_train: Array
    x_test: Array
    t_test: Array


def load_digits(dtype: DTypeLike = np.float64) -> Dataset:
    """Return scikit-learn's bundled digits: 1,797 images of 8×8, every fifth one for the test.

    Parameters
    ----------
    dtype : float64 or float32
        Of the images.

    Raises
    ------
    TypeError
        For another dtype.
    ImportError
        Without scikit-learn.

    Examples
    --------
    >>> digits = load_digits()
    >>> digits.x_train.shape, digits.x_test.shape
    ((1438, 64), (359, 64))
    >>> digits.x_train.min(), digits.x_train.max()
    (np.float64(0.0), np.float64(1.0))
    """
    dtype = network_dtype(dtype)
    digits = require("sklearn.datasets").load_digits()
    x, t = (digits.data / 16).astype(dtype), digits.target.astype(np.int64)
    test = np.arange(len(t)) % 5 == 4
    return Dataset("digits", x[~test], t[~test], x[test], t[test])


def load_mnist(folder: str | Path | None = None, dtype: DTypeLike = np.float64) -> Dataset:
    """Return MNIST: images of 28×28 for training and for the test.

    Parameters
    ----------
    folder : path, optional
        Holds the four IDX files, gzipped or not, with any number of images. Without a folder the originals (60,000 and
        10,000 images) are downloaded once into the user's cache, and their checksums are compared.
    dtype : float64 or float32
        Of the images.

    Raises
    ------
    FileNotFoundError
        If the folder or a file in it is missing.
    TypeError
        For another dtype.
    ValueError
        If a file is damaged, truncated or something else, or the files do not belong together.
    ImportError
        If a download is needed, without pooch.
    OSError
        If a download fails.

    Examples
    --------
    >>> data = load_mnist("mnist")  # a folder with two images for each, all white
    >>> data.x_train.shape, data.x_train.max(), data.t_test
    ((2, 784), np.float64(1.0), array([5, 0]))
    """
    dtype = network_dtype(dtype)
    arrays = read_mnist(folder)
    images = {name: _scaled(array, dtype) for name, array in arrays.items() if array.ndim > 1}
    labels = {name: array.astype(np.int64) for name, array in arrays.items() if array.ndim == 1}
    return Dataset(
        "mnist",
        images["train-images-idx3-ubyte"],
        labels["train-labels-idx1-ubyte"],
        images["t10k-images-idx3-ubyte"],
        labels["t10k-labels-idx1-ubyte"],
    )


def read_mnist(folder: str | Path | None = None) -> dict[str, Array]:
    """Return the bytes of MNIST's four files, by their names without a suffix: images (N, 28, 28) and labels (N,).

    Parameters
    ----------
    folder : path, optional
        As `load_mnist` takes it.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError, OSError
        As `load_mnist`.

    Examples
    --------
    >>> files = read_mnist("mnist")
    >>> files["train-images-idx3-ubyte"].shape
    (2, 28, 28)
    """
    paths = _downloaded() if folder is None else _found(Path(folder))
    arrays = {name: read_idx(path) for name, path in paths.items()}
    for split in ("train", "t10k"):
        _check_pair(paths, arrays, f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte")
    image, test_image = (arrays[f"{split}-images-idx3-ubyte"].shape[1:] for split in ("train", "t10k"))
    if test_image != image:
        raise ValueError(
            f"{paths['t10k-images-idx3-ubyte']}: expected images of shape {image}, as those to train with, "
            f"got {test_image}; take both from one set"
        )
    return arrays


def read_idx(path: str | Path) -> Array:
    """Return the array of unsigned bytes in an IDX file, gzipped if its name ends in .gz.

    The format: two zero bytes, a type code (8, unsigned byte), the number of axes, the length of each as a
    big-endian 32-bit integer, then the elements.

    Parameters
    ----------
    path : path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, truncated, empty or something else.

    Examples
    --------
    >>> from pathlib import Path
    >>> written = Path("labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    >>> read_idx("labels")
    array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: expected a whole gzip file, got a damaged one ({error}); download it again"
        ) from None
    axes = content[3] if len(content) > 3 else 0
    if content[:3] != bytes([0, 0, _IDX_UNSIGNED_BYTE]) or not 0 < axes <= _MOST_AXES:
        raise ValueError(f"{path}: expected an IDX file, got one that starts {content[:4]!r}; give the original file")
    start = 4 + 4 * axes
    shape = tuple(int(size) for size in np.frombuffer(content[4:start].ljust(4 * axes, b"\0"), np.dtype(">u4")))
    size = len(content) - start
    if size != math.prod(shape):
        raise ValueError(
            f"{path}: expected {math.prod(shape):,} bytes for shape {shape}, got {max(size, 0):,}; "
            f"the file is truncated or damaged, download it again"
        )
    if 0 in shape:
        raise ValueError(f"{path}: expected at least one element, got shape {shape}; give the original file")
    return np.frombuffer(content, np.dtype(np.uint8), offset=start).reshape(shape)


def missing_mnist(folder: str | Path | None = None) -> list[str]:
    """Return the names of MNIST's files that are not in a folder, or not downloaded yet.

    Parameters
    ----------
    folder : path, optional
        Without one the user's cache; without pooch, which downloads into it, nothing is there.

    Examples
    --------
    >>> missing_mnist(".")[:2]
    ['train-images-idx3-ubyte', 'train-labels-idx1-ubyte']
    """
    if folder is None:
        try:
            folder = _cache()
        except ImportError:
            return list(MNIST_FILES)
    return [name for name in MNIST_FILES if not _choices(Path(folder), name)]


def _choices(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _found(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with the MNIST files, got none there; check the path")
    paths = {}
    for name in MNIST_FILES:
        present = _choices(folder, name)
        if not present:
            raise FileNotFoundError(
                f"{folder}: expected {name} or {name}.gz, got neither; put the four IDX files there"
            )
        paths[name] = present[0]
    return paths


def _cache() -> Path:
    return Path(require("pooch").os_cache("fastbp")) / "mnist"


def _downloaded() -> dict[str, Path]:
    pooch = require("pooch")
    pooch.get_logger().setLevel("ERROR")
    folder = _cache()
    return {name: _download(pooch, folder, f"{name}.gz", checksum) for name, checksum in MNIST_FILES.items()}


def _download(pooch, folder: Path, file: str, checksum: str) -> Path:  # type: ignore[no-untyped-def]
    failures = []
    for mirror in MNIST_MIRRORS:
        try:
            return Path(pooch.retrieve(mirror + file, known_hash=f"sha256:{checksum}", fname=file, path=folder))
        except (OSError, ValueError) as error:  # ValueError: the checksum differs
            failures.append(f"{mirror}: {error}")
    raise OSError(
        f"{file}: expected to download it, got {'; '.join(failures)}; "
        f"check the connection, or put the four IDX files in a folder and name it"
    )


def _check_pair(paths: dict[str, Path], arrays: dict[str, Array], images: str, labels: str) -> None:
    x, t = arrays[images], arrays[labels]
    for name, array, axes in ((images, x, 3), (labels, t, 1)):
        if array.ndim != axes:
            raise ValueError(f"{paths[name]}: expected {axes} axes, got shape {array.shape}; give the original file")
    if len(x) != len(t):
        raise ValueError(
            f"{paths[labels]}: expected {len(x):,} labels, as many as images, got {len(t):,}; take both from one set"
        )
    if t.max() > 9:
        raise ValueError(
            f"{paths[labels]}: expected labels from 0 to 9, got {t.max()} at index {t.argmax()}; give the original file"
        )


def _scaled(images: Array, dtype: DTypeLike) -> Array:
    scaled: Array = images.reshape(len(images), -1).astype(dtype)
    scaled /= 255
    return scaled
