"""What an operation declares, and where everything else finds it.

An operation registers its records when its file is imported; `fastbp.layers` imports all of them. Two records must not
share a name, and whoever asks for one that does not exist gets an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

import numpy as np

from fastbp.checks import Array, DType

Record = TypeVar("Record")

_uses_reference: ContextVar[bool] = ContextVar("fastbp_uses_reference", default=False)


@contextmanager
def use_reference() -> Iterator[None]:
    """Run layers, functions, losses and optimizers on plain NumPy in the body of a `with` statement.

    The numbers are the same up to rounding. It holds for the current thread (or task) only.

    Examples
    --------
    >>> with fastbp.use_reference():
    ...     loss = network.loss(x, t)
    """
    token = _uses_reference.set(True)
    try:
        yield
    finally:
        _uses_reference.reset(token)


def is_reference() -> bool:
    """Whether `use_reference` is in force."""
    return _uses_reference.get()


class Twins:
    """A kernel and its twin in NumPy, which take the same arguments.

    They write results to their last arguments, which share no memory with the others.
    """

    def __init__(self, kernel: Any, twin: Callable[..., Any]) -> None:
        self.kernel, self.twin = kernel, twin
        self.__name__, self.__doc__ = twin.__name__, twin.__doc__ or kernel.__doc__

    def of(self, dtype: DType) -> Callable[..., Any]:
        """The one that is in force and computes results of a dtype.

        Kernels are for floating point. Integers and booleans that stay so are left to NumPy, which is exact on them. A
        `__call__` that chose by its arguments would cost each call 0.3 µs more.
        """
        return self.twin if _uses_reference.get() or dtype.kind != "f" else self.kernel


TWINS: dict[str, Twins] = {}
"""By name. `fastbp.kernels` hands out the kernels, `fastbp.reference` the twins."""


def twin_of(kernel: Any) -> Callable[[Callable[..., Any]], Twins]:
    """Decorate the NumPy twin of a kernel: its name becomes that of both."""

    def register(twin: Callable[..., Any]) -> Twins:
        return registered(TWINS, twin.__name__, Twins(kernel, twin))

    return register


@dataclass(frozen=True)
class Activation:
    """An elementwise function whose slope reads its output or its input.

    Attributes
    ----------
    name : str
        In lower case: of its twins and of the function of graphs.
    estimator : str
        The name for the estimators' `activation`, where that is another.
    settings : tuple of str
        Attributes of the layer that the functions take after their arrays.
    reads_input : bool
        Whether the slope reads the input; else the output.
    forward, backward : Twins or None
        forward(x, out, *settings) and backward(dout, kept, dx, *settings), over flat arrays; `kept` is what the slope
        reads.
    value, slope : kernel
        Of numbers: value(x, *settings), and slope(dout, kept, *settings), which is dout times the slope.
    value_twin, slope_twin : function or None
        The same for numbers and arrays, in NumPy.
    in_place, epilogue, slope_epilogue : callable
        The words for `fastbp.runtime.gemm.epilogue`, by dtype. `epilogue` leaves the input where the slope reads it,
        and puts the output beside it.
    symbol : str
        In drawings.
    leaves_mask : bool
        Whether it is forward(x, out, mask) and backward(dout, mask, dx): a mask in the place of what the slope reads.
    """

    name: str
    forward: Any
    backward: Any
    value: Any
    slope: Any
    value_twin: Any
    slope_twin: Any
    in_place: Callable[[DType], int]
    epilogue: Callable[[DType], int]
    slope_epilogue: Callable[[DType], int]
    reads_input: bool = False
    settings: tuple[str, ...] = ()
    estimator: str = ""
    symbol: str = ""
    leaves_mask: bool = False


# In the place of a map's kernel for predictions: its output is its input.
HANDS_ON = "hands on"

Shape = tuple[int, ...]
"""Of one sample: (D,) or (C, H, W)."""


def batch_of(shape: Shape) -> str:
    """A batch of samples of a shape, in a message: (N, 1, 28, 28)."""
    return f"(N, {', '.join(map(str, shape))})" if shape else "(N,)"


@dataclass(frozen=True)
class Map:
    """What a layer does to a batch in training, as kernels that the engine calls by their addresses.

    Attributes
    ----------
    forward, backward : kernel or None
        With the arguments of `fastbp.ops.state.samples`, as all but `gradient`; None for a layer that moves nothing.
    gradient : kernel or None
        With the arguments of `fastbp.ops.state.gradient`, for a layer with parameters.
    predict : kernel, HANDS_ON or None
        With the arguments of `fastbp.ops.prediction.predict_rows`; HANDS_ON where the output of a prediction is the
        input; None where only the layer's own `forward` predicts. Its bits are those of `forward`, however the samples
        are divided.
    sums : kernel or None
        In the backward pass, before `backward`: sums over a slice of the batch.
    statistics : kernel or None
        The same in the forward pass, for a layer that needs sums over the whole batch before `forward`, and its `sums`
        over the whole batch before `backward`.
    shape : callable
        shape(layer, shape, whose) is the shape of a sample of the output for that of the input. Errors begin with
        `whose`.
    layout : callable
        layout(shape) is `fastbp.ops.state.ROWS` or `LANES` for the input of a shape; None: either.
    words : callable
        words(layer) are up to `fastbp.ops.state.WORDS` machine words of the layer's own.
    scale : callable
        scale(layer) is a number of the layer's own.
    memory : callable
        memory(layer, shape, out_shape) is how many numbers of each sample the layer keeps for `backward`.
    sums_size : callable
        sums_size(layer, shape) is how many numbers the sums of a slice are.
    counter : str
        An attribute that counts the steps of training; none: "".
    gathers : bool
        Whether `forward` of the first layer takes the samples of a batch from x by `fastbp.ops.state.chosen_rows`.
    check_indices : callable or None
        For a layer whose input is indices: check_indices(layer, x) is x as flat `INTP`, a copy where it is another
        dtype, and raises where x is not such indices. `fit` does not turn them into floats, and the layer, which must
        be the first, reads them where they are (`state.indices_of`; in a prediction they are what `predict` takes).
    running : tuple of str
        Attributes that are running statistics, as many numbers as the sample has channels.
    stage : kernel or None
        With the arguments of `fastbp.ops.state.stage`: `forward` of the first layer, its inputs divided among threads.
    gradient_and_next : kernel or None
        With the arguments of `fastbp.ops.state.gradient_and_next`: `gradient` of the first layer after a step on one
        sample, then `forward` of the next sample, in one pass over W.
    pools : bool
        Whether `forward` and `backward` can be one with the pooling that follows, see `fastbp.ops.state.POOL`.
    pool : callable
        pool(layer) is what the column POOL then says; 0 where the layer is no such pooling.
    in_lanes : Map or None
        The same for samples in lanes, for a layer that takes rows elsewhere. The plan takes it in a small network.
    """

    forward: Any = None
    backward: Any = None
    gradient: Any = None
    predict: Any = None
    sums: Any = None
    statistics: Any = None
    shape: Callable[[Any, Shape, str], Shape] = lambda _, shape, whose: shape  # noqa: ARG005
    layout: Callable[[Shape], int | None] = lambda _: None
    words: Callable[[Any], tuple[int, ...]] = lambda _: ()
    scale: Callable[[Any], float] = lambda _: 1.0
    memory: Callable[[Any, Shape, Shape], int] = lambda layer, shape, out: 0  # noqa: ARG005
    sums_size: Callable[[Any, Shape], int] = lambda layer, shape: 0  # noqa: ARG005
    counter: str = ""
    gathers: bool = False
    check_indices: Callable[[Any, Array], Array] | None = None
    running: tuple[str, ...] = ()
    stage: Any = None
    gradient_and_next: Any = None
    pools: bool = False
    pool: Callable[[Any], int] = lambda _: 0
    in_lanes: Map | None = None


@dataclass(frozen=True)
class Loss:
    """A loss at the end of a network.

    Attributes
    ----------
    kernels : callable
        kernels(layer, eps) are two with the arguments of `fastbp.ops.state.loss`, for losses and deltas of rows: with
        targets (N, C), and with labels (N,) or None. Where eps is not 0, probabilities count in the loss as at least
        eps and at most 1 - eps.
    targets : callable
        targets(t, shape, dtype) checks the targets of outputs of a shape (N, C), and gives labels (N,) of integers or
        targets (N, C) of the dtype.
    settings : callable
        settings(layer, eps) are numbers that the kernels take.
    classifies : bool
        Whether the largest output is the class.
    output : str
        The estimators' name for what a prediction makes of the outputs.
    predict : kernel or None
        The kernel that does so, with the arguments of `fastbp.ops.state.predict`; None if predictions are the outputs.
    takes_lanes : bool
        Whether the kernels take outputs in lanes where `fastbp.ops.state.Network.ends_in_lanes`.
    """

    kernels: Callable[[Any, float], tuple[Any, Any]]
    targets: Callable[[Any, tuple[int, int], DType], Array]
    output: str
    settings: Callable[[Any, float], tuple[float, ...]] = lambda layer, eps: ()  # noqa: ARG005
    classifies: bool = False
    predict: Any = None
    takes_lanes: bool = False


@dataclass(frozen=True)
class LayerRecord:
    """A layer class: what it is made of, and what it is for the engine.

    Attributes
    ----------
    arrays, settings : tuple of str
        Arguments of the constructor that are attributes of the same name.
    counters : tuple of str
        Attributes that are saved with it and count.
    state : tuple of str
        Attributes that `forward` changes in training. A layer with any has an argument `train_flg`.
    decayed : tuple of str
        The parameters that weight decay applies to.
    """

    layer: type
    arrays: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    decayed: tuple[str, ...] = ()
    activation: Activation | None = None
    map: Map | None = None
    loss: Loss | None = None


@dataclass(frozen=True)
class Update:
    """What an optimizer does to a parameter.

    Attributes
    ----------
    update : Twins or None
        update(param, grad, *state, rate, *settings), over flat arrays.
    step : kernel
        The same with the arguments of `fastbp.ops.state.update`.
    state : tuple of str
        Attributes that hold dicts of arrays by parameter.
    decouples : bool
        Whether the last of the settings is the weight decay; else weight_decay·W is added to the gradient.
    subtracts : bool
        Whether the update is param -= rate·grad.
    """

    update: Any  # Twins or None
    step: Any
    state: tuple[str, ...] = ()
    decouples: bool = False
    subtracts: bool = False


LAYERS: dict[type, LayerRecord] = {}
"""By exact class: a subclass may do something else."""

ACTIVATIONS: dict[str, LayerRecord] = {}
"""By the estimators' name."""

