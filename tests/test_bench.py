"""Timing: what `fastbp bench` prints and saves, the peak it is held to, and the suite that asv runs."""

import dataclasses
import functools
import inspect
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import (
    accuracy,
    busy,
    cases,
    engine,
    exported,
    flops,
    gate,
    graph,
    images,
    imports,
    kernels,
    layers,
    memory,
    mixed,
    mnist,
    processes,
    publish,
    searches,
    suite,
    table,
)
from bench import peers as bench_peers
from fastbp import DeepConvNet, LeNet, SimpleConvNet
from fastbp.benchmark import comparison, machine, measure, peak, peers, tasks
from fastbp.cli import main
from fastbp.data import load_digits
from fastbp.engine.thread_choice import ThreadChoice
from fastbp.layers import Dropout
from tests.subprocesses import run_python

TASK = tasks.Task((6, 4, 3), 5, steps=8)
FAST = {"rounds": 2, "block": 1e-4, "settling": 1e-4, "pause": 0}


@pytest.fixture
def quick(monkeypatch):
    """`fastbp bench` on a small network for a moment, against peers that are always there."""
    monkeypatch.setattr(comparison, "TASKS", (TASK, tasks.Task((6, 4, 3), 5, samples=20, optimizer="Adam")))
    monkeypatch.setattr(comparison, "PEERS", (peers.Fastbp, peers.Reference, peers.Lean, peers.Torch))
    monkeypatch.setattr(peers, "samples", lambda functions, **_: measure.samples(functions, **FAST))
    monkeypatch.setitem(sys.modules, "torch", None)


def test_functions_take_turns():
    order = []
    found = measure.samples({name: lambda name=name: order.append(name) for name in "ab"}, **FAST)
    assert [name for name, _ in itertools.groupby(order)] == ["a", "b", "a", "b"]
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())


def test_a_turn_begins_with_what_comes_before_and_a_pause(monkeypatch):
    order = []
    monkeypatch.setattr(measure.time, "sleep", order.append)
    functions = {"f": lambda: order.append("f"), "g": lambda: order.append("g")}
    measure.samples(functions, rounds=2, settling=0, pause=0.02, before=lambda: order.append("product"))
    assert order == 2 * ["product", 0.02, "f", "product", 0.02, "g"]


def test_a_pause_lasts_until_no_thread_works(monkeypatch):
    slept, works = [], iter([0.0, 0.009, 0.009, 0.018, 0.018, 0.018])  # seconds of the process, at each look
    monkeypatch.setattr(measure.time, "sleep", slept.append)
    monkeypatch.setattr(measure.time, "process_time", lambda: next(works))
    measure.samples({"f": lambda: None}, rounds=1, settling=0, pause=0.02)
    assert slept == [0.02, measure.LOOK, measure.LOOK, measure.LOOK]


def test_seconds_are_those_of_one_call(monkeypatch):
    now = 0.0

    def takes_a_second():
        nonlocal now
        now += 1

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    assert measure.samples({"f": takes_a_second}, rounds=2, block=3, settling=2, pause=0) == {"f": [1, 1]}
    assert now == 2 * (2 + 3)
    assert measure.samples({"f": takes_a_second}, rounds=9, block=1, settling=1, pause=0, at_most=7) == {"f": [1] * 4}
    assert measure.samples({"f": takes_a_second}, rounds=9, block=1, settling=1, pause=0, at_most=1) == {"f": [1] * 2}


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_the_peak_is_measured_on_multiply_adds(dtype):
    half, one = np.array([0.5, 1], dtype)
    # Each sum goes to sum·0.5 + 1 = 2, and one of each vector is added to the factor.
    assert peak._run(1, half, one) == 0.5 + peak._SUMS * 1.5
    assert peak._run(100, half, one) == 0.5 + peak._SUMS * 2
    assert math.isfinite(peak.multiply_add_peak(dtype, threads=2))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("kind", [peers.Reference, peers.Lean, peers.ScikitLearn])
def test_peers_come_to_the_same_parameters(kind, optimizer):
    pytest.importorskip("sklearn")
    task = tasks.Task((6, 4, 3), 5, steps=8, optimizer=optimizer)
    parameters = []
    for peer in (peers.Fastbp(task, *tasks.noise(task)), kind(task, *tasks.noise(task))):
        peer.steps(8)
        parameters.append(peer.params())
    for own, expected, start in zip(*parameters, tasks.noise(task)[2], strict=True):
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)
        assert not np.array_equal(own, start)


