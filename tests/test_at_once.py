"""Fits that run at once in one process divide the kernel threads among them, and change no bit."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastbp import TwoLayerNet, num_threads
from fastbp.engine import plan
from fastbp.training.at_once import at_work, share

rng = np.random.default_rng(0)
X, T = rng.random((300, 20)), rng.integers(0, 5, 300)


@pytest.fixture
def eight_threads():
    with num_threads(8):
        yield


def test_one_alone_has_all_threads_or_as_many_as_it_takes(eight_threads):
    assert (share(), share(3)) == (8, 3)
    with at_work():
        assert (share(), share(3)) == (8, 3)


def test_several_divide_them_until_one_is_alone_again(eight_threads):
    together, seen = threading.Barrier(3), []

    def work():
        with at_work():
            together.wait()
            seen.append((share(), share(5), share(2)))
            together.wait()

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(work)
    assert seen == [(2, 1, 1)] * 3
    with at_work():
        assert share() == 8


def test_a_fit_in_a_callback_of_another_one_has_all(eight_threads):
    with at_work():
        with at_work():
            assert share() == 8
        assert share() == 8


def test_a_task_that_fails_gives_its_threads_back(eight_threads):
    with pytest.raises(ZeroDivisionError), at_work():
        _ = 1 / 0
    assert share() == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_counts_none_of_its_parents_threads(eight_threads):
    entered, leave = threading.Event(), threading.Event()

    def work():
        with at_work():
            entered.set()
            leave.wait()

    other = threading.Thread(target=work)
    other.start()
    entered.wait()
    with at_work():
        child = os.fork()
        if not child:
            with num_threads(8):
                os._exit(share())
        _, status = os.waitpid(child, 0)
        assert (os.waitstatus_to_exitcode(status), share()) == (8, 4)
    leave.set()
    other.join()


def test_two_fits_at_once_have_one_thread_of_two_each_and_learn_the_same(monkeypatch):
    alone = [TwoLayerNet(20, 10, 5, seed=seed) for seed in range(2)]
    for network in alone:
        network.fit(X, T, epochs=3, seed=0)
    teams, make = [], plan.team
    together = threading.Barrier(2, action=lambda: teams.append("together"))
    monkeypatch.setattr(plan, "team", lambda n: teams.append(n) or make(n))

    def fit(seed):
        network = TwoLayerNet(20, 10, 5, seed=seed)
        network.fit(X, T, epochs=3, seed=0, on_epoch=lambda _: together.wait())
        return network

    with num_threads(2), ThreadPoolExecutor(2) as pool:
        networks = list(pool.map(fit, range(2)))
    first, last = teams.index("together"), len(teams) - teams[::-1].index("together")
    assert {count for count in teams[first:last] if count != "together"} == {1}
    for network, expected in zip(networks, alone, strict=True):
        for key, value in expected.params.items():
            np.testing.assert_array_equal(network.params[key], value)
