"""The same numbers for any number of threads, and no harm among threads, forks and processes."""

import os

import numpy as np
import pytest

from fastbp import TwoLayerNet, get_num_threads, num_threads, set_num_threads
from fastbp.optimizers import SGD
from tests.subprocesses import run_python

# A step large enough for parallel regions, and the bytes of what it gives.
STEP = """
import hashlib, os, threading
import numpy as np
import fastbp
def step():
    rng = np.random.default_rng(0)
    network = fastbp.TwoLayerNet(784, 64, 10, seed=0)
    x, t = rng.random((128, 784)), rng.integers(0, 10, 128)
    gradients = network.gradient(x, t)
    network.layers["Affine1"].backward(network.layers["Affine1"].forward(x))
    return hashlib.sha256(b"".join(g.tobytes() for g in gradients.values())).hexdigest()
"""


@pytest.fixture(scope="module")
def expected():
    return run_python(STEP + "fastbp.set_num_threads(1); print(step())")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_bitwise_the_same_for_any_number_of_threads(dtype, rng):
    x, t = rng.random((101, 784)).astype(dtype), rng.integers(0, 10, 101)
    trained = []
    for n in (1, 2, 3, 7):
        with num_threads(n):
            network, optimizer = TwoLayerNet(784, 50, 10, dtype=dtype, seed=0), SGD(0.1)
            for _ in range(5):
                gradients = network.gradient(x, t)
                optimizer.update(network.params, gradients)
            dx = network.layers["Affine1"].backward(network.layers["Affine1"].forward(x))
            trained.append([*network.params.values(), *gradients.values(), dx])
    for other in trained[1:]:
        for a, b in zip(trained[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_three_real_threads_give_the_same(expected):
    assert run_python(STEP + "print(step())", NUMBA_NUM_THREADS=3) == expected


def test_the_number_of_threads_is_set_for_a_while_or_for_good():
    before = get_num_threads()
    with num_threads(1):
        assert get_num_threads() == 1
        set_num_threads(np.int64(5))
        assert type(get_num_threads()) is int
    assert get_num_threads() == before


def test_any_large_number_of_threads_is_as_good_as_all_cores(expected):
    assert run_python(STEP + "fastbp.set_num_threads(10**30); print(step())") == expected


def test_the_environment_sets_the_number_of_threads():
    show = "import fastbp; print(fastbp.get_num_threads())"
    assert run_python(show, FASTBP_NUM_THREADS=3) == "3"
    assert run_python(show, NUMBA_NUM_THREADS=1, FASTBP_NUM_THREADS="") == "1"
    refuse = "try: import fastbp\nexcept ValueError as error: print(error)"
    assert run_python(refuse, FASTBP_NUM_THREADS="two").startswith("FASTBP_NUM_THREADS: expected a whole number")


def test_several_python_threads_at_once(expected):
    code = """
results = []
threads = [threading.Thread(target=lambda: [results.append(step()) for _ in range(20)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(results) == 80
print(*set(results))
"""
    assert run_python(STEP + code) == expected


FORK = """
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, step().encode())
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
print(os.read(read, 100).decode())
"""


@pytest.mark.parametrize("before", ["", "step()\n"], ids=["before", "after"])
def test_a_fork_before_and_after_parallel_kernels_ran(expected, before):
    assert run_python(STEP + before + FORK) == expected


def test_a_fork_while_another_thread_is_in_a_kernel(expected):
    code = """
stop = threading.Event()
def work():
    while not stop.is_set(): step()
worker = threading.Thread(target=work)
step(); worker.start()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which this is about
for _ in range(10):
    child = os.fork()
    if child == 0:
        step()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set(); worker.join()
print(step())
"""
    assert run_python(STEP + code) == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(expected, method, tmp_path):
    script = tmp_path / "steps.py"
    script.write_text(STEP + "def work(_): return step()\n")
    code = f"""
import sys, multiprocessing
sys.path.insert(0, {str(tmp_path)!r})
import steps
steps.step()
with multiprocessing.get_context({method!r}).Pool(2) as pool:
    print(*set(pool.map(steps.work, range(4))))
"""
    assert run_python(code) == expected


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(expected, backend, tmp_path):
    pytest.importorskip("joblib", reason="joblib comes with scikit-learn, of the demo extra")
    script = tmp_path / "steps.py"
    script.write_text(STEP)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import joblib, steps
steps.step()
print(*set(joblib.Parallel(n_jobs=2, backend={backend!r})(joblib.delayed(steps.step)() for _ in range(4))))
"""
    assert run_python(code) == expected


LEAVING = """
fastbp.set_num_threads(2)
with fastbp.num_threads(3):
    step()
    child = os.fork()
    if child == 0:
        assert fastbp.get_num_threads() == 1
if child == 0:
    assert fastbp.get_num_threads() == 2
    assert step() == EXPECTED
    fastbp.set_num_threads(3)
    assert step() == EXPECTED
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(step())
"""


def test_a_forked_child_may_set_threads_of_its_own(expected):
    assert run_python(STEP + LEAVING.replace("EXPECTED", repr(expected))) == expected


COMPILING = """
import signal
from numba.core.compiler_lock import global_compiler_lock
def work():
    network = fastbp.TwoLayerNet(784, 64, 10, seed=0)
    x, t = np.random.default_rng(0).random((128, 784)), np.arange(128) % 10
    network.fit(x, t, seed=0, verbose=False)
    network.predict(x)
    return step()
fastbp.set_num_threads(THREADS)
work()
held, done = threading.Event(), threading.Event()
def compile():
    with global_compiler_lock:
        held.set()
        done.wait()
compiler = threading.Thread(target=compile)
compiler.start(); held.wait()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which this is about
child = os.fork()
if child == 0:
    signal.alarm(20)
    fastbp.set_num_threads(THREADS)
    os._exit(work() != EXPECTED)
_, status = os.waitpid(child, 0)
done.set(); compiler.join()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("threads", [1, 4])
def test_a_fork_while_another_thread_compiles_leaves_the_child_all_that_is_compiled(expected, threads):
    code = COMPILING.replace("EXPECTED", repr(expected)).replace("THREADS", str(threads))
    assert run_python(STEP + code) == "0"


def test_no_library_of_threads_is_loaded(expected):
    code = """
print(step())
maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else ""
assert "libgomp" not in maps and "omppool" not in maps and "workqueue" not in maps
"""
    assert run_python(STEP + code) == expected


def test_a_thread_that_computes_in_python_goes_on_beside_a_kernel():
    code = """
import numpy as np, threading, time, fastbp
from fastbp.layers import Affine
fastbp.set_num_threads(1)
rng = np.random.default_rng(0)
layer = Affine(rng.random((1500, 1500)), rng.random(1500))
x = rng.random((3000, 1500))
layer.forward(x[:300])
turns, inside = [], threading.Event()
def count():
    while not inside.is_set(): turns.append(time.perf_counter())
thread = threading.Thread(target=count)
thread.start()
start = time.perf_counter()
layer.forward(x)
stop = time.perf_counter()
inside.set(); thread.join()
middle = [turn for turn in turns if start + 0.25 * (stop - start) < turn < start + 0.75 * (stop - start)]
print(len(middle) > 0)
"""
    assert run_python(code) == "True"


def test_several_threads_start_the_pool_at_once(expected):
    code = """
results = []
threads = [threading.Thread(target=lambda: results.append(step())) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
names = [thread.name for thread in threading.enumerate() if thread.name.startswith("fastbp")]
assert len(names) == 2, names
print(*set(results))
"""
    assert run_python(STEP + "fastbp.set_num_threads(3)\n" + code, NUMBA_NUM_THREADS=3) == expected


def test_kernels_run_without_helpers_where_no_thread_can_be_started(expected):
    code = """
def refuse(self): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
print(step())
"""
    assert run_python(STEP + code) == expected