CONVOLUTIONAL = [
    tasks.Task(SimpleConvNet, 5, steps=3),
    tasks.Task(LeNet, 5, steps=3),
    tasks.Task(DeepConvNet, 5, steps=3, optimizer="Adam"),
]


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        (bench_peers.Book, "numpy"),
        (peers.Torch, "torch"),
        (peers.TorchChannelsLast, "torch"),
        (peers.Jax, "jax"),
        (peers.JaxScan, "jax"),
    ],
)
@pytest.mark.parametrize("task", CONVOLUTIONAL, ids=lambda task: task.name)
def test_peers_train_the_same_convolutional_network(task, kind, library):
    pytest.importorskip(library)
    given = tasks.noise(task)
    assert kind.takes(task)
    parameters = []
    for peer in (peers.Fastbp(task, *given), kind(task, *given)):
        peer.steps(3)
        parameters.append(peer.params())
    for own, expected, start in zip(*parameters, given[2], strict=True):
        assert own.shape == expected.shape
        # Rounding may move a pixel across ReLU's kink, or another pixel may be the largest of its window.
        assert np.mean(np.abs(own - expected) > 1e-5) < 0.01
        assert not np.array_equal(own, start)


def test_a_network_of_images_goes_to_the_peers_that_have_its_layers():
    taken = [kind.name for kind in bench_peers.PEERS if kind.takes(CONVOLUTIONAL[0])]
    assert taken == ["fastbp", "book", "PyTorch", "PyTorch NHWC", "t.compile", "JAX jit", "JAX scan"]
    assert not peers.TorchChannelsLast.takes(TASK)
    assert [kind.name for kind in bench_peers.PEERS if kind.takes(RUN)] == ["fastbp"]


RUN = tasks.Task(LeNet, 10, samples=20, optimizer="Adam", epochs=2)


def test_a_whole_run_is_one_figure(monkeypatch):
    monkeypatch.setattr(peers, "samples", lambda functions, **given: measure.samples(functions, **FAST | given))
    fitted = []
    monkeypatch.setattr(peers.Fastbp, "epochs", lambda self, count: fitted.append(count))
    found = peers.seconds_in_turns(RUN, bench_peers.PEERS, tasks.noise(RUN), {}, 2)
    assert found.keys() == {"fastbp"}
    assert fitted == [2, 2]
    assert RUN.name == "2 epochs of 20 LeNet, batch 10, Adam"


def test_dropout_is_left_out_and_told():
    assert [task.note for task in CONVOLUTIONAL] == ["", "", "without dropout"]
    assert not any(isinstance(layer, Dropout) for layer in CONVOLUTIONAL[2].stack())
    assert len(tasks.parameters(CONVOLUTIONAL[2])) == 16


@pytest.mark.parametrize("task", CONVOLUTIONAL, ids=lambda task: task.name)
def test_the_suite_and_fastbp_count_the_same_operations_of_images(task):
    filters, widths = images.NETWORKS[{"LeNet": "LeNet-5"}.get(task.network.__name__, task.network.__name__)]
    assert flops.of_training_on_images(28, filters, widths, task.batch) == task.flops


@pytest.mark.parametrize(
    ("task", "products"),
    [
        # Forward, by parameters, and by the input for all layers but the first.
        (CONVOLUTIONAL[0], 2 * 30 * 25 * 24**2 + 3 * (4320 * 100 + 100 * 10)),
        (CONVOLUTIONAL[1], 2 * 6 * 25 * 28**2 + 3 * (16 * 6 * 25 * 10**2 + 400 * 120 + 120 * 84 + 84 * 10)),
    ],
)
def test_the_operations_of_convolutions_are_counted(task, products):
    assert task.flops == 2 * 5 * products
    assert dataclasses.replace(task, steps=0, samples=20).flops == 4 * task.flops
    assert dataclasses.replace(task, steps=0, samples=20, epochs=3).flops == 12 * task.flops


def test_a_peer_that_computes_something_else_is_named(quick):
    class Lazy(peers.Lean):
        name = "lazy"

        def step(self, x, t):
            pass

    with pytest.raises(
        ValueError, match=r"lazy, step 6-4-3, batch 5, SGD: expected fastbp's parameters, got .*% others"
    ):
        peers.seconds_in_turns(TASK, (peers.Fastbp, Lazy), tasks.noise(TASK), {}, 2)


def test_bench_prints_a_row_for_each_task_and_why_a_peer_is_missing(quick, capsys):
    assert main(["bench"]) == 0
    out = capsys.readouterr().out
    assert machine.describe()["processor"] in out
    for row in ("step 6-4-3, batch 5, SGD  ", "epoch 6-4-3, batch 5, Adam "):
        assert row in out
    assert out.count(" ± ") == 1 + 2 * 3  # one is in the words above
    assert out.splitlines()[-1].startswith("PyTorch: ")