LOSSES: dict[str, LayerRecord] = {}
"""By the name of the output."""

OPTIMIZERS: dict[type, Update] = {}
"""By exact class."""


def registered(registry: dict[Any, Record], key: Any, record: Record) -> Record:
    """Put a record into a registry, and return it.

    Raises
    ------
    ValueError
        If there is one under that key.
    """
    if key in registry:
        raise ValueError(f"{key}: expected a name that no other record has, got one that is taken; choose another")
    registry[key] = record
    return record


def layer(record: LayerRecord) -> LayerRecord:
    """Register a layer class, by its class and by what it is, and give it the text that `repr` returns."""
    registered(LAYERS, record.layer, record)
    if record.activation is not None:
        registered(ACTIVATIONS, record.activation.estimator or record.activation.name, record)
    if record.loss is not None:
        registered(LOSSES, record.loss.output, record)
    cast(Any, record.layer).__repr__ = shown
    return record


def shown(layer: Any) -> str:
    """A layer as it is made: the shapes of its arrays, and the settings that are not the defaults."""
    record = record_of(type(layer)) or LayerRecord(type(layer), arrays=getattr(layer, "parameter_names", ()))
    arrays = [f"{name} {by(np.shape(getattr(layer, name)))}" for name in record.arrays]
    return f"{type(layer).__name__}({', '.join([*arrays, *changed(layer, record.layer, record.settings)])})"


