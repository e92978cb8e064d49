"""What several test files need."""

import os
from pathlib import Path

import numpy as np
import pytest

SHARED_MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def mnist_folder():
    folder = Path(os.environ.get("FASTBP_MNIST_DIR") or SHARED_MNIST)
    if not folder.is_dir():
        pytest.skip(f"no MNIST files in {folder}; set FASTBP_MNIST_DIR to their folder")
    return folder
