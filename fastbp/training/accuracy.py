"""The accuracy of a network, and of outputs that it has given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, float_dtype, rows, sample_weights
from fastbp.ops.contract import loss_of
from fastbp.ops.losses import shares_of_mean
from fastbp.ops.targets import target
from fastbp.training.protocol import Network


def accuracy(self: Network, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Return the share of samples whose largest output is at the class of t.

    Parameters
    ----------
    x : array_like
        A batch.
    t : array_like
        Integer labels (N,), 0 <= t < C, or one-hot (N, C).
    sample_weight : array_like (N,), optional
        A weight for each sample: the share is that of the sum of weights.

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        For an empty batch, and for what is neither a label of each sample nor one-hot. After a regression it says to
        take the loss.

    Examples
    --------
    >>> network.accuracy(x, network.predict(x).argmax(axis=1))
    1.0
    """
    try:
        return accuracy_of(self.predict(x), t, sample_weight)
    except (TypeError, ValueError) as error:
        record = loss_of(self.last_layer)
        if record is None or record.classifies or not str(error).startswith("t:"):
            raise
        kind = type(self.last_layer).__name__
        raise type(error)(f"{error}; accuracy counts classes, of what {kind} learns take loss(x, t)") from None


def has_its_own(network: Network) -> bool:
    """Whether a subclass or this object has replaced the method `accuracy`."""
    return "accuracy" in vars(network) or getattr(type(network), "accuracy", None) is not accuracy


def accuracy_of(outputs: Array, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """The same for what `predict` gave."""
    out = as_array("predict(x)", outputs)
    scores = rows("predict(x)", out)
    labels, _ = target(t, out.shape, float_dtype(out.dtype))
    if len(scores) == 0:
        raise ValueError("x: expected at least one sample, got none; the share of none is not a number")
    if sample_weight is None:
        return share_of_hits(scores, labels, np.empty(0))
    weights = sample_weights(sample_weight, len(scores))
    return share_of_hits(scores, labels, shares_of_mean(weights, float(np.sum(weights))))


def share_of_hits(scores: Array, t: Array, sample_shares: Array) -> float:
    """The share of samples whose largest score is at the class of t; `sample_shares` is (0,) where all are alike."""
    labels = t if t.ndim == 1 else np.argmax(t, axis=1)
    hits = np.argmax(scores, axis=-1) == labels
    return float(np.sum(sample_shares * hits) if len(sample_shares) else np.mean(hits))