def changed(made: object, kind: type, names: Iterable[str]) -> list[str]:
    """The settings of an object that are not the defaults of a class, such as ["eps=0.001"]."""
    defaults = signature(kind).parameters
    settings = {name: getattr(made, name) for name in names}
    none = Parameter("none", Parameter.KEYWORD_ONLY)
    return [f"{name}={value!r}" for name, value in settings.items() if defaults.get(name, none).default != value]


def by(shape: Iterable[int]) -> str:
    """A shape for a person, such as 784×50."""
    return "×".join(map(str, shape))


def record_of(kind: Any) -> LayerRecord | None:
    """The record of a class, or of the one that it is derived from; None for one of somebody else's."""
    if kind in LAYERS:
        return LAYERS[kind]
    return next((LAYERS[base] for base in kind.__mro__ if base in LAYERS), None)


def state_names(kind: Any) -> tuple[str, ...]:
    """The attributes that training changes in layers of a class."""
    record = record_of(kind)
    return () if record is None else record.state


def state_of(layers: Iterable[Any]) -> dict[tuple[int, str], Any]:
    """What training changed in layers beside their parameters, by the number of a layer and the attribute."""
    return {
        (number, name): getattr(layer, name) for number, layer in enumerate(layers) for name in state_names(type(layer))
    }


