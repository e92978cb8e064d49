"""Networks for images: the book's convolutional networks (chapters 7 and 8) in the exact forms, and LeNet-5.

`fastbp.book` has the book's two with the numbers of its code.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from fastbp import contents
from fastbp.checks import rate, whole_number
from fastbp.initialization import NewLayers
from fastbp.layers import Layer, Pooling, ReLU, SoftmaxWithLoss
from fastbp.network import Sequential
from fastbp.ops.images import output_size

__all__ = ["DEEP_FILTERS", "SIMPLE_FILTERS", "DeepConvNet", "LeNet", "SimpleConvNet"]

Filters = Mapping[str, int]


def _filters(filter_num: int, filter_size: int, pad: int = 0) -> dict[str, int]:
    return {"filter_num": filter_num, "filter_size": filter_size, "pad": pad, "stride": 1}


SIMPLE_FILTERS = _filters(30, 5)
DEEP_FILTERS = (
    _filters(16, 3, pad=1),
    _filters(16, 3, pad=1),
    _filters(32, 3, pad=1),
    _filters(32, 3, pad=2),
    _filters(64, 3, pad=1),
    _filters(64, 3, pad=1),
)


class _Stack:
    """Layers one after another, for images of a size.

    Parameters
    ----------
    input_dim : tuple of int
        C, H, W of an image.
    new : NewLayers
    deviation : float, optional
        The standard deviation of all weights; without one it is He's, sqrt(2/n) for n inputs of an output.
    """

    def __init__(self, input_dim: tuple[int, int, int], new: NewLayers, deviation: float | None = None) -> None:
        self.layers: OrderedDict[str, Layer] = OrderedDict()
        self._input_dim, self._shape = input_dim, _image(input_dim)
        self._new, self._deviation = new, deviation
        self._counts: dict[str, int] = {}

    def convolution(self, name: str, conv_param: Filters) -> None:
        """Filters of the argument `name`, and ReLU."""
        filters, size, pad, stride = _checked(name, conv_param)
        channels = self._shape[0]
        after = self._places(f"filters of {size} pixels with pad {pad}", size, stride, pad)
        deviation = self._deviation_for(channels * size * size)
        self._append("Conv", self._new.convolution((filters, channels, size, size), stride, pad, deviation))
        self._append("Relu", ReLU())
        self._shape = filters, *after

    def pooling(self) -> None:
        """The largest pixels of 2×2."""
        self._shape = self._shape[0], *self._places("a pooling of 2 pixels", 2, 2, 0)
        self._append("Pool", Pooling(2, 2, 2))

    def affine(self, outputs: int) -> None:
        """So many outputs."""
        inputs = math.prod(self._shape)
        self._append("Affine", self._new.affine(inputs, outputs, self._deviation_for(inputs)))
        self._shape = outputs, 1, 1

    def relu(self) -> None:
        """ReLU."""
        self._append("Relu", ReLU())

    def _append(self, kind: str, layer: Layer) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self.layers[f"{kind}{self._counts[kind]}"] = layer

    def _deviation_for(self, inputs: int) -> float:
        return math.sqrt(2 / inputs) if self._deviation is None else self._deviation

    def _places(self, what: str, window: int, stride: int, pad: int) -> tuple[int, int]:
        """How many places a window has down and across what the last layer gives."""
        _, H, W = self._shape
        try:
            return output_size(H, window, stride, pad, what), output_size(W, window, stride, pad, what)
        except ValueError:
            raise ValueError(
                f"input_dim: expected images large enough for {what}, got {tuple(self._input_dim)}, of which {H}×{W} "
                f"pixels come there; give larger images, more pad, or take a network of fewer layers"
            ) from None


@contents.registered
class SimpleConvNet(Sequential):
    """Convolution, ReLU, pooling of 2×2, affine, ReLU, affine, softmax with loss (section 7.5).

    Parameters
    ----------
    input_dim : tuple of int
        C, H, W of an image.
    conv_param : mapping
        The integers filter_num, filter_size, pad and stride of the convolution.
    hidden_size, output_size : int
        At least 1.
    weight_init_std : float
        Weights start as normal numbers of this standard deviation, biases as zeros.
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
        For the weights. Without it they come from NumPy's global generator, as in the book.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these, and for images too small for the filters and the pooling.

    Notes
    -----
    It takes images (N, C, H, W), of any count, in `predict`, `loss`, `gradient` and `fit`.

    Examples
    --------
    >>> network = SimpleConvNet(dtype=np.float32, seed=0)
    >>> network.predict(np.zeros((3, 1, 28, 28), np.float32)).shape
    (3, 10)
    >>> list(network.layers)
    ['Conv1', 'Relu1', 'Pool1', 'Affine1', 'Relu2', 'Affine2']
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: Filters = SIMPLE_FILTERS,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float = 0.01,
        *,
        dtype: DTypeLike = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        _check_sizes(hidden_size=hidden_size, output_size=output_size)
        stack = _Stack(input_dim, NewLayers(dtype, seed), rate("weight_init_std", weight_init_std))
        stack.convolution("conv_param", conv_param)
        stack.pooling()
        stack.affine(hidden_size)
        stack.relu()
        stack.affine(output_size)
        super().__init__(stack.layers, SoftmaxWithLoss())


