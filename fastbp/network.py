"""Networks: any stack of layers with a loss, and the book's two-layer network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastbp import contents
from fastbp.checks import (
    Array,
    as_array,
    given_kind,
    rate,
    whole_number,
)
from fastbp.engine.prediction import Prediction
from fastbp.engine.shapes import check_sample_shape
from fastbp.gradcheck import numerical_gradient
from fastbp.initialization import NewLayers
from fastbp.layers import Layer, LossLayer, ReLU, SoftmaxWithLoss
from fastbp.ops.contract import LAYERS, drawing, set_state, state_names, state_of
from fastbp.optimizers import Optimizer
from fastbp.portrait import svg
from fastbp.summary import described, summary
from fastbp.training.accuracy import accuracy as network_accuracy
from fastbp.training.fit import fit as train_network
from fastbp.training.given import where_given
from fastbp.training.history import History

__all__ = ["Parameters", "Sequential", "TwoLayerNet"]


class Parameters(MutableMapping[str, Array]):
    """The parameters of a network by name, W1, b1, W2, b2 and so on: the arrays of its layers.

    Reading gives the layer's own array; setting a name puts the new array into the layer. So both
    `params["W1"] -= lr * grad` and `params["W1"] = W` reach the network.

    Examples
    --------
    >>> list(network.params)
    ['W1', 'b1', 'W2', 'b2']
    >>> network.params["b2"] = np.array([0.5, -0.5])
    >>> network.layers["Affine2"].b
    array([ 0.5, -0.5])
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self._places: dict[str, tuple[Any, str]] = {}
        number = 0
        for layer in layers:
            names = getattr(layer, "parameter_names", ())
            number += self.begins_number(names)
            for name in names:
                self._places[f"{name}{number}"] = layer, name

    def __getitem__(self, key: str) -> Array:
        layer, name = self._place(key)
        value: Array = getattr(layer, name)
        return value

    def __setitem__(self, key: str, value: Array) -> None:
        layer, name = self._place(key)
        old = getattr(layer, name)
        if value is old:
            return
        if not isinstance(value, np.ndarray):
            raise TypeError(
                f"params[{key!r}]: expected a NumPy array, got {type(value).__name__}; pass np.array(value)"
            )
        if as_array(f"params[{key!r}]", value).shape != old.shape:
            raise ValueError(
                f"params[{key!r}]: expected shape {old.shape}, as the layer was made, got {value.shape}; "
                f"build a new network for another size"
            )
        setattr(layer, name, value)

    def __delitem__(self, key: str) -> None:
        raise TypeError(
            f"params[{key!r}]: expected to stay, a layer cannot lose a parameter; build a network without it"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{key}: {value.shape} {value.dtype}" for key, value in self.items())
        return f"Parameters({shapes})"

    def begins_number(self, names: Sequence[str]) -> bool:
        """Whether a layer with parameters of these names is counted; else it has the number of the one before."""
        return bool(names)

    def decays(self, key: str) -> bool:
        """Whether weight decay applies to a parameter, as the record of its layer says.

        For a layer of another class it is one whose name starts with "W".

        Examples
        --------
        >>> [key for key in network.params if network.params.decays(key)]
        ['W1', 'W2']
        """
        layer, name = self._place(key)
        record = LAYERS.get(type(layer))
        return name.startswith("W") if record is None else name in record.decayed

    def gradients(self) -> dict[str, Array]:
        """The gradients that the layers set in their last backward, dW for W and db for b, by parameter.

        Examples
        --------
        >>> grads = network.gradient(x, t)
        >>> network.params.gradients().keys() == grads.keys()
        True
        """
        return {key: getattr(layer, f"d{name}") for key, (layer, name) in self._places.items()}

    def _place(self, key: str) -> tuple[Any, str]:
        try:
            return self._places[key]
        except KeyError:
            raise KeyError(f"params: expected one of {', '.join(self._places)}, got {key}; take one of these") from None


@contents.registered
class Sequential:
    """A stack of layers, each fed the output of the one before, and a loss at its end.

    A network belongs to one Python thread at a time, as its layers keep what `backward` needs. Different networks may
    be used by different threads at once, also where they share `W` and `b` and nobody updates them.

    Parameters
    ----------
    layers : sequence or mapping of str to layer
        Layers in order. Without names they are called by class and count: Affine1, ReLU1, Affine2. Any object
        with `forward(x)` and `backward(dout)` is a layer; one that is trained lists its parameters in
        `parameter_names`, such as ("W", "b"), and sets dW and db in `backward`.
    loss : layer
        With `forward(x, t)` that returns a float and keeps it as `loss`, and `backward(dout=1)`, such as
        `SoftmaxWithLoss()`.

    Attributes
    ----------
    layers : OrderedDict of str to layer
    last_layer : layer
        The loss.
    history : History
        Of the last `fit`.
    optimizer : Optimizer or None
        The one that was saved with the network, after `fastbp.load`; for `fit(optimizer=...)`.
    weight_decay_lambda : float
        The loss has weight_decay_lambda/2 times the sum of the squares of all weights beside that of the loss layer,
        and the gradient what belongs to it. 0.0 to begin with; may be set at any time.

    Raises
    ------
    TypeError
        If an entry is not a layer.
    ValueError
        If there is no layer, or one stands twice in the stack.

    Examples
    --------
    >>> from fastbp.layers import Affine, ReLU
    >>> layers = [Affine(np.eye(4), np.zeros(4)), ReLU(), Affine(np.ones((4, 2)), np.zeros(2))]
    >>> network = Sequential(layers, SoftmaxWithLoss())
    >>> list(network.layers)
    ['Affine1', 'ReLU1', 'Affine2']
    >>> network.params
    Parameters(W1: (4, 4) float64, b1: (4,) float64, W2: (4, 2) float64, b2: (2,) float64)
    >>> network.fit(np.eye(4), [0, 1, 0, 1], epochs=2, seed=0)
    History(2 epochs, columns ['epoch', 'loss', 'accuracy', 'seconds'], 0 steps)
    """

    parameters_class: ClassVar[type[Parameters]] = Parameters
    # Of the class, as networks that an earlier version pickled have none.
    weight_decay_lambda: float = 0.0
    _prediction: Prediction | None = None

    def __init__(self, layers: Sequence[Layer] | Mapping[str, Layer], loss: LossLayer) -> None:
        if not isinstance(layers, Mapping | Sequence):
            raise TypeError(f"layers: expected a list or dict of layers, got {type(layers).__name__}; pass [ReLU()]")
        places = layers.items() if isinstance(layers, Mapping) else enumerate(layers)
        for name, layer in [*((f"layers[{place!r}]", layer) for place, layer in places), ("loss", loss)]:
            _check_layer(name, layer)
        named = OrderedDict(layers) if isinstance(layers, Mapping) else _named(layers)
        if not named:
            raise ValueError("layers: expected at least one layer, got none; start with an Affine")
        if len({id(layer) for layer in named.values()}) < len(named):
            raise ValueError("layers: expected different objects, got one twice, which would lose its input; make two")
        self.layers: OrderedDict[str, Layer] = named
        self.last_layer = loss
        self.history = History()
        self.optimizer: Optimizer | None = None
        self._params = self.parameters_class(list(named.values()))

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; the weight decay is checked whenever it is set."""
        super().__setattr__(name, rate(name, value) if name == "weight_decay_lambda" else value)

    @property
    def params(self) -> Parameters:
        """W1, b1, W2, b2 and so on: the layers' own arrays at this moment."""
        layers = list(self.layers.values())
        if layers != self._params.layers:
            self._params = self.parameters_class(layers)
        return self._params

    def own_methods(self) -> list[str]:
        """Names of the methods that a subclass or this object has replaced, so that `fit` must call them."""
        methods = "predict", "loss", "gradient"
        own = vars(self)
        return [name for name in methods if name in own or getattr(type(self), name) is not getattr(Sequential, name)]

    def predict(self, x: ArrayLike, train_flg: bool = False) -> Array:
        """Return the output of the last layer before the loss: logits (N, C) where that is softmax.

        Layers that predict in compiled code keep nothing of it for their `backward`: `loss` and `gradient` do that.
        Some samples at a time go through all layers, so that memory does not grow with their number. For an x of
        another dtype than the parameters, or in another order than C, and for layers of your own, each layer takes all
        samples and keeps what its `backward` needs. Indices for `Embedding` may be any integers in any order.

        Parameters
        ----------
        x : array_like
            What the first layer takes: (N, D), (N, C, H, W), or one sample (D,); indices (N, ...) for `Embedding`.
        train_flg : bool
            Whether `Dropout` drops, and `BatchNormalization` takes the statistics of the batch.

        Examples
        --------
        >>> network.predict(x).shape
        (5, 2)
        """
        if not train_flg:
            if self._prediction is None:
                self._prediction = Prediction()
            out = self._prediction.outputs(self.layers.values(), x)
            if out is not None:
                return out
        return self._forward(x, train_flg)

    def _forward(self, x: ArrayLike, train_flg: bool) -> Array:
        """The same layer by layer: each keeps what its `backward` needs."""
        out: Any = x
        try:
            for layer in self.layers.values():
                forward: Callable[..., Any] = layer.forward
                out = forward(out, train_flg) if state_names(type(layer)) else forward(out)
        except ValueError:
            check_sample_shape([*self.layers.values()], getattr(x, "shape", ())[1:])
            raise
        return out  # type: ignore[no-any-return]

    def loss(
        self, x: ArrayLike, t: ArrayLike, train_flg: bool = False, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the loss of a batch, as the loss layer defines it, with that of the weight decay.

        Parameters
        ----------
        x, t : array_like
            A batch, and targets as the loss layer takes them.
        train_flg : bool
            Whether `Dropout` drops.
        sample_weight : array_like (N,), optional
            A weight for each sample: the loss is sum(w·loss)/sum(w).

        Examples
        --------
        >>> round(network.loss(x, t), 3)
        0.693
        """
        forward: Callable[..., float] = self.last_layer.forward  # a user's own loss may take no weights
        out = self.predict(x, train_flg) if "predict" in self.own_methods() else self._forward(x, train_flg)
        return forward(out, t, **where_given(sample_weight)) + self.penalty()

    def penalty(self) -> float:
        """Return the loss of the weight decay, weight_decay_lambda/2 times the sum of the squares of all weights.

        Examples
        --------
        >>> network.weight_decay_lambda = 0.1
        >>> round(network.penalty(), 6)
        6.9e-05
        """
        if not self.weight_decay_lambda:
            return 0.0
        weights = [value for key, value in self.params.items() if self.params.decays(key)]
        return self.weight_decay_lambda / 2 * sum(float(np.sum(W * W)) for W in weights)

    accuracy = network_accuracy
    fit = train_network
    save = contents.save
    summary = summary
    __repr__ = described
    _repr_svg_ = svg

    def gradient(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, Array]:
        """Return the gradient of the loss by every parameter, by backpropagation.

        The gradient by x itself is not formed where the first layer has a `backward_parameters`.

        Parameters
        ----------
        x, t : array_like
            A batch and its targets.
        sample_weight : array_like (N,), optional
            A weight for each sample, as in `loss`.

        Returns
        -------
        dict of str to ndarray
            New arrays, by the names of `params`.

        Examples
        --------
        >>> grads = network.gradient(x, t)
        >>> grads["W1"].shape, grads["b2"].shape
        ((4, 3), (2,))
        """
        self.loss(x, t, train_flg=True, **where_given(sample_weight))
        first, *later = self.layers.values()
        dout = self.last_layer.backward()
        for layer in reversed(later):
            dout = layer.backward(dout)
        if type(first) in LAYERS and hasattr(first, "backward_parameters") and "backward" not in vars(first):
            first.backward_parameters(dout)
        else:
            first.backward(dout)
        gradients = self.params.gradients()
        if self.weight_decay_lambda:
            for key, W in self.params.items():
                if self.params.decays(key):
                    gradients[key] = gradients[key] + self.weight_decay_lambda * W
        return gradients

    def numerical_gradient(self, x: ArrayLike, t: ArrayLike) -> dict[str, Array]:
        """Return the gradient by numerical differentiation, which is slow: it takes two losses for each element.

        `Dropout` drops what it dropped last.

        Parameters
        ----------
        x, t : array_like
            A few samples and their targets.

        Returns
        -------
        dict of str to ndarray
            New arrays, by the names of `params`.

        Examples
        --------
        >>> numerical = network.numerical_gradient(x, t)
        >>> np.allclose(numerical["W1"], network.gradient(x, t)["W1"])
        True
        """
        before = state_of(self.layers.values())
        drawn = [(layer, name) for layer, record in drawing(self.layers.values()) for name in record.counters]
        counts = [max(getattr(layer, name), 1) - 1 for layer, name in drawn]

        def loss(_: Array) -> float:
            for (layer, name), count in zip(drawn, counts, strict=True):
                setattr(layer, name, count)
            return self.loss(x, t, train_flg=True)

        try:
            return {key: numerical_gradient(loss, value) for key, value in self.params.items()}
        finally:
            set_state(self.layers.values(), before)


@contents.registered
class TwoLayerNet(Sequential):
    """Affine, ReLU, Affine, softmax with loss: the network of chapters 4 and 5.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        At least 1.
    weight_init_std : float
        Weights start as normal numbers of this standard deviation, biases as zeros.
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
        For the weights, at least 0. Without it the weights come from NumPy's global generator, as in the book, so that
        `np.random.seed` sets them.

    Raises
    ------
    TypeError, ValueError
        For sizes that are not positive integers, another dtype or seed, or a negative standard deviation.

    Examples
    --------
    >>> network = TwoLayerNet(784, 50, 10, seed=0)
    >>> list(network.layers)
    ['Affine1', 'Relu1', 'Affine2']
    >>> network.params["W1"].shape
    (784, 50)
    >>> network.predict(np.zeros((100, 784))).shape
    (100, 10)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        dtype: DTypeLike = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        for name, size in sizes.items():
            whole_number(name, size, 1, "give the number of neurons")
        new, deviation = NewLayers(dtype, seed), rate("weight_init_std", weight_init_std)
        layers: OrderedDict[str, Layer] = OrderedDict()
        layers["Affine1"] = new.affine(input_size, hidden_size, deviation)
        layers["Relu1"] = ReLU()
        layers["Affine2"] = new.affine(hidden_size, output_size, deviation)
        super().__init__(layers, SoftmaxWithLoss())

    @property
    def lastLayer(self) -> LossLayer:
        """`last_layer`, by the book's name.

        Examples
        --------
        >>> network.lastLayer is network.last_layer
        True
        """
        return self.last_layer


def _check_layer(name: str, layer: object) -> None:
    if isinstance(layer, type) or not (hasattr(layer, "forward") and hasattr(layer, "backward")):
        example = "SoftmaxWithLoss" if name == "loss" else "ReLU"
        remedy = (
            f"pass an object, {layer.__name__}(...)" if isinstance(layer, type) else f"pass one such as {example}()"
        )
        raise TypeError(f"{name}: expected a layer with forward and backward, got {given_kind(layer)}; {remedy}")


def _named(layers: Sequence[Layer]) -> OrderedDict[str, Layer]:
    named: OrderedDict[str, Layer] = OrderedDict()
    counts: dict[str, int] = {}
    for layer in layers:
        kind = type(layer).__name__
        counts[kind] = counts.get(kind, 0) + 1
        named[f"{kind}{counts[kind]}"] = layer
    return named