def set_state(layers: Iterable[Any], state: Mapping[tuple[int, str], Any]) -> None:
    """Put back what `state_of` gave."""
    all_layers = list(layers)
    for (number, name), value in state.items():
        setattr(all_layers[number], name, value)


def drawing(layers: Iterable[Any]) -> list[tuple[Any, LayerRecord]]:
    """The layers that draw random numbers in training, a function of `seed` and of a counter, with their records."""
    records = ((given, record_of(type(given))) for given in layers)
    return [(given, record) for given, record in records if record is not None and "seed" in record.settings]


def parameters_of(layers: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter of layers whose classes are known, or derived from known ones."""
    for given in layers:
        record = record_of(type(given))
        for name in record.arrays if record is not None else ():
            yield name, getattr(given, name)


def takes_indices(layers: Iterable[Any]) -> bool:
    """Whether one of the layers takes indices, or its class is derived from such a one."""
    records = (record_of(type(given)) for given in layers)
    maps = (None if record is None else record.map for record in records)
    return any(each is not None and each.check_indices is not None for each in maps)


def only_reshapes(given: Any) -> bool:
    """Whether a layer's samples are the same numbers in another shape, in training as in a prediction."""
    record = LAYERS.get(type(given))
    return record is not None and record.map is not None and record.map.forward is None


def layer_of_indices(layers: Iterable[Any]) -> Any:
    """The layer of a known class that takes the samples as indices, the first that moves anything; None: there is none.

    Another one further on is given floats, and raises an error.
    """
    first = next((given for given in layers if not only_reshapes(given)), None)
    return first if type(first) in LAYERS and takes_indices([first]) else None


def checked_indices(given: Any, x: Array) -> Array:
    """Samples x as the layer that takes them as indices has them, flat `INTP`, a copy where they are another dtype.

    Raises
    ------
    TypeError, ValueError
        Where x is not such indices.
    """
    found = LAYERS[type(given)].map
    if found is None or found.check_indices is None:
        raise TypeError(f"layer: expected one that takes indices, got {type(given).__name__}; take Embedding")
    return found.check_indices(given, x)


def loss_of(loss: object) -> Loss | None:
    """The record of a loss, or of the class that its class is derived from; None for one of somebody else's."""
    record = record_of(type(loss))
    return None if record is None else record.loss


def settings_of(record: LayerRecord, layer: Any) -> tuple[float, ...]:
    """The settings of an activation's layer, in the order in which its functions take them."""
    names = record.activation.settings if record.activation is not None else ()
    if not names:
        return ()
    return tuple(float(getattr(layer, name)) for name in names)
