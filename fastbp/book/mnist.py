"""MNIST as the book loads it (`dataset/mnist.py`): labels are bytes, images bytes or float32.

The files are the originals, in IDX format. No pickle of them is made: they are read in half a second.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fastbp.checks import Array
from fastbp.data import MNIST_FILES, MNIST_MIRRORS, read_mnist

__all__ = [
    "download_mnist",
    "img_dim",
    "img_size",
    "init_mnist",
    "key_file",
    "load_mnist",
    "np",
    "os",
    "test_num",
    "train_num",
    "url_base",
]

FOLDER_VARIABLE = "FASTBP_MNIST_DIR"
"""The variable that names the folder of the files."""

url_base = MNIST_MIRRORS[0]
key_file = dict(
    zip(("train_img", "train_label", "test_img", "test_label"), (f"{name}.gz" for name in MNIST_FILES), strict=True)
)
train_num, test_num = 60000, 10000
img_dim, img_size = (1, 28, 28), 784


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False, folder: str | Path | None = None
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return MNIST as (training images, labels), (test images, labels) (section 3.6.1).

    Parameters
    ----------
    normalize : bool
        Images of float32 from 0 to 1; else of bytes from 0 to 255.
    flatten : bool
        Images (N, 784); else (N, 1, 28, 28).
    one_hot_label : bool
        Labels (N, 10) of float64; else (N,) of bytes.
    folder : path, optional
        Has the four IDX files, gzipped or not, with any number of images. Without it the folder that the variable
        FASTBP_MNIST_DIR names; without that, the originals are downloaded once into the user's cache.

    Returns
    -------
    tuple of tuple of ndarray
        New arrays.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError, OSError
        As `fastbp.data.load_mnist`.
    """
    files = read_mnist(folder or os.environ.get(FOLDER_VARIABLE) or None)

    def part(split: str) -> tuple[Array, Array]:
        pixels, labels = files[f"{split}-images-idx3-ubyte"], files[f"{split}-labels-idx1-ubyte"]
        images: Array = pixels.astype(np.float32 if normalize else np.uint8)
        if normalize:
            images /= 255
        shape = (len(images), -1) if flatten else (len(images), 1, *images.shape[1:])
        return images.reshape(shape), np.eye(10)[labels] if one_hot_label else labels.copy()

    return part("train"), part("t10k")


def download_mnist() -> None:
    """Have the files in the cache, or in the folder that FASTBP_MNIST_DIR names."""
    load_mnist()


init_mnist = download_mnist
