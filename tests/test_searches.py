"""Searches by joblib and Dask: the numbers of a serial one, one kernel thread for each task, and an end."""

import contextlib
import pickle
import threading
import warnings
from concurrent.futures import Future

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

pytest.importorskip("sklearn")

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from fastbp import num_threads
from fastbp.engine import plan
from fastbp.sklearn import MLPClassifier, networks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
CLUSTERS = {
    "dask, processes": {"n_workers": 2, "threads_per_worker": 1, "processes": True},
    "dask, threads": {"n_workers": 1, "threads_per_worker": 2, "processes": False},
}
SECONDS = 120  # for what takes one or two


@pytest.fixture(scope="module", params=["loky", "threading", *CLUSTERS])
def backend(request):
    """The name of a backend of joblib that has two jobs."""
    if request.param not in CLUSTERS:
        yield request.param
        return
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(dashboard_address=None, **CLUSTERS[request.param]) as cluster,
        distributed.Client(cluster),
    ):
        yield "dask"


def within_seconds(function):
    """What `function` returns; fails if it comes to no end."""
    future = Future()

    def call():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future.result(SECONDS)


def in_two_jobs(backend, function, count):
    def call():
        with joblib.parallel_config(backend, n_jobs=2):
            return Parallel()(delayed(function)(number) for number in range(count))

    return within_seconds(call)


def searched(backend=None):
    grid = {"alpha": [1e-4, 1.0], "solver": ["adam", "sgd"]}
    search = GridSearchCV(MLPClassifier((20,), max_iter=6, dropout=0.2, random_state=0), grid, cv=3)
    with joblib.parallel_config(backend, n_jobs=2) if backend else contextlib.nullcontext():
        return search.fit(X, Y)


@pytest.fixture(scope="module")
def serial():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return searched()


def test_a_search_finds_the_numbers_of_a_serial_one(backend, serial):
    search = within_seconds(lambda: searched(backend))
    assert search.best_params_ == serial.best_params_
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(search.cv_results_["std_test_score"], serial.cv_results_["std_test_score"])
    np.testing.assert_array_equal(search.predict_proba(X), serial.predict_proba(X))


def bits(model):
    return b"".join(array.tobytes() for array in [*model.coefs_, *model.intercepts_])


def fit_of(seed):
    return bits(MLPClassifier((20,), max_iter=4, random_state=seed).fit(X, Y))


def test_a_task_learns_the_same_bits_as_here(backend):
    assert in_two_jobs(backend, fit_of, 5) == [fit_of(seed) for seed in range(5)]


def test_a_task_that_fails_says_so_and_the_next_search_works(backend):
    with pytest.raises(ZeroDivisionError):
        in_two_jobs(backend, lambda number: 1 // number, 3)
    assert in_two_jobs(backend, fit_of, 1) == [fit_of(0)]


# The kernel threads that a fit of this process asked for, and how many fits have begun.
asked, together = [], threading.Barrier(2, action=lambda: asked.append("together"))


def fit_beside_another(number):
    """A fit whose iterations begin with those of another one."""
    MLPClassifier((20,), max_iter=4, random_state=0).fit(X, Y, callbacks=lambda _: together.wait(SECONDS))


def most_threads(number):
    """The largest number of kernel threads that a fit asks for, on a machine of eight."""
    make = plan.team
    plan.team = lambda n: asked.append(n) or make(n)
    try:
        with num_threads(8):
            fit_of(number)
    finally:
        plan.team = make
    return max(asked)


@pytest.mark.parametrize("backend", ["loky", "dask, processes"], indirect=True)
def test_a_task_in_a_process_has_its_share_of_the_cores(backend):
    share = max(1, joblib.cpu_count() // 2) if backend == "loky" else 1
    assert in_two_jobs(backend, most_threads, 2) == [share] * 2


@pytest.mark.parametrize("backend", ["threading", "dask, threads"], indirect=True)
def test_two_tasks_in_one_process_of_two_cores_have_a_kernel_thread_each(backend, monkeypatch):
    asked.clear()
    make = plan.team
    monkeypatch.setattr(plan, "team", lambda n: asked.append(n) or make(n))
    monkeypatch.setattr(networks, "_openmp_effective_n_threads", lambda: 2)
    with num_threads(2):
        in_two_jobs(backend, fit_beside_another, 2)
    first, last = asked.index("together"), len(asked) - asked[::-1].index("together")
    assert {count for count in asked[first:last] if count != "together"} == {1}


def gone_on(model):
    return bits(model.partial_fit(X, Y).partial_fit(X, Y))


def test_a_model_in_the_midst_of_training_goes_on_in_a_task(backend):
    model = MLPClassifier((20,), random_state=0, dropout=0.3).partial_fit(X, Y, classes=range(10))
    found = in_two_jobs(backend, lambda _: gone_on(pickle.loads(pickle.dumps(model))), 2)
    assert found == [gone_on(model)] * 2


# dask-ml, which is not among what the tests install.


@pytest.fixture
def dask_ml():
    pytest.importorskip("dask_ml", reason="dask-ml is not installed")
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(dashboard_address=None, **CLUSTERS["dask, threads"]) as cluster,
        distributed.Client(cluster),
    ):
        yield


@pytest.mark.filterwarnings("ignore")  # those of dask-ml
def test_incremental_of_dask_ml_is_a_loop_over_blocks(dask_ml):
    from dask import array  # noqa: PLC0415
    from dask_ml.wrappers import Incremental  # noqa: PLC0415

    blocks = array.from_array(X, chunks=(100, 64)), array.from_array(Y, chunks=100)
    wrapped = Incremental(MLPClassifier((20,), random_state=0), shuffle_blocks=False).fit(*blocks, classes=range(10))
    model = MLPClassifier((20,), random_state=0)
    for start in range(0, len(X), 100):
        model.partial_fit(X[start : start + 100], Y[start : start + 100], classes=range(10))
    np.testing.assert_array_equal(wrapped.estimator_.predict_proba(X), model.predict_proba(X))


@pytest.mark.filterwarnings("ignore")
def test_hyperband_of_dask_ml_finds_a_model(dask_ml):
    from dask_ml.model_selection import HyperbandSearchCV  # noqa: PLC0415
    from sklearn import neural_network  # noqa: PLC0415

    def hyperband(kind):
        grid = {"alpha": [1e-4, 1e-3], "learning_rate_init": [0.003, 0.01]}
        return HyperbandSearchCV(kind((20,), random_state=0), grid, max_iter=9, random_state=0)

    try:
        hyperband(neural_network.MLPClassifier).fit(X, Y, classes=range(10))
    except Exception as error:
        pytest.skip(f"dask-ml and Dask do not work together here, whatever the estimator: {error}")
    assert hyperband(MLPClassifier).fit(X, Y, classes=range(10)).best_score_ > 0.5
