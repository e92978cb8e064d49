"""What `fit` takes: one copy of the parameters, the optimizer's state and one batch, and nothing of the data."""

from pathlib import Path

import pytest

from bench import memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads memory as Linux tells it, in /proc/self/status"
)

MB = 1_000_000


def test_training_takes_the_parameters_the_optimizers_state_and_a_batch():
    widths, batch_size = (2000, 1000, 10), 200
    # Of the rest, one state kept twice would take 8 MB, and a copy of x 80.
    assert memory.growth(widths, 10_000, batch_size) < memory.least(widths, batch_size) + 6 * MB


def test_a_mapped_file_is_larger_than_the_memory_of_the_process_may_be(tmp_path):
    path = tmp_path / "images.npy"
    memory.write_images(path, 120_000, 784)
    assert path.stat().st_size > 90 * MB
    assert memory.growth_of_mapped(path, limit=60 * MB) < 10 * MB


def test_the_least_for_images_is_parameters_states_and_a_batch():
    windows = 6 * 14 * 14 + 16 * 5 * 5
    numbers = 784 + 2 * (windows + 120 + 84 + 10)
    assert memory.least_on_images("LeNet", 50) == 4 * (3 * 61_706 + 50 * numbers) + 50 * windows


def test_training_on_images_takes_some_copies_of_a_batch_and_nothing_of_the_data():
    few, many = (memory.growth_on_images("LeNet", samples, 50) for samples in (200, 4_000))
    assert 0 < few < 3 * memory.least_on_images("LeNet", 50)
    assert many < few + 6 * MB  # the samples take 12
