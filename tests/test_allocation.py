"""The memory of large results is taken over when nobody has them any more, and never before."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest

from fastbp import allocation
from fastbp.layers import Convolution, ReLU

LARGE = allocation.LARGE // 8


@pytest.fixture(autouse=True)
def nothing_kept():
    allocation.release()
    yield
    allocation.release()


def address(array):
    return array.__array_interface__["data"][0]


def test_a_large_array_takes_over_the_memory_of_one_that_is_gone():
    first = allocation.empty((LARGE, 2), np.float64)
    place = address(first)
    del first
    second = allocation.empty(4 * LARGE, np.float32)
    assert address(second) == place
    assert second.shape == (4 * LARGE,)
    assert second.dtype is np.dtype(np.float32)
    assert second.flags.carray


def test_an_array_keeps_its_memory_while_there_is_a_view_of_it():
    first = allocation.empty(LARGE, np.float64)
    first[:] = 1
    view = first.reshape(2, -1).T[1:]
    del first
    gc.collect()
    second = allocation.empty(LARGE, np.float64)
    second[:] = 2
    assert np.all(view == 1)


def test_arrays_that_come_and_go_in_any_order_never_share_memory():
    rng, alive = np.random.default_rng(0), {}
    for number in range(300):
        size = LARGE * int(rng.integers(1, 4))
        array = allocation.empty(size, np.float64)
        array[:] = number
        alive[number] = array
        if len(alive) > 6:
            del alive[int(rng.choice(list(alive)))]
        del array
        for value, kept in alive.items():
            assert kept[0] == kept[-1] == value


def test_small_arrays_are_numpys_own():
    assert allocation.empty(10, np.float32).flags.owndata
    assert allocation.empty(0, np.float32).size == 0


def test_so_much_is_kept_at_most(monkeypatch):
    monkeypatch.setattr(allocation, "MOST", 3 * allocation.LARGE)
    alive = [allocation.empty(LARGE, np.float64) for _ in range(5)]
    assert allocation.kept() == 0
    while alive:
        alive.pop()
        assert allocation.kept() <= 3 * allocation.LARGE
    assert allocation.kept() > 0
    allocation.empty(4 * LARGE, np.float64)
    assert allocation.kept() <= 3 * allocation.LARGE
    allocation.release()
    assert allocation.kept() == 0


def test_a_result_is_pickled_and_copied_like_any_array():
    array = allocation.empty(LARGE, np.float64)
    array[:] = 3
    for other in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array)):
        np.testing.assert_array_equal(other, array)
        assert not np.shares_memory(other, array)


def test_threads_get_memory_of_their_own():
    faults = []

    def work(number):
        for _ in range(200):
            array = allocation.empty(LARGE, np.float64)
            array[:: LARGE // 16] = number
            if np.any(array[:: LARGE // 16] != number):
                faults.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_layers_hand_out_results_that_no_later_call_overwrites():
    x = np.random.default_rng(0).standard_normal((100, 1, 28, 28))
    conv, relu = Convolution(np.ones((16, 1, 3, 3)), np.zeros(16)), ReLU()
    out = relu.forward(conv.forward(x))
    kept = out.copy()
    for _ in range(3):
        relu.forward(conv.forward(-x))
    np.testing.assert_array_equal(out, kept)
