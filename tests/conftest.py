"""What several test files need."""

import numpy as np
import pytest

from bench.mnist import FOLDER


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def mnist_folder():
    if not FOLDER.is_dir():
        pytest.skip(f"no MNIST files in {FOLDER}; set FASTBP_MNIST_DIR to their folder")
    return FOLDER
