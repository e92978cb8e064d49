"""Fits by several ranks over MPI: the bits of one process, and the promises of `fit`."""

import functools
import json
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastbp.training.alike import data_words
from tests.rank_cases import digest, fit
from tests.subprocesses import ROOT, ranks_of, run_python, run_ranks

SECONDS = 100  # for what takes a few
CASES = range(18)
WORKER = "tests.rank_worker"


@functools.cache
def found(ranks, work, *arguments):
    """What the ranks of such a program ended with, by name."""
    return json.loads(run_ranks(ranks, "-m", WORKER, work, *arguments))


@functools.cache
def alone(number):
    return digest(*fit(number))


# Of as many threads as there are cores ranks of one machine take a share each, of another number all.
@pytest.mark.parametrize(("ranks", "threads"), [(1, 2), (2, 1), (2, 2), (3, 3), (4, 1), (4, 3)])
def test_every_rank_ends_with_the_bits_of_one_process(ranks, threads):
    ends = found(ranks, "cases", threads, *CASES)
    assert ends == {f"{kind}{number}": [alone(number)] * ranks for kind in ("", "shards ") for number in CASES}


PROMISES = [
    "memory-mapped file",
    "stop",
    "changes of a callback",
    "patience",
    "NaN",
    "progress",
    "generator",
    "callbacks",
]


@pytest.mark.parametrize("name", PROMISES)
def test_what_fit_promises_holds_for_ranks(name):
    ends = found(3, "promises")
    assert ends[name] == [ends[f"{name}, alone"][0]] * 3


def test_all_promises_are_looked_at():
    assert {name for name in found(3, "promises") if not name.endswith("alone")} == set(PROMISES)


@pytest.mark.parametrize(
    ("name", "argument", "values"),
    [
        ("samples of x", "samples of x", "300 on ranks 0 and 1, 250 on rank 2"),
        ("x", "x", "float32 on ranks 0 and 1"),
        ("t", "t", "targets () of int64 on ranks 0 and 1"),
        ("seed", "seed", "0 on ranks 0 and 1, 1 on rank 2"),
        ("batch_size", "batch_size", "30 on ranks 0 and 1, 31 on rank 2"),
        ("architecture", "params['W1']", "float32 (20, 31)"),
        ("parameters", "params['W1']", "float32 (20, 30)"),
        ("dtype", "params['W1']", "float64 (20, 30)"),
        ("layers", "layers", "Affine, Tanh, Affine on rank 2"),
        ("optimizer", "optimizer", "'lr': '1.1'"),
        ("epochs", "epochs", "2 on ranks 0 and 1, 3 on rank 2"),
        ("on_epoch", "on_epoch", "True on rank 2"),
        ("checkpoint", "checkpoint", "True on rank 2"),
        ("sample_weight", "sample_weight", "None on ranks 0 and 1"),
        ("values of x", "values of x", "float32 with the checksum "),
        ("values of t", "values of t", "int64 with the checksum "),
        ("values of sample_weight", "sample_weight", "float64 (300,) with the checksum "),
        ("validation_data", "validation_data", "{'x': 'float32 with the checksum "),
    ],
)
def test_what_ranks_disagree_on_is_named_on_all(name, argument, values):
    errors = {error for _, error in found(3, "refusals")[name]}
    assert len(errors) == 1
    error = errors.pop()
    assert error.startswith(f"ValueError: {argument}: expected the same on every rank, got ")
    assert values in error


@pytest.mark.parametrize("name", ["samples of x", "values of x", "values of t", "values of sample_weight"])
def test_a_forgotten_shards_is_the_remedy_where_samples_differ(name):
    for _, error in found(3, "refusals")[name]:
        assert error.endswith("; give all ranks one, or shards=True where each has samples of its own")


def words_by_parts(x, edges):
    """The words for x that each rank finds, of which it holds the samples between two edges."""
    ranks, held = range(len(edges) - 1), [None] * (len(edges) - 1)
    barrier = threading.Barrier(len(ranks))

    def found_by(rank):
        def gather(value):
            held[rank] = value
            barrier.wait(SECONDS)
            found = [*held]
            barrier.wait(SECONDS)
            return found

        return data_words({"x": x[edges[rank] : edges[rank + 1]]}, edges[rank], gather)["x"]

    with ThreadPoolExecutor(len(ranks)) as pool:
        return [*pool.map(found_by, ranks)]


@pytest.mark.parametrize("edges", [(0, 300, 700), (0, 1, 699, 700), (0, 100, 200, 300, 700)])
def test_samples_have_the_same_words_however_ranks_divide_them(edges, rng):
    x = rng.random((700, 3, 4)).astype(np.float32)
    assert {*words_by_parts(x, edges), data_words({"x": x})["x"]} == {data_words({"x": x.copy()})["x"]}
    for place in (0, -1):
        other = x.copy()
        other[place, 0, 0] += 1
        assert {*words_by_parts(other, edges)}.isdisjoint(words_by_parts(x, edges))


def test_words_for_samples_read_a_few_of_them():
    x = np.broadcast_to(np.arange(10**6, dtype=np.float32), (10**9, 10**6))
    assert data_words({"x": x})["x"].startswith("float32 with the checksum ")


