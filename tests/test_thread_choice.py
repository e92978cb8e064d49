"""All threads or one: the faster is kept, looked at again, and looking costs little."""

import time

import numpy as np
import pytest

import fastbp
from fastbp.engine import thread_choice
from fastbp.engine.plan import Engine
from fastbp.engine.thread_choice import ThreadChoice, choice_for
from fastbp.optimizers import SGD


def run(choice, seconds_of_steps, seconds):
    """Let `choice` run steps that take so long on all threads and on one; the time on each, and where it ends."""
    spent, left = {True: 0.0, False: 0.0}, seconds
    while left > 0:
        is_all, steps = choice.next(max(1, round(0.05 / seconds_of_steps[choice.is_all])))
        took = steps * seconds_of_steps[is_all]
        choice.note(took, steps)
        spent[is_all] += took
        left -= took
    return spent


@pytest.mark.parametrize("step", [1e-5, 1e-3, 0.01])
@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.3, 10])
def test_the_faster_is_kept(step, ratio):
    choice = ThreadChoice()
    spent = run(choice, {True: ratio * step, False: step}, 20)
    assert choice.is_all is (ratio < 1)
    assert spent[choice.is_all] > 0.9 * sum(spent.values())


@pytest.mark.parametrize("ratio", [0.5, 0.7])
def test_looking_costs_less_than_three_hundredths(ratio):
    spent = run(ThreadChoice(), {True: ratio * 1e-4, False: 1e-4}, 2)
    steps = spent[True] / (ratio * 1e-4) + spent[False] / 1e-4
    assert sum(spent.values()) < 1.03 * steps * ratio * 1e-4


def test_cold_caches_at_the_beginning_do_not_count():
    choice = ThreadChoice()
    for _ in range(15):
        choice.next(1)
        choice.note(3e-3, 1)
    spent = run(choice, {True: 7e-4, False: 1e-3}, 1)
    assert spent[False] < 0.03 * sum(spent.values())


def test_it_changes_its_mind_within_seconds():
    choice = ThreadChoice()
    run(choice, {True: 1e-3, False: 5e-4}, 10)
    assert not choice.is_all
    run(choice, {True: 3e-4, False: 5e-4}, 2 * thread_choice.LONGEST)
    assert choice.is_all
    run(choice, {True: 1e-3, False: 5e-4}, 2 * thread_choice.LONGEST)
    assert not choice.is_all


def test_what_was_measured_serves_the_next_run_of_the_same_kind():
    choice = choice_for("a")
    assert choice_for("a") is choice
    assert choice_for("b") is not choice


def test_what_was_measured_long_ago_is_forgotten():
    choice = choice_for("a")
    choice.used = time.monotonic() - 2 * thread_choice.MEMORY
    assert choice_for("a") is not choice


def test_a_run_that_changes_its_threads_gives_the_same_bits(monkeypatch):
    rng = np.random.default_rng(0)
    x, t = rng.random((500, 784)), rng.integers(0, 10, 500)
    trained, counts = [], []

    def alternate(self, steps):
        self.is_all = not self.is_all
        counts.append(self.is_all)
        return self.is_all, min(steps, 2)

    for next_ in (alternate, ThreadChoice.next):
        monkeypatch.setattr(ThreadChoice, "next", next_)
        with fastbp.num_threads(2):
            network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
            network.fit(x, t, epochs=3, batch_size=50, seed=0)
        trained.append([value.tobytes() for value in network.params.values()])
    assert trained[0] == trained[1]
    assert set(counts) == {True, False}


def test_steps_that_compile_do_not_count(monkeypatch):
    """A choice that saw them would stay with one thread for as long as fifty times what they took."""
    rng, timed, runs = np.random.default_rng(0), [], []
    monkeypatch.setattr(ThreadChoice, "note", lambda _, seconds, steps: timed.append(steps))
    with fastbp.num_threads(2):
        network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
        engine = Engine(
            list(network.layers.values()), network.last_layer, SGD(0.1), network.params, np.dtype(float), (784,), 50
        )
        inner = engine._division.run
        monkeypatch.setattr(engine._division, "run", lambda *given: runs.append(given[5:7]) or inner(*given))
        data = rng.random((100, 784)), rng.integers(0, 10, 100), np.empty((0, 10)), 1.0
        for _ in range(2):
            engine.train(data, np.arange(100), np.empty(0), 0, 2, np.zeros(2), np.zeros(2), False)
    assert runs == [(0, 0), (0, 2), (0, 2)]
    assert timed == [2, 2]
