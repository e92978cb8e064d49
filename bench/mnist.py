"""The images of MNIST: where they lie, and the 10,000 test images as the tables train on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastbp.data import read_idx

FOLDER = Path(
    os.environ.get("FASTBP_MNIST_DIR") or Path(__file__).resolve().parents[2].joinpath("shared", "data", "mnist")
)


def images(dtype: str, count: int = 10_000) -> tuple[Any, Any]:
    """Images as rows of numbers from 0 to 1, and their labels; noise where FOLDER does not exist.

    From 10,000 on they come again from the first.
    """
    if FOLDER.is_dir():
        pixels, labels = (read_idx(FOLDER / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
        which = np.arange(count) % len(pixels)
        return pixels[which].reshape(-1, 784) / np.dtype(dtype).type(255), labels[which].astype(np.intp)
    # The mean is 0, so that many samples reach a unit and no single sample moves its weights far.
    x = np.random.default_rng(0).random((count, 784)).astype(dtype) - np.dtype(dtype).type(0.5)
    return x, np.argmax(x[:, :10], axis=1)