@contents.registered
class DeepConvNet(Sequential):
    """Three blocks of two convolutions and a pooling, two affine layers with dropout, softmax with loss (section 8.1).

    A block is convolution, ReLU, convolution, ReLU, pooling of 2×2. After the blocks come affine, ReLU, dropout,
    affine, dropout.

    Parameters
    ----------
    input_dim : tuple of int
        C, H, W of an image.
    conv_param_1, ..., conv_param_6 : mapping
        The integers filter_num, filter_size, pad and stride of each convolution.
    hidden_size, output_size : int
        At least 1.
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
        For the weights and the masks of dropout. Without it the weights come from NumPy's global generator, as in the
        book.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these, and for images too small for the filters and the poolings.

    Notes
    -----
    It takes images (N, C, H, W), of any count, in `predict`, `loss`, `gradient` and `fit`. Weights start as normal
    numbers of variance 2/n for n inputs of an output (He et al., "Delving deep into rectifiers", arXiv:1502.01852),
    also with other filters than the default, where the book's n does not change. `Dropout` scales what it keeps in
    training; `loss` drops with `train_flg=True` alone.

    Examples
    --------
    >>> network = DeepConvNet((1, 8, 8), dtype=np.float32, seed=0)
    >>> network.predict(np.zeros((3, 1, 8, 8), np.float32)).shape
    (3, 10)
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param_1: Filters = DEEP_FILTERS[0],
        conv_param_2: Filters = DEEP_FILTERS[1],
        conv_param_3: Filters = DEEP_FILTERS[2],
        conv_param_4: Filters = DEEP_FILTERS[3],
        conv_param_5: Filters = DEEP_FILTERS[4],
        conv_param_6: Filters = DEEP_FILTERS[5],
        hidden_size: int = 50,
        output_size: int = 10,
        *,
        dtype: DTypeLike = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        _check_sizes(hidden_size=hidden_size, output_size=output_size)
        new = NewLayers(dtype, seed)
        stack = _Stack(input_dim, new)
        given = conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6
        for number, conv_param in enumerate(given, 1):
            stack.convolution(f"conv_param_{number}", conv_param)
            if number % 2 == 0:
                stack.pooling()
        stack.affine(hidden_size)
        stack.relu()
        stack.affine(output_size)
        # After all weights, as the seed of a dropout may come from the generator, too: the weights are the book's.
        last = stack.layers.pop("Affine2")
        stack.layers.update(Dropout1=new.dropout(0.5), Affine2=last, Dropout2=new.dropout(0.5))
        super().__init__(stack.layers, SoftmaxWithLoss())


@contents.registered
class LeNet(Sequential):
    """LeNet-5 with ReLU and max pooling: two convolutions of 5×5 with poolings, three affine layers, softmax with loss.

    6 filters with pad 2, ReLU, pooling of 2×2, 16 filters, ReLU, pooling, then 120, 84 and `output_size` outputs with
    ReLU between them. LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition"
    (1998), have sigmoids, pooling by a trained mean and Gaussian outputs. This is the form of today's tutorials, such
    as that of SimpleChains.jl.

    Parameters
    ----------
    input_dim : tuple of int
        C, H, W of an image, at least 12×12.
    output_size : int
        At least 1.
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
        For the weights. Without it they come from NumPy's global generator.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these, and for images that are too small.

    Notes
    -----
    It takes images (N, C, H, W), of any count, in `predict`, `loss`, `gradient` and `fit`. Weights start as normal
    numbers of variance 2/n for n inputs of an output (He et al., arXiv:1502.01852), biases as zeros.

    Examples
    --------
    >>> network = LeNet(dtype=np.float32, seed=0)
    >>> [W.shape for key, W in network.params.items() if key.startswith("W")]
    [(6, 1, 5, 5), (16, 6, 5, 5), (400, 120), (120, 84), (84, 10)]
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        output_size: int = 10,
        *,
        dtype: DTypeLike = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        _check_sizes(output_size=output_size)
        stack = _Stack(input_dim, NewLayers(dtype, seed))
        for conv_param in (_filters(6, 5, pad=2), _filters(16, 5)):
            stack.convolution("conv_param", conv_param)
            stack.pooling()
        for hidden in (120, 84):
            stack.affine(hidden)
            stack.relu()
        stack.affine(output_size)
        super().__init__(stack.layers, SoftmaxWithLoss())


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        whole_number(name, size, 1, "give the number of neurons")


def _image(input_dim: tuple[int, int, int]) -> tuple[int, int, int]:
    """C, H and W, checked."""
    if not isinstance(input_dim, tuple | list) or len(input_dim) != 3:
        raise TypeError(f"input_dim: expected (C, H, W) of an image, got {input_dim!r}; give one such as (1, 28, 28)")
    remedy = "give (C, H, W) of an image"
    C, H, W = (whole_number(f"input_dim[{k}]", size, 1, remedy) for k, size in enumerate(input_dim))
    return C, H, W


def _checked(name: str, conv_param: Filters) -> tuple[int, int, int, int]:
    """filter_num, filter_size, pad and stride of an argument."""
    least = {"filter_num": 1, "filter_size": 1, "pad": 0, "stride": 1}
    if not isinstance(conv_param, Mapping):
        raise TypeError(f"{name}: expected a dict, got {type(conv_param).__name__}; give one such as {_filters(30, 5)}")
    if conv_param.keys() != least.keys():
        raise ValueError(
            f"{name}: expected the keys {', '.join(least)}, got {', '.join(map(str, conv_param)) or 'none'}; "
            f"give one such as {_filters(30, 5)}"
        )
    filters, size, pad, stride = (
        whole_number(f"{name}[{key!r}]", conv_param[key], value, "give a whole number") for key, value in least.items()
    )
    return filters, size, pad, stride
