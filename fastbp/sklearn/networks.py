"""An estimator's parameters and data in the form in which the engine takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

from fastbp.checks import FLOAT32, FLOAT64, INTP, Array, DType, parameter, same_shape, to_kernel
from fastbp.engine.plan import Engine
from fastbp.layers import Affine, Dropout
from fastbp.network import Sequential
from fastbp.ops.contract import ACTIVATIONS, LOSSES
from fastbp.training.at_once import share

# Elements of sparse samples that are made dense at a time.
DENSE = 2**23


def parameter_names(layers: int) -> list[str]:
    """Names of the parameters in scikit-learn's order: all coefs, then all intercepts."""
    return [f"{letter}{number}" for letter in "Wb" for number in range(1, layers + 1)]


def check_parameters(estimator: Any, features: int, hidden: int) -> None:
    """Refuse parameters that were set from outside where they do not fit the samples or each other.

    Raises
    ------
    TypeError
        If one is not an array of float32 or float64; for lbfgs, of real numbers.
    ValueError
        If there are not as many as layers, or one has another shape.
    """
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    if not len(coefs) == len(intercepts) == hidden + 1:
        raise ValueError(
            f"coefs_, intercepts_: expected {hidden + 1} each, as hidden_layer_sizes asks for, got {len(coefs)} and "
            f"{len(intercepts)}; fit without warm_start"
        )
    width, whose = features, "X has features"
    for number, arrays in enumerate(zip(coefs, intercepts, strict=True)):
        names = f"coefs_[{number}]", f"intercepts_[{number}]"
        W, b = (parameter(name, array, ndim) for name, array, ndim in zip(names, arrays, (2, 1), strict=True))
        outputs = estimator.n_outputs_ if number == hidden else W.shape[1]
        for name, array, shape in zip(names, (W, b), ((width, outputs), (outputs,)), strict=True):
            if estimator.solver != "lbfgs" and array.dtype.newbyteorder("=") not in (FLOAT32, FLOAT64):
                raise TypeError(
                    f"{name}: expected float32 or float64, got {array.dtype}; convert with .astype(np.float64)"
                )
            same_shape(name, array, shape, f"as {whose}" if array is W else f"as {names[0]} has columns")
        width, whose = W.shape[1], f"{names[0]} has columns"


def engine_of(estimator: Any, activations: list[str], optimizer: Any, batch_size: int) -> Engine:
    """An engine that trains the very arrays `coefs_` and `intercepts_`; `activations` are those of hidden layers."""
    layers: list[Any] = []
    for W, b, activation in zip(estimator.coefs_, estimator.intercepts_, [*activations, None], strict=True):
        layers.append(Affine(W, b))
        if activation is not None:
            layers.append(ACTIVATIONS[activation].layer())
            if estimator.dropout:
                layers.append(Dropout(estimator.dropout, seed=int(estimator._random_state.randint(2**31))))
                layers[-1].step = int(estimator.t_)  # no mask comes twice, though partial_fit draws the same seed
    network = Sequential(layers, LOSSES[estimator.out_activation_].layer())
    W, most = estimator.coefs_[0], _openmp_effective_n_threads()  # joblib and threadpoolctl set it
    return Engine(
        layers,
        network.last_layer,
        optimizer,
        network.params,
        W.dtype,
        (len(W),),
        batch_size,
        clips=True,
        threads=lambda: share(most),
    )


@dataclass
class Epoch:
    """The order of the samples and their shares, and for each batch its size, its penalty factor and its results."""

    order: Array
    shares: Array
    sizes: Array
    decays: Array
    losses: Array = field(init=False)
    penalties: Array = field(init=False)
    hits: Array = field(init=False)

    def __post_init__(self) -> None:
        self.losses, self.penalties, self.hits = np.zeros((3, len(self.sizes)))


def _sizes(samples: int, batch_size: int) -> Array:
    return np.diff([*range(0, samples, batch_size), samples])


class Samples:
    """Samples, targets and weights as the engine reads them."""

    def __init__(self, X: Any, y: Array, weights: Array | None, estimator: Any, dtype: DType) -> None:
        self._is_sparse = scipy.sparse.issparse(X)
        self._X: Any = X.tocsr().astype(dtype, copy=False) if self._is_sparse else to_kernel(X, dtype)
        self._weights, self._alpha = weights, float(estimator.alpha)
        self._shape: tuple[tuple[int, int], tuple[Array, Array]] | None = None
        output = estimator.out_activation_
        self._labels, self._targets = np.empty(0, INTP), np.empty((0, y.shape[1]), dtype)
        if output == "softmax":
            self._labels = y.argmax(axis=1)
        else:
            self._targets = to_kernel(y, dtype)
        # scikit-learn's squared error is the mean over the outputs, though its gradient is that of their sum.
        self._outputs = y.shape[1] if output == "identity" else 1
        # Its Poisson deviance of an infinite prediction is inf - inf, from which lbfgs turns back further.
        self._overflows = output == "exp"

    def epoch(self, order: Array, batch_size: int) -> Epoch:
        """What the steps of an epoch over `order` take."""
        if self._weights is None:
            return Epoch(order, np.empty(0), *self._shape_of_epoch(len(order), batch_size))
        sizes = _sizes(len(order), batch_size)
        weights = self._weights[order]
        totals = np.add.reduceat(weights, np.arange(len(sizes)) * batch_size)
        if not totals.all():
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")
        return Epoch(order, weights / np.repeat(totals, sizes), sizes, self._alpha / totals)

    def _shape_of_epoch(self, samples: int, batch_size: int) -> tuple[Array, Array]:
        """Sizes and penalty factors of the batches, which are those of the epoch before."""
        if self._shape is None or self._shape[0] != (samples, batch_size):
            sizes = _sizes(samples, batch_size)
            self._shape = (samples, batch_size), (sizes, self._alpha / sizes)
        return self._shape[1]

    def train(self, engine: Engine, epoch: Epoch, first: int, last: int, continue_on_nan: bool) -> int:
        """Do steps `first` to `last`; returns how many are done. Their losses, with the penalty, come into `epoch`."""
        data = self._X, self._labels, self._targets, 1.0
        if self._is_sparse:
            done = self._train_sparse(engine, epoch, first, last, continue_on_nan)
        else:
            l2 = (epoch.decays, epoch.penalties) if self._alpha else None
            done = engine.train(
                data, epoch.order, epoch.shares, first, last, epoch.losses, epoch.hits, continue_on_nan, l2
            )
        stop = first + done + (done < last - first)
        losses = epoch.losses[first:stop]
        losses /= self._outputs
        losses += epoch.penalties[first:stop]
        if self._overflows:
            losses[np.isinf(losses)] = np.nan
        return done

    def _train_sparse(self, engine: Engine, epoch: Epoch, first: int, last: int, continue_on_nan: bool) -> int:
        """The same, with the samples of some steps at a time made dense."""
        batch_size = int(epoch.sizes[0])
        most = max(1, DENSE // (batch_size * self._X.shape[1]))
        for start in range(first, last, most):
            stop = min(start + most, last)
            places = slice(start * batch_size, stop * batch_size)
            rows = epoch.order[places]
            data = self._X[rows].toarray(), *(t[rows] if len(t) else t for t in (self._labels, self._targets)), 1.0
            l2 = (epoch.decays[start:stop], epoch.penalties[start:stop]) if self._alpha else None
            results = epoch.losses[start:stop], epoch.hits[start:stop], continue_on_nan, l2
            done = engine.train(data, np.arange(len(rows)), epoch.shares[places], 0, stop - start, *results)
            if done < stop - start:
                return start + done - first
        return last - first
