"""The same numbers for any number of threads, and no harm among threads, forks and processes."""

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


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_several_python_threads_at_once(expected, layer):
    code = """
results = []
threads = [threading.Thread(target=lambda: [results.append(step()) for _ in range(20)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(results) == 80
print(*set(results))
"""
    assert run_python(STEP + code, NUMBA_THREADING_LAYER=layer) == expected


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
