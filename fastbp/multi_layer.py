"""Networks of any number of affine layers with an activation between them (chapter 6), in the exact forms.

`fastbp.book` has them with the numbers of the book's code.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from fastbp import contents
from fastbp.checks import closest, given_kind, rate, whole_number
from fastbp.initialization import NewLayers
from fastbp.layers import BatchNormalization, Layer, SoftmaxWithLoss
from fastbp.network import Parameters, Sequential
from fastbp.ops.contract import ACTIVATIONS

__all__ = ["MultiLayerNet", "MultiLayerNetExtend"]

# What the variance of a weight is multiplied by the number of its inputs, by the names of a beginning.
_VARIANCES = {"relu": 2, "he": 2, "sigmoid": 1, "xavier": 1}


class _BlockParameters(Parameters):
    """W1, b1, gamma1, beta1, W2 and so on: an affine layer and its batch normalization have one number."""

    def begins_number(self, names: Sequence[str]) -> bool:
        return "W" in names


def _hidden(sizes: Sequence[int]) -> Sequence[int]:
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(
            f"hidden_size_list: expected the sizes of the hidden layers, got {given_kind(sizes)}; give a list such as "
            f"[{sizes if isinstance(sizes, int) else 100}]"
        )
    return sizes


class _Stack(Sequential):
    """Affine layers with what stands between them."""

    parameters_class = _BlockParameters

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        weight_init_std: float | str,
        weight_decay_lambda: float,
        dtype: DTypeLike,
        seed: int | np.random.Generator | None,
        *,
        dropout_ratio: float | None = None,
        is_normalized: bool = False,
    ) -> None:
        *names, last = ["input_size", *(f"hidden_size_list[{k}]" for k in range(len(sizes) - 2)), "output_size"]
        for name, size in zip([*names, last], sizes, strict=True):
            whole_number(name, size, 1, "give the number of neurons")
        if not isinstance(activation, str):
            raise TypeError(
                f"activation: expected the name of one, got {given_kind(activation)}; give a name such as 'relu'"
            )
        activations = {record.activation.name: record.layer for record in ACTIVATIONS.values() if record.activation}
        if activation not in activations:
            raise ValueError(
                f"activation: expected one of {', '.join(activations)}, got {activation!r}; "
                f"{closest(activation, activations)}"
            )
        new = NewLayers(dtype, seed)
        layers: OrderedDict[str, Layer] = OrderedDict()
        for number, (D, M) in enumerate(pairwise(sizes), 1):
            layers[f"Affine{number}"] = new.affine(D, M, _deviation(weight_init_std, D))
            if number == len(sizes) - 1:
                break
            if is_normalized:
                layers[f"BatchNorm{number}"] = BatchNormalization(np.ones(M, new.dtype), np.zeros(M, new.dtype))
            layers[f"Activation_function{number}"] = activations[activation]()
            if dropout_ratio is not None:
                layers[f"Dropout{number}"] = new.dropout(dropout_ratio)
        super().__init__(layers, SoftmaxWithLoss())
        self.weight_decay_lambda = weight_decay_lambda


@contents.registered
class MultiLayerNet(_Stack):
    """Affine layers with an activation between them, then softmax with loss (section 6.1.8).

    Parameters
    ----------
    input_size : int
    hidden_size_list : sequence of int
        At least 1 each.
    output_size : int
    activation : str
        The name of an activation, such as "relu", "sigmoid", "tanh" or "softplus".
    weight_init_std : float or str
        The standard deviation of the normal numbers with which weights start; "relu" or "he" for sqrt(2/D) with D
        inputs, "sigmoid" or "xavier" for sqrt(1/D).
    weight_decay_lambda : float
        As `Sequential` has it.
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
        For the weights. Without it they come from NumPy's global generator, as in the book.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these.

    Examples
    --------
    >>> MultiLayerNet(784, [100, 50], 10, seed=0).params
    Parameters(W1: (784, 100) float64, b1: (100,) float64, W2: (100, 50) float64, b2: (50,) float64, W3: (50, 10) \
float64, b3: (10,) float64)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        *,
        dtype: DTypeLike = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        sizes = [input_size, *_hidden(hidden_size_list), output_size]
        super().__init__(sizes, activation, weight_init_std, weight_decay_lambda, dtype, seed)


@contents.registered
class MultiLayerNetExtend(_Stack):
    """The same with batch normalization before each activation and dropout after it (sections 6.3 and 6.4).

    Parameters
    ----------
    input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda
        As `MultiLayerNet` takes them.
    use_dropout : bool
    dropout_ration : float
        The share that is dropped, at least 0 and less than 1; the name is the book's.
    use_batchnorm : bool
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
        For the weights and the masks of dropout.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these.

    Examples
    --------
    >>> list(MultiLayerNetExtend(4, [3], 2, use_dropout=True, use_batchnorm=True).layers)
    ['Affine1', 'BatchNorm1', 'Activation_function1', 'Dropout1', 'Affine2']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
        *,
        dtype: DTypeLike = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(
            [input_size, *_hidden(hidden_size_list), output_size],
            activation,
            weight_init_std,
            weight_decay_lambda,
            dtype,
            seed,
            dropout_ratio=dropout_ration if use_dropout else None,
            is_normalized=use_batchnorm,
        )


def _deviation(std: float | str, D: int) -> float:
    """The standard deviation of weights with D inputs."""
    if not isinstance(std, str):
        return rate("weight_init_std", std)
    if std.lower() not in _VARIANCES:
        raise ValueError(
            f"weight_init_std: expected a number or one of {', '.join(_VARIANCES)}, got {std!r}; give one of these"
        )
    return math.sqrt(_VARIANCES[std.lower()] / D)
