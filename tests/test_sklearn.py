"""The estimators give the numbers of the installed scikit-learn: losses, parameters and predictions to 1e-8."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MODULES = neural_network, fastbp.sklearn
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
SOLVERS = {
    "adam": {"solver": "adam"},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.02},
    "momentum, invscaling": {
        "solver": "sgd",
        "nesterovs_momentum": False,
        "momentum": 0.5,
        "learning_rate": "invscaling",
        "power_t": 0.3,
    },
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.02, "n_iter_no_change": 2},
    "lbfgs": {"solver": "lbfgs"},
}


def digits(samples=300):
    X, y = load_digits(return_X_y=True)
    return X[:samples] / 16, y[:samples]


def task(name):
    """The class of an estimator, its arguments, and samples with their targets."""
    X, y = digits()
    if name == "classes":
        return "MLPClassifier", {}, X, y.astype(str)
    if name == "two classes":
        return "MLPClassifier", {}, X, y > 4
    if name == "labels":
        return "MLPClassifier", {}, X, np.c_[y > 4, y % 2, y == 3].astype(int)
    X, y = load_diabetes(return_X_y=True)
    X, y = 10 * X[:300], y[:300] / 100
    if name == "outputs":
        return "MLPRegressor", {}, X, np.c_[y, X[:, 2]]
    return "MLPRegressor", {"loss": "poisson"} if name == "counts" else {}, X, y


TASKS = ["classes", "two classes", "labels", "numbers", "outputs", "counts"]


def both(name, **settings):
    """scikit-learn's estimator and fastbp's, not fitted."""
    return [getattr(module, name)(**{"random_state": 3, **settings}) for module in MODULES]


def outputs(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


def assert_same_fit(theirs, ours, X, rtol=1e-8):
    assert theirs.n_iter_ == ours.n_iter_
    assert theirs.t_ == ours.t_
    assert theirs.out_activation_ == ours.out_activation_
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=rtol)
    if hasattr(theirs, "loss_curve_"):
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol)
        np.testing.assert_equal(ours.validation_scores_, theirs.validation_scores_)
        np.testing.assert_equal(ours.best_validation_score_, theirs.best_validation_score_)
        if theirs.best_loss_ is not None:
            np.testing.assert_allclose(ours.best_loss_, theirs.best_loss_, rtol=rtol)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * np.abs(other).max())
    mine, other = outputs(ours, X), outputs(theirs, X)
    assert mine.shape == other.shape
    assert mine.dtype == other.dtype
    np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * np.abs(other).max())


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_activation_and_kind_of_target(solver, activation, name):
    kind, settings, X, y = task(name)
    settings |= {"hidden_layer_sizes": (13, 7), "activation": activation, "max_iter": 20, "alpha": 0.01}
    theirs, ours = (estimator.fit(X, y) for estimator in both(kind, batch_size=64, **settings, **SOLVERS[solver]))
    assert_same_fit(theirs, ours, X)
    np.testing.assert_array_equal(
        ours.predict(X) if "MLPC" in kind else [], theirs.predict(X) if "MLPC" in kind else []
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": 9},
        {"hidden_layer_sizes": [30, 1, 2]},
        {"batch_size": 1, "max_iter": 3},
        {"batch_size": 299},
        {"shuffle": False},
        {"epsilon": 1e-3, "beta_1": 0.5, "beta_2": 0.9},
        {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4},
        {"solver": "sgd", "momentum": 0},
        {"tol": 0.2, "n_iter_no_change": 2},
    ],
    ids=str,
)
def test_every_setting(settings):
    X, y = digits()
    theirs, ours = (estimator.fit(X, y) for estimator in both("MLPClassifier", **{"max_iter": 20, **settings}))
    assert_same_fit(theirs, ours, X)


def test_losses_of_probabilities_that_round_to_0_and_1():
    X, y = load_breast_cancer(return_X_y=True)  # not scaled: the first losses are large
    theirs, ours = (estimator.fit(X, y) for estimator in both("MLPClassifier", max_iter=20))
    assert theirs.loss_curve_[0] > 10
    assert_same_fit(theirs, ours, X)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sample_weights(name, solver):
    kind, settings, X, y = task(name)
    weights = np.random.default_rng(0).exponential(size=len(y)) + 0.1
    settings |= {"max_iter": 10, "batch_size": 64, "solver": solver, "hidden_layer_sizes": (8,)}
    theirs, ours = (estimator.fit(X, y, weights) for estimator in both(kind, **settings))
    assert_same_fit(theirs, ours, X)


def test_a_batch_without_weight_is_refused_as_there():
    X, y = digits()
    for estimator in both("MLPClassifier", batch_size=10, shuffle=False):
        with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
            estimator.fit(X, y, np.arange(len(y)) >= 20)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_early_stopping(name, is_weighted):
    kind, settings, X, y = task(name)
    weights = np.random.default_rng(0).random(len(y)) + 0.1 if is_weighted else None
    settings |= {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3, "tol": 0.01, "batch_size": 50}
    theirs, ours = (estimator.fit(X, y, weights) for estimator in both(kind, **settings))
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-8)
    ours.validation_scores_, ours.best_validation_score_ = theirs.validation_scores_, theirs.best_validation_score_
    assert_same_fit(theirs, ours, X)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["classes", "two classes", "labels", "numbers"])
def test_partial_fit(name, solver):
    kind, settings, X, y = task(name)
    theirs, ours = both(kind, solver=solver, learning_rate="invscaling", **settings)
    for estimator in (theirs, ours):
        for part in range(6):
            rows = slice(part * 50, (part + 1) * 50)
            classes = np.arange(3) if name == "labels" else np.unique(y)
            first = {"classes": classes} if part == 0 and kind == "MLPClassifier" else {}
            estimator.partial_fit(X[rows], y[rows], **first)
    assert_same_fit(theirs, ours, X)


def test_warm_start():
    X, y = digits()
    theirs, ours = both("MLPClassifier", warm_start=True, max_iter=4)
    for estimator in (theirs, ours):
        for _ in range(3):
            estimator.fit(X, y)
    assert len(ours.loss_curve_) == 12
    assert_same_fit(theirs, ours, X)


def test_a_generator_and_numpys_global_one_as_random_state():
    X, y = digits()
    theirs, ours = (
        estimator.set_params(random_state=np.random.RandomState(7)).fit(X, y)
        for estimator in both("MLPClassifier", max_iter=3)
    )
    assert_same_fit(theirs, ours, X)
    fitted = []
    for estimator in both("MLPClassifier", max_iter=3, random_state=None):
        np.random.seed(5)
        fitted.append(estimator.fit(X, y))
    assert_same_fit(*fitted, X)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_sparse_samples_give_what_dense_ones_give(solver, layout, monkeypatch):
    X, y = digits()
    settings = {"solver": solver, "max_iter": 5, "random_state": 0, "batch_size": 50}
    dense = fastbp.sklearn.MLPClassifier(**settings).fit(X, y)
    monkeypatch.setattr("fastbp.sklearn.networks.DENSE", 120 * X.shape[1])
    monkeypatch.setattr("fastbp.sklearn.prediction.DENSE", 120 * X.shape[1])
    sparse = fastbp.sklearn.MLPClassifier(**settings).fit(scipy.sparse.csr_array(X).asformat(layout), y)
    np.testing.assert_array_equal(sparse.loss_, dense.loss_)
    np.testing.assert_array_equal(sparse.predict_proba(scipy.sparse.csr_array(X)), dense.predict_proba(X))
    weighted = [
        fastbp.sklearn.MLPClassifier(**settings).fit(samples, y, y + 1.0).loss_
        for samples in (X, scipy.sparse.csr_array(X))
    ]
    assert weighted[0] == weighted[1] != dense.loss_


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", ["classes", "numbers"])
def test_float32_stays_float32(name, solver):
    kind, settings, X, y = task(name)
    X = X.astype(np.float32)
    theirs, ours = (estimator.fit(X, y) for estimator in both(kind, solver=solver, max_iter=5, **settings))
    assert {array.dtype for array in ours.coefs_ + ours.intercepts_} == {np.dtype(np.float32)}
    assert outputs(ours, X).dtype == np.float32
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-4)
    np.testing.assert_allclose(outputs(ours, X.astype(float)), outputs(theirs, X.astype(float)), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda X: X[:, ::-1], lambda X: X.astype(">f8")], ids=["F", "-", ">"]
)
def test_samples_in_any_layout(layout):
    X, y = digits()
    theirs, ours = (estimator.fit(layout(X), y) for estimator in both("MLPClassifier", max_iter=3))
    assert_same_fit(theirs, ours, layout(X))


def test_predictions_keep_the_rules_of_dtypes():
    X, y = digits()
    theirs, ours = (estimator.fit(X.astype(np.float32), y) for estimator in both("MLPClassifier", max_iter=2))
    for dtype in (np.float16, np.float32, np.float64, np.uint8, bool):
        assert ours.predict_proba(X.astype(dtype)).dtype == theirs.predict_proba(X.astype(dtype)).dtype
    np.testing.assert_allclose(ours.predict_proba(X[:3]), ours.predict_proba(X)[:3], rtol=1e-12)
    assert ours.predict_log_proba(X).max() < 0


def test_a_diverging_fit_with_early_stopping_ends_as_there():
    X, y = load_diabetes(return_X_y=True)
    settings = {"activation": "identity", "solver": "sgd", "learning_rate_init": 1, "early_stopping": True}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs, ours = (estimator.fit(X, y) for estimator in both("MLPRegressor", max_iter=20, **settings))
    assert np.isnan(ours.validation_scores_[-1])
    np.testing.assert_allclose(ours.best_validation_score_, theirs.best_validation_score_)


def test_it_warns_that_it_did_not_converge_and_that_a_batch_was_too_large():
    X, y = digits(50)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        fastbp.sklearn.MLPClassifier(max_iter=2).fit(X, y)
    with pytest.warns(UserWarning, match="It is going to be clipped"):
        fastbp.sklearn.MLPClassifier(max_iter=2, batch_size=51).fit(X, y)


def test_verbose_prints_what_scikit_learn_prints(capsys):
    X, y = digits(50)
    for settings in ({}, {"early_stopping": True}, {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0}):
        printed = []
        for estimator in both("MLPClassifier", max_iter=40, n_iter_no_change=2, verbose=True, **settings):
            estimator.fit(X, y)
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] != ""