@pytest.mark.parametrize("options", [[], ["--as-users"]])
def test_a_turn_as_users_have_it_is_one_call_without_a_pause(options, quick, monkeypatch, capsys):
    pauses, order = [], []
    quiet = {"block": 0, "settling": 1e-6}
    monkeypatch.setattr(peers, "samples", lambda functions, **given: measure.samples(functions, **quiet | given))
    monkeypatch.setattr(measure.time, "sleep", pauses.append)
    monkeypatch.setattr(comparison, "ROUNDS_AS_USERS", 6)
    monkeypatch.setattr(peers, "_training", lambda peer, count: lambda: order.append(peer.name))
    assert main(["bench", *options]) == 0
    assert set(pauses) == ({0} if options else {measure.PAUSE, measure.LOOK})
    first, last = order[:3], order[-3:]
    if options:  # once to compile, then six rounds for either task
        assert first == last == ["fastbp", "reference", "NumPy"]
        assert order == 2 * 7 * first
    assert ("without pauses" in capsys.readouterr().out) is bool(options)


def row(**seconds):
    return comparison.Row(TASK, 1e-6, {name: list(values) for name, values in seconds.items()})


@pytest.fixture
def rows(quick, monkeypatch):
    """What `fastbp bench` finds, to be filled in."""
    found = []
    monkeypatch.setattr(comparison, "PEERS", (peers.Fastbp, peers.Reference, peers.Lean))
    monkeypatch.setattr(comparison.Comparison, "_measured", lambda *_: found.pop(0))
    return found


def test_bench_warns_of_figures_that_scatter(rows, capsys):
    """As once on a busy machine, where 15560 ± 1748 µs stood beside 821 without a word."""
    rows += [
        row(fastbp=[13000e-6, 13812e-6, 15560e-6, 17308e-6, 18000e-6], reference=[821e-6] * 5, NumPy=[900e-6] * 5),
        row(fastbp=[100e-6, 101e-6, 102e-6, 103e-6, 900e-6], reference=[821e-6] * 5, NumPy=[900e-6] * 5),
    ]
    assert main(["bench"]) == 0
    assert capsys.readouterr().err == (
        "fastbp: warning: step 6-4-3, batch 5, SGD: expected 5 turns that scatter by at most 10%, got "
        "fastbp 15560 ± 1748 µs; close other work and run again\n"
    )


def test_bench_warns_of_turns_that_a_busy_machine_leaves_out(rows, tmp_path, capsys):
    rows += [
        row(fastbp=[1e-3] * 2, reference=[1e-3] * 2),
        row(fastbp=[1e-3] * 5, reference=[1e-3] * 5, NumPy=[1e-3] * 5),
    ]
    assert main(["bench", "--json", str(tmp_path / "figures.json")]) == 0
    warning = (
        "step 6-4-3, batch 5, SGD: expected 5 turns that scatter by at most 10%, got 2 turns, NumPy none; "
        "close other work and run again"
    )
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["warnings"] == [warning]
    assert capsys.readouterr().err == f"fastbp: warning: {warning}\n"


@pytest.mark.parametrize("step", [1e-4, 0.003, 0.03, 0.3])
def test_bench_keeps_within_its_minute_and_a_half_however_busy_the_machine(step, monkeypatch):
    """On a clock that only building and training move: a step takes `step` seconds, and building a second."""
    now = 0.0

    class Slow(peers.Peer):
        def start(self, params):
            self.values = params
            self.spend(1 / step)

        def spend(self, steps):
            nonlocal now
            now += steps * step

        def steps(self, count):
            self.spend(count)

        def epochs(self, count):
            self.spend(count * len(self.batches))

        def params(self):
            return self.values

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(comparison, "PEERS", tuple(type(name, (Slow,), {"name": name}) for name in "abc"))
    found = comparison.Comparison(machine={"peak_flops": 1e9})
    list(found.run())
    assert now < 90
    complete = [row.task.name for row in found.rows if [len(turns) for turns in row.seconds.values()] == [5] * 3]
    doubtful = [warning.partition(":")[0] for warning in found.warnings]
    assert sorted(complete + doubtful) == sorted(task.name for task in comparison.TASKS)
    assert bool(doubtful) is (step > 0.001)


def test_bench_saves_every_figure_and_the_machine(quick, tmp_path, capsys):
    assert main(["bench", "--json", str(tmp_path / "figures.json")]) == 0
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert found["machine"]["libraries"]["numpy"] == np.__version__
    assert found["missing"].keys() == {"PyTorch"}
    for row in found["rows"]:
        assert row["seconds"].keys() == {"fastbp", "reference", "NumPy"}
        assert row["limit_seconds"] == row["multiply_add_flops"] / found["machine"]["peak_flops"]
        for figures in row["seconds"].values():
            assert 0 < figures["low"] <= figures["median"] <= figures["high"]
            assert len(figures["turns"]) == 2


