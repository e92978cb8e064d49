"""The trained network of section 3.6 (`ch03/neuralnet_mnist.py`), whose parameters are in a file of the book."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from fastbp.book import parameter_file
from fastbp.book.functions import sigmoid, softmax
from fastbp.book.layers import Affine
from fastbp.book.mnist import load_mnist
from fastbp.checks import Array
from fastbp.files import FilePath

__all__ = ["get_data", "init_network", "predict"]


def get_data() -> tuple[Array, Array]:
    """Return the test images of MNIST, as rows from 0 to 1, and their labels."""
    return load_mnist()[1]


def init_network(file_name: FilePath = "sample_weight.pkl") -> dict[str, Array]:
    """Return the parameters W1, b1 to W3, b3 of a file, of which nothing but arrays is read.

    Raises
    ------
    ValueError, OSError
        If the file holds something else, or cannot be read.
    """
    return parameter_file.load(file_name)


def predict(network: Mapping[str, Array], x: ArrayLike) -> Array:
    """Return probabilities of the classes: two layers with sigmoid, then softmax.

    Parameters
    ----------
    network : dict of str to ndarray
        As `init_network` returns it.
    x : array_like
        Images (N, D), or one (D,).

    Returns
    -------
    ndarray
        (N, C), or (C,) for one image.
    """
    W1, W2, W3 = (network[f"W{number}"] for number in (1, 2, 3))
    b1, b2, b3 = (network[f"b{number}"] for number in (1, 2, 3))
    z1 = sigmoid(Affine(W1, b1).forward(x))
    z2 = sigmoid(Affine(W2, b2).forward(z1))
    return softmax(Affine(W3, b3).forward(z2))
