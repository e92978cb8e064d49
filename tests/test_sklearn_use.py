"""The estimators inside scikit-learn: its checks, pipelines, searches, copies, files and processes."""

import copy
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import fastbp
from fastbp.sklearn import MLPClassifier, MLPRegressor
from tests.subprocesses import ROOT, run_python

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# scikit-learn's own classifier has no decision_function either, of which one check asks the format.
NOT_FOR_IT = {"check_classifiers_multilabel_output_format_decision_function"}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


@pytest.fixture(scope="module")
def fitted(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MLPClassifier((20,), max_iter=15, random_state=0).fit(*digits)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_check_estimator(kind):
    code = f"""
        import warnings
        from sklearn.utils.estimator_checks import check_estimator
        from fastbp.sklearn import {kind}
        warnings.simplefilter("ignore")
        results = check_estimator({kind}(), on_fail=None, on_skip=None)
        assert len(results) > 50
        print(sorted({{r["check_name"] for r in results if r["status"] != "passed"}}))
    """
    left = run_python("\n".join(line[8:] for line in code.splitlines()), SCIPY_ARRAY_API="1")
    assert set(eval(left)) <= NOT_FOR_IT


# It evaluates the loss with scikit-learn's private _loss_grad_lbfgs, whose index of the parameters no kernel keeps.
OF_PRIVATE_NAMES = ["test_gradient"]


def test_scikit_learns_own_tests_pass(tmp_path):
    theirs = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
    imported = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
    source = theirs.read_text(encoding="utf-8")
    assert source.count(imported) == 1
    ours = imported.replace("sklearn.neural_network", "fastbp.sklearn")
    (tmp_path / "test_mlp.py").write_text(source.replace(imported, ours), encoding="utf-8")
    left_out = [f"--deselect=test_mlp.py::{name}" for name in OF_PRIVATE_NAMES]
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "sklearn.conftest", "--rootdir=.", "test_mlp.py", *left_out]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "FASTBP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^[5-9]\d passed, {len(OF_PRIVATE_NAMES)} deselected", done.stdout, re.MULTILINE), done.stdout


def test_a_pipeline_and_its_parameters(digits):
    X, y = digits
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier((20,), learning_rate_init=0.02, max_iter=20, random_state=0)
    )
    assert pipeline.fit(X, y).score(X, y) > 0.9
    pipeline.set_params(mlpclassifier__alpha=0.5)
    assert clone(pipeline).get_params()["mlpclassifier__alpha"] == 0.5


def test_a_grid_search_in_two_processes_finds_what_scikit_learns_own_finds(digits):
    X, y = digits
    grid = {"hidden_layer_sizes": [(5,), (20,)], "alpha": [1e-4, 1.0]}
    scores = []
    for kind in (neural_network.MLPClassifier, MLPClassifier):
        search = GridSearchCV(kind(max_iter=8, random_state=0), grid, cv=3, n_jobs=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores.append(search.fit(X, y).cv_results_["mean_test_score"])
    np.testing.assert_allclose(*scores, rtol=1e-12)


def test_meta_estimators(digits):
    X, y = digits
    model = MLPClassifier((20,), learning_rate_init=0.02, max_iter=20, random_state=0)
    assert cross_val_score(model, X, y, cv=3).mean() > 0.7
    assert CalibratedClassifierCV(model, cv=2).fit(X, y).score(X, y) > 0.8
    assert VotingClassifier([("a", model), ("b", clone(model).set_params(random_state=1))]).fit(X, y).score(X, y) > 0.8
    assert VotingClassifier([("a", model)], voting="soft").fit(X, y).predict_proba(X).shape == (400, 10)


def test_copies_predict_the_same_and_go_on_the_same_way(digits, fitted):
    X, y = digits
    expected = fitted.predict_proba(X)
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        np.testing.assert_array_equal(
            other.partial_fit(X, y).predict_proba(X), copy.deepcopy(fitted).partial_fit(X, y).predict_proba(X)
        )
    blank = clone(fitted)
    assert blank.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        blank.predict(X)


def test_a_memory_mapped_file(digits, fitted, tmp_path):
    X, y = digits
    joblib.dump(fitted, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(mapped.coefs_[0], np.memmap)
    np.testing.assert_array_equal(mapped.predict_proba(X), fitted.predict_proba(X))
    joblib.dump(X, tmp_path / "X.joblib")
    np.testing.assert_array_equal(mapped.predict(joblib.load(tmp_path / "X.joblib", mmap_mode="r")), fitted.predict(X))
    np.testing.assert_array_equal(
        mapped.partial_fit(X, y).predict_proba(X), copy.deepcopy(fitted).partial_fit(X, y).predict_proba(X)
    )


def test_pandas_tables_and_their_names():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    model = MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0).fit(X, y)
    assert list(model.feature_names_in_) == list(X.columns)
    assert model.n_features_in_ == 10
    np.testing.assert_array_equal(
        model.predict(X),
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0).fit(X.to_numpy(), y).predict(X.to_numpy()),
    )
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.predict(X.to_numpy())
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X.rename(columns={"age": "years"}))
    text = pd.Series(np.where(y > 150, "high", "low"), name="state")
    assert set(MLPClassifier((5,), max_iter=5).fit(X, text).predict(X)) <= {"high", "low"}


def test_set_output_in_a_pipeline():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0)
    ).set_output(transform="pandas")
    assert list(pipeline.fit(X, y)[-1].feature_names_in_) == list(X.columns)


def test_edited_parameters_count(digits, fitted):
    X, _ = digits
    model = copy.deepcopy(fitted)
    model.coefs_[-1][:] = 0
    model.intercepts_[-1] = np.log(np.arange(1.0, 11.0))
    np.testing.assert_allclose(model.predict_proba(X)[0], np.arange(1, 11) / 55, rtol=1e-12)


def test_a_worker_of_joblib_uses_its_share_of_the_cores():
    assert (
        Parallel(n_jobs=2)(delayed(fastbp.get_num_threads)() for _ in range(2)) == [max(1, joblib.cpu_count() // 2)] * 2
    )


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_of_threadpoolctl_holds_and_changes_no_bit(limit, digits, fitted, monkeypatch):
    teams = []
    make = fastbp.runtime.threads.team
    monkeypatch.setattr("fastbp.runtime.threads.team", lambda n: teams.append(n) or make(n))
    X, y = digits
    with threadpool_limits(limit):
        model = MLPClassifier((20,), max_iter=15, random_state=0).fit(X, y)
        probabilities = model.predict_proba(X)
    assert max(teams) <= limit
    np.testing.assert_array_equal(probabilities, fitted.predict_proba(X))


def test_threads_that_fit_at_once(digits):
    X, y = digits

    def fit(seed):
        return MLPClassifier((20,), max_iter=5, random_state=seed).fit(X, y).loss_

    alone = [fit(seed) for seed in range(4)]
    assert Parallel(n_jobs=4, backend="threading")(delayed(fit)(seed) for seed in range(4)) == alone


def test_importing_fastbp_imports_no_scikit_learn():
    code = "import sys, fastbp; print('sklearn' in sys.modules)"
    assert run_python(code) == "False"


def test_without_scikit_learn_the_import_says_what_to_install():
    code = """
import sys
sys.modules["sklearn"] = None
try:
    import fastbp.sklearn
except ImportError as error:
    print(error)
"""
    assert 'pip install "scikit-learn>=1.9"' in run_python(code)