def test_a_refusal_of_one_rank_is_told_to_the_others():
    *others, (_, own) = found(3, "refusals")["wrong"]
    assert own.startswith("ValueError: t: expected labels")
    assert all(error.startswith(f"RuntimeError: rank 2: expected no error, got {own}") for _, error in others)


def test_comm_is_a_communicator():
    errors = {error for _, error in found(3, "refusals")["no communicator"]}
    assert errors == {
        "TypeError: comm: expected a communicator of mpi4py, got str; pass MPI.COMM_WORLD, or leave it out"
    }


def test_a_process_that_is_no_rank_is_told_so():
    for _, error in found(3, "refusals")["no rank"]:
        assert error.startswith(
            "ValueError: comm: expected a communicator that this process is a rank of, got MPI.COMM"
        )


def test_a_layer_of_another_class_is_refused():
    errors = {error for _, error in found(3, "refusals")["own layer"]}
    assert len(errors) == 1
    assert "comm: expected a network that the engine trains" in errors.pop()


@pytest.mark.parametrize(
    ("name", "error"), [("callback", "ZeroDivisionError: of one rank"), ("step", "MemoryError: no more")]
)
def test_an_error_of_one_rank_ends_all_with_its_message(name, error):
    *others, (_, own) = found(3, "failures")[name]
    assert own == error
    text = f"RuntimeError: rank 2: expected no error, got {error}; mend it on that rank, and start all again"
    assert [other for _, other in others] == [text] * 2


def test_an_error_in_a_callback_leaves_all_ranks_alike():
    assert len({bits for bits, _ in found(3, "failures")["callback"]}) == 1


def test_what_a_callback_changes_on_one_rank_alone_is_an_error():
    for _, error in found(3, "failures")["changed alone"]:
        assert error.startswith("ValueError: params['b1']: expected the same on every rank")


@pytest.mark.parametrize("name", ["Ctrl-C", "Ctrl-C in a callback"])
def test_ctrl_c_on_one_rank_stops_all_at_the_same_step(name):
    ends = found(3, "failures")[name]
    assert len({bits for bits, _ in ends}) == 1
    assert [error for _, error in ends] == ["KeyboardInterrupt: "] * 3


def test_ranks_train_together_after_all_these_errors():
    assert found(3, "failures")["afterwards"] == [found(3, "promises")["progress"][0][:2]] * 3


def test_the_command_says_how_many_ranks_train():
    out = run_ranks(3, "-m", "fastbp", "train", "--epochs", 2, "--dtype", "float32")
    assert "3 ranks train together over MPI" in out.splitlines()
    assert [line.split()[1] for line in out.splitlines() if line.startswith("epoch")] == ["1/2", "2/2"]


def test_shards_are_of_ranks():
    with pytest.raises(ValueError, match="shards: expected a comm beside it, got none"):
        fit(0, (0, 1))


def test_a_step_moves_what_the_design_says():
    pytest.importorskip("mpi4py")
    code = """
from bench import machines
from fastbp.ranks.division import Divided

network = machines._engine("784-50-10", machines._Kept)[1].network
steps = [Divided(machines._Counted(rank, 2), network).traffic(100) for rank in (0, 1)]
print(sum(size for step in steps for _, size in step))
parts, link = machines.Parts(1.0, 0.5, 0.0, 0.0), machines.Link(0.0, 0.0)
print([float(machines._speed_up("784-1024-10", parts, link, ranks)) for ranks in (2, 4)])
"""
    moved, speed_ups = run_python(code).splitlines()
    deltas, results, inputs = 100 * (50 + 10) * 4, 100 * 2 * 8, (48 * 26 + 52 * 24) * 4
    assert int(moved) == deltas + results + inputs + (784 * 50 + 50 + 50 * 10 + 10) * 4
    assert all(0.9 * ranks <= found <= ranks for ranks, found in zip((2, 4), json.loads(speed_ups), strict=True))


EPOCHS = 100  # of a longer fit, some tenths of a second


def unbroken():
    with tempfile.TemporaryDirectory() as folder:
        return found(1, "long", f"{folder}/checkpoint", 0, EPOCHS)["long"][0]


def killed_and_resumed(number):
    """What a fit ends with of which a random rank is killed at a random time, and that others then take up."""
    rng = np.random.default_rng(number)
    ranks, later = (int(count) for count in rng.permutation([1, 2, 3])[:2])
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/checkpoint"
        killed, seconds = int(rng.integers(ranks)), rng.random() * 0.3
        command = ranks_of(ranks, "-m", WORKER, "long", path, 0, EPOCHS, killed, seconds)
        subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS, check=False)
        assert Path(path).exists()
        return later, json.loads(run_ranks(later, "-m", WORKER, "long", path, 1, EPOCHS))["long"]


@pytest.mark.parametrize("number", range(2))
def test_a_fit_goes_on_with_another_number_of_ranks_after_one_was_killed(number):
    later, ends = killed_and_resumed(number)
    assert ends == [unbroken()] * later


if __name__ == "__main__":  # more kills: python -m tests.test_ranks 20
    for number in range(int(sys.argv[1])):
        later, ends = killed_and_resumed(number)
        print(number, "the same" if ends == [unbroken()] * later else f"DIFFERENT: {ends}", flush=True)