def test_bench_draws_a_picture(quick, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "figures.svg"
    assert main(["bench", "--plot", str(path)]) == 0
    assert "<svg" in path.read_text(encoding="utf-8")


def test_ctrl_c_keeps_what_bench_has_measured(quick, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    run = comparison.Comparison.run

    def interrupted(self):
        yield next(run(self))
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison.Comparison, "run", interrupted)
    files = tmp_path / "figures.svg", tmp_path / "figures.json"
    assert main(["bench", "--plot", str(files[0]), "--json", str(files[1])]) == 130
    assert "<svg" in files[0].read_text(encoding="utf-8")
    assert len(json.loads(files[1].read_text(encoding="utf-8"))["rows"]) == 1
    assert capsys.readouterr().err.endswith("fastbp: interrupted after 1 rows\n")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_named_before_anything_is_measured(option, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["bench", option, str(tmp_path / "nowhere" / "a.svg")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fastbp: error: {option}: expected a folder {tmp_path / 'nowhere'}, got none there")


def test_the_suite_times_what_the_tests_hold_equal():
    assert set(kernels.Kernels.params[0]) == {case.name for case in cases.KERNELS}
    assert set(layers.Layers.params[0]) == {case.name for case in cases.LAYERS}


@pytest.mark.parametrize("module", [engine, graph, images, imports, kernels, layers, memory, mixed])
def test_every_benchmark_names_its_parameters_and_unit(module):
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, suite.Recorded)]
    found = [benchmark for benchmark in found if not inspect.isabstract(benchmark)]
    assert found
    for benchmark in found:
        assert len(benchmark.params) == len(benchmark.param_names)
        assert benchmark.unit
        assert len([name for name in dir(benchmark) if name.startswith("track_")]) == 1


def test_the_least_memory_counts_no_outputs_of_a_convolution_that_are_pooled_as_it_goes():
    parameters = 30 * (25 + 1) + (30 * 12 * 12 + 1) * 100 + (100 + 1) * 10
    sample = 4 * 784 + (2 * 4 + 1) * 30 * 12 * 12 + 2 * 4 * (100 + 10)
    assert memory.least_on_images("SimpleConvNet", 100) == 3 * 4 * parameters + 100 * sample


@pytest.fixture
def tiny(monkeypatch):
    """`bench.busy` and `bench.mixed` on the smallest sizes."""
    pytest.importorskip("sklearn")
    for name in ("torch", "jax"):
        monkeypatch.setitem(sys.modules, name, None)
    for module, sizes in {
        busy: {"TASK": tasks.Task((6, 4, 3), 5, samples=20), "LARGE": tasks.Task((6, 4, 3), 10, samples=20),
               "ROUNDS": 2, "SECONDS": 0, "PAUSE": 0, "AFTER": (0,), "COUNTING": 0.001, "_reasons": {},
               "CLASSIFIER": {"hidden_layer_sizes": (3,), "max_iter": 2, "random_state": 0},
               "bundled": lambda name: (np.random.default_rng(0).random((30, 4)), np.arange(30) % 3)},
        mixed: {"SIZE": 8, "AFTER": (0,), "STEPS": 1, "PREDICTED": 3, "ROUNDS": 2},
        engine: {"BATCHES": 1},
        images: {"BATCHES": 1, "BATCH": 4},
    }.items():  # fmt: skip
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize("name", images.EPOCHS)
def test_an_epoch_of_images_trains_its_network(name, tiny):
    fit = images.epoch(name, "float32")["fastbp"]
    network, x = fit.func.__self__, fit.args[0]
    before = network.params["W1"].copy()
    fit()
    assert type(network).__name__[:4] == name[:4]
    assert x.shape == (4, 1, 28, 28)
    assert network.params["W1"].dtype == np.float32
    assert not np.array_equal(network.params["W1"], before)


def test_accuracies_are_told_by_epoch_and_drawn(any_machine, monkeypatch, tmp_path, capsys):
    for library in ("sklearn", "matplotlib"):
        pytest.importorskip(library)
    monkeypatch.setattr(accuracy, "load_mnist", lambda folder, dtype: load_digits(dtype))
    monkeypatch.setattr(sys, "argv", ["accuracy", "--seconds", "0", "--plots", str(tmp_path / "plots")])
    accuracy.main()
    lines = capsys.readouterr().out.splitlines()
    assert "float32; 1,438 images to train, 359 others to test" in lines
    for name in ("simple-conv", "deep-conv"):  # no second is left after the first epoch
        (line,) = [line for line in lines if line.startswith(f"{name}, epoch")]
        assert line.split()[2] == "1"
        assert all(0 < float(value) < 1 for value in line.split()[4:6])
        assert (tmp_path / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


EPOCHS = ["fastbp", "1 thread", "all threads", "NumPy"]


def test_a_choice_takes_all_threads_where_bench_busy_asks_for_them():
    choice, found = ThreadChoice(), []
    choice.is_all = False
    busy.on_all_threads(lambda: (found.append(choice.next(5)), choice.note(1.0, 5)))()
    assert found == [(True, 5)]
    assert choice.next(5) == (False, 5)


@pytest.mark.parametrize(
    ("section", "rows"),
    {
        "quiet": [("epoch, quiet", EPOCHS)],
        "neighbour": [("epoch, beside a spinning process", EPOCHS)],
        "neighbours": [("epoch, beside two of them", EPOCHS)],
        "mixed": [
            ("epoch, 0 ms after", ["fastbp", "1 thread", "NumPy"]),
            ("predict, 10,000, 0 ms after", ["fastbp", "1 thread", "NumPy"]),
            ("20 steps by layers, batch 100, 0 ms after", ["fastbp", "1 thread", "NumPy"]),
            ("estimator, 10 iterations, 0 ms after", ["fastbp", "1 thread", "scikit-learn"]),
        ],
        "validation": [
            ("digits, a fold of five, quiet", ["fastbp", "1 thread", "scikit-learn"]),
            ("the same, beside a spinning process", ["fastbp", "1 thread", "scikit-learn"]),
        ],
        "counting": [
            (
                "a thread counts, millions/s, beside",
                ["alone", "fit, 1 thread", "fit", "layers, 1 thread", "layers"],
            )
        ],
    }.items(),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_section_of_a_busy_machine_has_its_rows_and_ratios(section, rows, tiny):
    found = list(busy.SECTIONS[section]())
    assert [(row.name, [*row.figures]) for row in found] == rows
    for row in found:
        assert row.ratios
        assert all(math.isfinite(ratio.value) for ratio in row.ratios)
        assert all(len(values) >= 2 and min(values) >= 0 for values in row.figures.values())


@pytest.fixture
def tiny_searches(tiny, monkeypatch):
    """`bench.searches` on the smallest sizes, without Dask."""
    for name, size in {
        "ROUNDS": 1, "SECONDS": 0, "PAUSE": 0, "EPOCHS": 1, "IMAGES": 20, "COPIED": (6, 4, 3),
        "bundled": busy.bundled, "table": lambda *_: busy.bundled("table"),
        "_clients": lambda _: iter(()),
    }.items():  # fmt: skip
        monkeypatch.setattr(searches, name, size)
    monkeypatch.setattr(searches, "available_cores", lambda: 4)


SEARCHED = ["serial", "serial, 1 thread", "threading", "loky"]
COPIED = ["copies of arrays", "deepcopy", "pickle of arrays", "pickle"]


@pytest.mark.parametrize(
    ("section", "rows"),
    {
        "search": [("digits, (50, 20)", SEARCHED), ("30,000 x 20, (64, 64)", SEARCHED)],
        "pool": [
            (
                "8 fits of 784-50-10, 1 epochs",
                ["one after the other", "the same, 1 thread", "2 Python threads", "4 Python threads"],
            )
        ],
        "copies": [("network and Adam, 0.0 MB", COPIED), ("estimator, 0.0 MB", COPIED)],
    }.items(),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_section_of_searches_has_its_rows_and_ratios(section, rows, tiny_searches):
    found = list(searches.SECTIONS[section]())
    assert [(row.name, [*row.figures]) for row in found] == rows
    assert all(row.ratios and all(ratio.value > 0 for ratio in row.ratios) for row in found)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to a core")
def test_half_a_core_is_a_control_group_or_a_shared_core(tiny, monkeypatch, capsys):
    for name in ("FASTBP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # threads that wait for each other may take minutes there
    (row,) = busy.container()
    shared = "no control group of half a core" in capsys.readouterr().out
    assert row.name.startswith("epoch, one core shared by two" if shared else "epoch, half a core (cpu.")
    assert [*row.figures] == EPOCHS


@pytest.fixture
def any_machine(monkeypatch):
    """A machine that takes no time to describe."""
    described = {"processor": "a CPU", "cores": 2, "vector_bits": 256, "threads": 2, "peak_flops": 2.34e11,
                 "libraries": {"numpy": "2.4", "numba": "0.68"}, "blas": "openblas"}  # fmt: skip
    monkeypatch.setattr(table, "machine", lambda: described)


def test_no_control_group_and_no_core_to_share_leave_the_container_out(any_machine, monkeypatch, tmp_path, capsys):
    places = [(tmp_path / "nowhere", "cpu.max", "50000 100000"), (tmp_path, "no/cpu.max", "50000 100000")]
    monkeypatch.setattr(busy, "groups", lambda: iter(places))
    monkeypatch.delattr(busy.os, "sched_setaffinity", raising=False)
    busy.main(["container"])
    reasons = [f"{folder / f'fastbp-busy-{busy.os.getpid()}' / file}: " for folder, file, _ in places]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("container: left out: ")]
    assert all(reason in line for reason in reasons)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_exported_prints_the_c_file_by_flags_against_predict(any_machine, monkeypatch, capsys):
    monkeypatch.setattr(exported, "ROUNDS", 1)
    monkeypatch.setattr(exported, "CALLS", 1)
    exported.main()
    rows = capsys.readouterr().out.splitlines()[-8:]
    names = ["predict", *(f"gcc {flags}" for flags in exported.FLAGS)] * 2
    assert [row[:57].strip().split(", ")[-1] for row in rows] == names
    assert sum("(at most 2.0:" in row for row in rows) == 4


def test_busy_prints_one_table_and_its_bars(any_machine, monkeypatch, capsys):
    figures = {"fastbp": [0.012, 0.014, 0.016], "1 thread": [0.010] * 3}
    row = busy.Row("epoch", figures, (busy.of_one_thread(figures, 1.15), busy.of_one_thread(figures, 1.5)))
    monkeypatch.setattr(busy, "SECTIONS", {"one": lambda: iter([row, row]), "two": lambda: iter([row])})
    busy.main([])
    captured = capsys.readouterr()
    header, *lines = captured.out.splitlines()[-4:]
    assert header.split() == ["fastbp", "1", "thread"]
    for line in lines:
        assert line.split()[:7] == ["epoch", "12.4", "14", "15.6", "10", "10", "10"]
        assert line.endswith("1.40 of 1 thread (at most 1.15: MISSED), 1.40 of 1 thread (at most 1.5: held)")
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == ["one", "two", "done"]


def test_searches_prints_its_ratios_below_a_row(any_machine, monkeypatch, capsys):
    row = busy.Row("search", {"serial": [0.01] * 3}, (table.Ratio(1.8, "times", at_least=1.7),))

    def missing():
        raise ImportError("dask: expected to be installed")

    monkeypatch.setattr(searches, "SECTIONS", {"one": lambda: iter([row]), "two": missing})
    monkeypatch.setenv("PYTHONWARNINGS", "")
    searches.main([])
    *_, head, shown, below, left_out = capsys.readouterr().out.splitlines()
    assert (head.split(), shown.split()) == (["serial"], ["search", "10", "10", "10"])
    assert below == "  1.80 times (at least 1.7: held)"
    assert left_out == "two: left out: dask: expected to be installed"


@pytest.mark.parametrize("script", [busy, searches])
def test_an_unknown_section_is_named(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["nothing"])
    assert f"SECTION: expected some of {', '.join(script.SECTIONS)}, got nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (table.Ratio(1.8, "times as fast"), "1.80 times as fast"),
        (table.Ratio(1.7, "times as fast", at_least=1.7), "1.70 times as fast (at least 1.7: held)"),
        (table.Ratio(1.6, "times as fast", at_least=1.7), "1.60 times as fast (at least 1.7: MISSED)"),
        (table.Ratio(1.1, "of 1 thread", at_most=1.1), "1.10 of 1 thread (at most 1.1: held)"),
        (table.Ratio(1.2, "of 1 thread", at_most=1.1), "1.20 of 1 thread (at most 1.1: MISSED)"),
        (table.Ratio(math.nan, "of 1 thread", at_most=1.1), "nan of 1 thread (at most 1.1: MISSED)"),
    ],
)
def test_a_ratio_tells_whether_it_holds_its_bar(ratio, text):
    assert str(ratio) == text
    assert ratio.is_held is ("MISSED" not in text)


def test_a_table_shows_the_machine_and_its_columns_and_rows(any_machine, capsys):
    table.print_machine("float32")
    shown = table.Table(("NumPy", "fastbp", "ratio"), "a call", names=12, width=9)
    shown.row("ReLU", table.duration(0.0123), table.duration(4.56789e-6), 2692.7, notes=["1 thread", "in turns"])
    shown.row("Affine", table.duration(2.5), table.duration(None), 0.12345)
    assert capsys.readouterr().out.splitlines() == [
        "a CPU, 2 cores, 256-bit vectors, 2 threads; multiply-add peak 234 GFLOP/s in float32",
        "numpy 2.4, numba 0.68; BLAS: openblas",
        "float32",
        "a call          NumPy   fastbp    ratio",
        "ReLU          12.3 ms  4.57 µs     2693  1 thread, in turns",
        "Affine          2.5 s        -    0.123",
    ]


@pytest.mark.parametrize("steps", [0, 3])
def test_the_suite_and_fastbp_count_the_same_operations(steps):
    task = tasks.Task((6, 4, 3), 5, steps=steps, samples=20)
    samples = task.batch if steps else task.samples
    assert flops.of_training(task.widths, samples) == task.flops
    # x·W and the gradient of W in either layer, and the gradient by the second layer's input.
    assert task.flops == 2 * samples * (2 * 6 * 4 + 3 * 4 * 3)


def test_the_tables_train_on_the_test_images(mnist_folder, monkeypatch):
    monkeypatch.setattr(mnist, "FOLDER", mnist_folder)
    x, t = mnist.images("float32", 10_003)
    np.testing.assert_array_equal(x[10_000:], x[:3])
    x, t = mnist.images("float32", 200)
    assert (x.shape, x.dtype, x.min(), x.max()) == ((200, 784), np.float32, 0, 1)
    assert t[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_noise_replaces_images_that_are_not_there(dtype, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "FOLDER", tmp_path / "nowhere")
    x, t = mnist.images(dtype, 50)
    assert (x.shape, x.dtype, t.shape) == ((50, 784), dtype, (50,))
    assert len(set(t.tolist())) > 5


def test_a_new_process_times_its_steps_one_after_another():
    first, second = processes.seconds("x = 1", "time.sleep(0.05 * x + y)", preparation="y = 0.01")
    assert 0 <= first < second
    assert second >= 0.06


def test_a_process_that_fails_raises_what_it_printed():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        processes.run("1 / 0")


def test_a_warm_cache_is_the_one_that_was_filled():
    code = (
        "import os, pathlib; path = pathlib.Path(os.environ['FASTBP_CACHE'], 'a'); print(path.exists()); path.touch()"
    )
    empty, warm = processes.empty_and_warm(functools.partial(processes.run, code), runs=2)
    assert (empty, warm) == ("False\n", ["True\n", "True\n"])


def test_busy_runs_the_sections_that_are_named(any_machine, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(busy, "SECTIONS", {name: lambda name=name: ran.append(name) or iter(()) for name in "abc"})
    busy.main(["c", "a"])
    assert ran == ["c", "a"]
    with pytest.raises(SystemExit):
        busy.main(["a", "other"])
    assert "SECTION: expected some of a, b, c, got other" in capsys.readouterr().err


def test_busy_leaves_out_what_would_begin_after_its_three_minutes(any_machine, monkeypatch, capsys):
    now = 0.0

    def slow():
        nonlocal now
        for name in ("first", "second"):
            now += busy.LAST + 1
            yield busy.Row(name, {"fastbp": [1.0]})

    monkeypatch.setattr(busy.time, "perf_counter", lambda: now)
    monkeypatch.setattr(busy, "SECTIONS", {"slow": slow, "late": slow})
    busy.main([])
    out = capsys.readouterr().out
    assert "slow: 160 s are over; further rows, if it has any, are left out" in out
    assert "late: left out, as 160 s are over; run it alone: python -m bench.busy late" in out
    assert "first" in out
    assert "second" not in out
    assert now == busy.LAST + 1


def test_a_spinning_process_ends_with_the_one_that_began_it():
    done = subprocess.run([sys.executable, "-c", busy.SPIN, "0", "-1"], timeout=60, check=False)
    assert done.returncode == 0


def test_mixed_times_every_call_after_a_product(tiny, monkeypatch):
    monkeypatch.setattr(mixed, "AFTER", (0, 1))
    found = mixed.setup_cache()
    assert found.keys() == {(name, after) for name in mixed.CALLS for after in (0, 1)}
    for seconds in found.values():
        assert {name: len(values) for name, values in seconds.items()} == {"fastbp": 2, "numpy": 2, "1 thread": 2}


def test_a_ratio_to_one_thread_is_against_it():
    benchmark = mixed.MixedThreadRatios()
    benchmark.setup({("x",): {"fastbp": [3.0], "numpy": [9.0], "1 thread": [2.0]}}, "x")
    assert benchmark.result()["samples"] == [1.5]


def test_the_suite_needs_nothing_but_fastbp_to_be_imported():
    run_python("""
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(["asv", "jax", "joblib", "matplotlib", "sklearn", "threadpoolctl", "torch"])
import bench
for module in pkgutil.iter_modules(bench.__path__):
    importlib.import_module(f"bench.{module.name}")
""")


def test_a_case_that_fails_is_told_and_the_others_are_timed():
    def fails():
        raise ValueError("broken")

    cases = {
        ("good",): lambda: {"fastbp": lambda: None, "numpy": lambda: None},
        ("broken",): fails,
        ("missing",): lambda: suite.missing_from(math, "cot"),
    }
    found = suite.in_turns(cases, **FAST)
    assert found["good",].keys() == {"fastbp", "numpy"}
    benchmark = kernels.KernelRatios()
    benchmark.setup(found, "good")
    assert len(benchmark.result()["samples"]) == 2
    with pytest.raises(RuntimeError, match="ValueError: broken"):
        benchmark.setup(found, "broken")
    with pytest.raises(NotImplementedError, match="math has no cot"):
        benchmark.setup(found, "missing")


def test_arrays_of_a_kernel_lie_at_the_same_place_of_a_page():
    arguments = (np.arange(1000.0), 3, np.arange(6, dtype=np.float32).reshape(2, 3))
    first, second = suite.placed(arguments), suite.placed(arguments)
    for one, other, given in zip(first, second, arguments, strict=True):
        np.testing.assert_array_equal(one, given)
        if isinstance(given, np.ndarray):
            assert one.dtype == given.dtype
            assert one.ctypes.data % suite.PAGE == other.ctypes.data % suite.PAGE
            assert not np.shares_memory(one, given)


def test_a_ratio_is_fastbps_time_against_numpys():
    benchmark = kernels.KernelRatios()
    benchmark.setup({("x",): {"fastbp": [1.0, 2.0], "numpy": [4.0, 4.0]}}, "x")
    assert benchmark.track_ratio("x")["samples"] == [0.25, 0.5]


def test_a_limit_is_a_multiple_of_the_least_time():
    benchmark = kernels.ProductLimits()
    benchmark.setup({("x",): {"fastbp": [1.0, 2.0]}, "least": {("x",): 0.5}}, "x")
    assert benchmark.track_times_limit("x")["samples"] == [2.0, 4.0]


@pytest.mark.parametrize(
    ("tries", "faults"),
    [([2], []), ([4, 2], []), ([4, 5, 6], ["f: expected at most 3 of NumPy's time, got 6.00"])],
)
def test_the_gate_names_a_call_that_takes_too_much_of_numpys_time_at_every_try(tries, faults, monkeypatch, capsys):
    pytest.importorskip("threadpoolctl")
    seconds = iter(tries)
    monkeypatch.setattr(suite, "in_turns", lambda cases, **_: {("f",): {"fastbp": [next(seconds)], "numpy": [1]}})
    monkeypatch.setattr(gate, "BOUNDS", {"f": (3, dict)})
    assert list(gate.slow()) == faults
    assert next(seconds, None) is None


def test_the_gate_runs_where_no_branch_is_checked_out(monkeypatch):
    def run(command, *arguments):
        if command == "run":
            settings.update(json.loads(Path(arguments[-1]).read_text(encoding="utf-8")))
        return 0

    settings = {}
    monkeypatch.setattr(gate, "_asv", run)
    monkeypatch.setattr(gate, "_without_figure", lambda path: iter(()))
    assert list(gate.unmeasured()) == []
    assert settings["branches"] == ["HEAD"]


def test_the_gate_names_a_call_that_fails(monkeypatch, capsys):
    pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(gate, "BOUNDS", {"division": (3, lambda: 1 / 0)})
    (fault,) = gate.slow()
    assert "division" in fault
    assert "ZeroDivisionError" in fault


PAGE = """<script src="https://code.jquery.com/jquery-3.3.1.min.js" integrity="sha" crossorigin="anonymous"></script>
<link rel="stylesheet" href="https://cdn.example/npm/bootstrap@3.1.1/dist/css/bootstrap.min.css" integrity="sha">
<a href="https://example.org/">a link</a>
<script src="asv.js"></script>
"""


def test_a_published_page_loads_its_scripts_from_its_own_folder(monkeypatch, tmp_path):
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")
    unpacked = []
    monkeypatch.setattr(publish, "unpack", lambda package, folder: unpacked.append((package, folder)))
    publish.bring_scripts(tmp_path)
    assert unpacked == [(name, tmp_path / "vendor" / name) for name in ("jquery@3.3.1", "bootstrap@3.1.1")]
    assert (tmp_path / "index.html").read_text(encoding="utf-8").splitlines() == [
        '<script src="vendor/jquery@3.3.1/dist/jquery.min.js"></script>',
        '<link rel="stylesheet" href="vendor/bootstrap@3.1.1/dist/css/bootstrap.min.css">',
        *PAGE.splitlines()[2:],
    ]


def test_a_script_that_nobody_knows_is_named(tmp_path):
    (tmp_path / "index.html").write_text('<script src="https://cdn.example/new.js"></script>', encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected scripts of SCRIPTS in publish.py, got https://cdn.example/new.js"):
        publish.bring_scripts(tmp_path)


def test_publishing_without_npm_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(publish.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"npm: expected to be installed, got nothing; install Node.js"):
        publish.unpack("jquery@3.3.1", tmp_path)
