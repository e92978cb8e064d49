"""Networks and data by number, for fits that several ranks do together."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastbp import Sequential
from fastbp.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Embedding,
    Flatten,
    LayerNormalization,
    MatMul,
    Pooling,
    SoftmaxWithLoss,
)
from fastbp.ops.contract import ACTIVATIONS, LOSSES
from fastbp.optimizers import SGD, Adam, AdamW, Momentum

WORDS = 30  # that an embedding knows


def fit(number: int, shard: tuple[int, int] | None = None, **more: Any) -> tuple[Sequential, Any]:
    """Fit a network to data, of which a rank of so many may have its shard; the network and the optimizer."""
    rng = np.random.default_rng(number)
    kind = ("dense", "images", "rows", "indices", "small", "wide")[number % 6]
    dtype = rng.choice([np.float32, np.float64])
    samples, batch_size = int(rng.integers(2, 150)), int(rng.integers(1, 120))
    if kind in ("small", "wide"):
        samples, batch_size = 250, 100
    if kind in ("images", "rows") and number >= 12:  # a smaller last batch has more groups: 300 samples 10, 200 have 13
        batch_size = int(rng.integers(257, 320))
        samples = batch_size + 200
    loss = SoftmaxWithLoss() if rng.random() < 0.6 else LOSSES["identity"].layer()
    x, layers, width = _KINDS[kind](rng, dtype, samples)
    outputs = int(rng.integers(2, 7))
    layers.append(_affine(rng, dtype, width, outputs))
    network = Sequential(layers, loss)
    network.weight_decay_lambda = float(rng.choice([0.0, 0.01]))
    is_classifier = isinstance(loss, SoftmaxWithLoss)
    labels, numbers = rng.integers(0, outputs, samples), rng.standard_normal((samples, outputs))
    optimizer = rng.choice([SGD, Momentum, Adam, AdamW])(0.01, weight_decay=float(rng.choice([0.0, 0.1])))
    weights = rng.random(samples) * (rng.random(samples) < 0.8) + 1e-3 if rng.random() < 0.4 else None
    settings = {
        "epochs": 2, "batch_size": batch_size, "optimizer": optimizer, "seed": number, "sample_weight": weights,
        "drop_last": bool(rng.random() < 0.3) and batch_size < samples, "record_steps": True,
    }  # fmt: skip
    t = labels if is_classifier else numbers.astype(dtype)
    if shard is not None and samples >= 20:
        rank, ranks = shard
        begin, end = (round(samples * (part / ranks) ** 1.5) for part in (rank, rank + 1))
        x, t = x[begin:end], t[begin:end]
        settings |= {"sample_weight": None if weights is None else weights[begin:end], "shards": True}
    network.fit(x, t, **settings | more)
    return network, optimizer


def digest(network: Sequential, optimizer: Any) -> str:
    """Every bit that a fit leaves, but the seconds."""
    parts: list[Any] = [sorted(network.params.items())]
    for layer in network.layers.values():
        parts.append([getattr(layer, name, None) for name in ("running_mean", "running_var", "step")])
    parts.append(
        [optimizer.iter, [sorted((getattr(optimizer, name) or {}).items()) for name in optimizer.state_names()]]
    )
    columns = network.history.to_dict()
    parts.append(sorted((name, list(values)) for name, values in columns.items() if name != "seconds"))
    return hashlib.sha256(repr(_exact(parts)).encode()).hexdigest()[:16]


def _exact(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes().hex()
    return [_exact(each) for each in value] if isinstance(value, list | tuple) else value


def _affine(rng: Any, dtype: Any, D: int, M: int) -> Any:
    W, b = (rng.standard_normal((D, M)) / np.sqrt(D)).astype(dtype), rng.standard_normal(M).astype(dtype) / 10
    return Affine(W, b) if rng.random() < 0.8 else MatMul(W)


def _activation(rng: Any) -> Any:
    return ACTIVATIONS[rng.choice(["relu", "tanh", "gelu"])].layer()


def _scales(rng: Any, dtype: Any, size: int) -> tuple[Any, Any]:
    return (1 + rng.random(size)).astype(dtype), rng.standard_normal(size).astype(dtype)


def _dense(rng: Any, dtype: Any, samples: int, widest: int = 60) -> Any:
    D = width = int(rng.integers(1, widest))
    layers = []
    for _ in range(rng.integers(1, 4)):
        M = int(rng.integers(1, widest))
        layers += [_affine(rng, dtype, width, M), _activation(rng)]
        width = M
        if rng.random() < 0.4:
            layers.append(Dropout(0.3, seed=int(rng.integers(100))))
    return _samples(rng, dtype, (samples, D)), layers, width


def _rows(rng: Any, dtype: Any, samples: int) -> Any:
    """Dense layers with normalizations between them, of which one may come first."""
    x, dense, width = _dense(rng, dtype, samples, 30)
    layers, D = [], x.shape[1]
    for layer in dense:
        if rng.random() < 0.3:
            layers.append(rng.choice([BatchNormalization, LayerNormalization])(*_scales(rng, dtype, D)))
        layers.append(layer)
        D = layer.W.shape[1] if hasattr(layer, "W") else D
    return x, [BatchNormalization(*_scales(rng, dtype, x.shape[1])), *layers] if rng.random() < 0.3 else layers, width


def _images(rng: Any, dtype: Any, samples: int) -> Any:
    channels, side, layers = int(rng.integers(1, 3)), 8, []
    x = _samples(rng, dtype, (samples, channels, side, side))
    for _ in range(rng.integers(1, 3)):
        filters = int(rng.integers(1, 15))
        W = rng.standard_normal((filters, channels, 3, 3)) / 3
        layers.append(Convolution(W.astype(dtype), np.zeros(filters, dtype), 1, 1))
        channels = filters
        if rng.random() < 0.5:
            layers.append(BatchNormalization(*_scales(rng, dtype, channels)))
        layers.append(_activation(rng))
        if rng.random() < 0.6:
            layers.append(Pooling(2, 2, 2))
            side //= 2
    if rng.random() < 0.4:
        layers.append(Dropout(0.2, seed=3))
    width = channels * side * side
    hidden = int(rng.integers(2, 40))
    return x, [*layers, Flatten(), _affine(rng, dtype, width, hidden), _activation(rng)], hidden


def _indices(rng: Any, dtype: Any, samples: int) -> Any:
    length, width = int(rng.integers(1, 4)), int(rng.integers(1, 20))
    layers = [Embedding(rng.standard_normal((WORDS, width)).astype(dtype)), Flatten()]
    return rng.integers(0, WORDS, (samples, length)), layers, length * width


def _samples(rng: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    if rng.random() < 0.2:
        return rng.integers(0, 3, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(dtype)


_KINDS: dict[str, Callable[..., Any]] = {
    "dense": _dense,
    "images": _images,
    "rows": _rows,
    "indices": _indices,
    "small": functools.partial(_dense, widest=12),
    "wide": functools.partial(_dense, widest=400),
}
