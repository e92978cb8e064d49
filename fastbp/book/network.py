"""What the book's networks share: a dict of parameters, and layers that have the very arrays of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp.book import parameter_file
from fastbp.book.gradient import numerical_gradient
from fastbp.book.layers import Affine, BatchNormalization, Convolution, Dropout, SoftmaxWithLoss
from fastbp.checks import Array
from fastbp.files import FilePath
from fastbp.ops.contract import by

__all__ = ["ImageNetwork", "Network", "described", "predicted_classes"]

# Samples that are predicted together. With 500, 10,000 float32 images through six layers of 100 take 61 ms of one
# thread where all at once take 101.
_TOGETHER = 500


def described(network: Any) -> str:
    """A network with the shapes of its parameters, such as TwoLayerNet(W1 784×50, b1 50, W2 50×10, b2 10)."""
    shapes = (f"{key} {by(np.shape(value))}" for key, value in network.params.items())
    return f"{type(network).__name__}({', '.join(shapes)})"


class Network:
    """A stack of layers before softmax with loss.

    Attributes
    ----------
    params : dict of str to ndarray
        W1, b1 and so on: the very arrays of the layers, so that an update in place reaches them.
    layers : mapping or sequence of layers
    last_layer : SoftmaxWithLoss
    """

    params: dict[str, Array]
    layers: Mapping[str, Any] | Sequence[Any]
    last_layer: Any

    def __init__(self, params: dict[str, Array], layers: Mapping[str, Any] | Sequence[Any]) -> None:
        self.params, self.layers = params, layers
        self.last_layer = SoftmaxWithLoss()

    __repr__ = described

    def predict(self, x: Any, train_flg: bool = False) -> Any:
        """Return the output of the last layer before softmax.

        Parameters
        ----------
        x : array_like
            A batch.
        train_flg : bool
            Whether dropout and batch normalization do what they do in training.
        """
        for layer in self.stack():
            trains = isinstance(layer, Dropout | BatchNormalization)
            x = layer.forward(x, train_flg) if trains else layer.forward(x)
        return x

    def loss(self, x: Any, t: Any) -> Any:
        """Return the loss of a batch."""
        return self.last_layer.forward(self.predict(x), t)

    def accuracy(self, x: Any, t: Any) -> Any:
        """Return the share of samples whose largest output is at the class of t; t is labels or one-hot."""
        return np.sum(predicted_classes(self.predict, x) == _labels(t)) / float(len(x))

    def gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the gradient of the loss by each parameter, by backpropagation."""
        self.training_loss(x, t)
        first, *later = self.stack()
        dout = self.last_layer.backward(1)
        for layer in reversed(later):
            dout = layer.backward(dout)
        if isinstance(first, Affine | Convolution):
            first.backward_parameters(dout)
        else:
            first.backward(dout)
        return {key: getattr(layer, f"d{name}") for key, layer, name in self.places()}

    def numerical_gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the gradient by numerical differentiation, which takes two losses for each number."""

        def loss(_: Array) -> Any:
            return self.training_loss(x, t)

        return {key: numerical_gradient(loss, self.params[key]) for key, _, _ in self.places()}

    def training_loss(self, x: Any, t: Any) -> Any:
        """The loss that `gradient` and `numerical_gradient` are of."""
        return self.loss(x, t)

    def stack(self) -> list[Any]:
        """The layers in their order."""
        return list(self.layers.values() if isinstance(self.layers, Mapping) else self.layers)

    def places(self) -> Iterator[tuple[str, Any, str]]:
        """The key of each parameter, the layer that has it, and the name of the attribute there."""
        number = 0
        for layer in self.stack():
            names = getattr(layer, "parameter_names", ())
            number += "W" in names
            yield from ((f"{name}{number}", layer, name) for name in names)


class ImageNetwork(Network):
    """A network of images: its accuracy takes some at a time, its parameters go to a file and come back."""

    def accuracy(self, x: Any, t: Any, batch_size: int = 100) -> Any:
        """Return the share of hits: those of the whole batches of `batch_size`, divided by the number of all samples.

        The samples that fill no batch count as misses.
        """
        t, hits = _labels(t), 0.0
        for start in range(0, len(x) - batch_size + 1, batch_size):
            classes = np.argmax(self.predict(x[start : start + batch_size]), axis=1)
            hits += np.sum(classes == t[start : start + batch_size])
        return hits / len(x)

    def save_params(self, file_name: FilePath = "params.pkl") -> None:
        """Save the parameters in a file that the book's `load_params` reads, too."""
        parameter_file.save(file_name, self.params)

    def load_params(self, file_name: FilePath = "params.pkl") -> None:
        """Take the parameters of a file that this class or the book's has saved. Nothing but arrays is read of it.

        Raises
        ------
        ValueError
            If the file holds something else, or lacks a parameter.
        OSError
            If it cannot be read.
        """
        loaded = parameter_file.load(file_name)
        missing = [key for key, _, _ in self.places() if key not in loaded]
        if missing:
            raise ValueError(
                f"{file_name}: expected the parameters {', '.join(key for key, _, _ in self.places())}, got "
                f"{', '.join(loaded)}; give the file of a {type(self).__name__}"
            )
        self.params.update(loaded)
        for key, layer, name in self.places():
            setattr(layer, name, self.params[key])


def predicted_classes(predict: Callable[[Any], Any], x: Any) -> Array:
    """The place of the largest output for each sample, some samples at a time: no row depends on the others."""
    starts = range(0, max(len(x), 1), _TOGETHER)
    return np.concatenate([np.argmax(predict(x[start : start + _TOGETHER]), axis=1) for start in starts])


def _labels(t: Any) -> Any:
    return t if t.ndim == 1 else np.argmax(t, axis=1)
