"""The estimators give the numbers of the installed scikit-learn: losses, parameters and predictions to 1e-8."""

import copy
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score, learning_curve

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
def test_float32_is_fitted_in_the_width_that_scikit_learn_gives_it(name, solver):
    kind, settings, X, y = task(name)
    X = X.astype(np.float32)
    theirs, ours = (estimator.fit(X, y) for estimator in both(kind, solver=solver, max_iter=5, **settings))
    widths = {array.dtype for array in ours.coefs_ + ours.intercepts_}
    assert widths == {array.dtype for array in theirs.coefs_ + theirs.intercepts_}
    assert widths == {np.dtype(np.float64 if solver == "lbfgs" else np.float32)}
    assert outputs(ours, X).dtype == outputs(theirs, X).dtype == widths.pop()
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


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("label", [7, "only", True])
def test_one_class_alone(solver, label):
    X, _ = digits(60)
    y = np.full(60, label)
    weights = np.random.default_rng(0).random(60) + 0.1
    for sample_weight in (None, weights):
        theirs, ours = (
            estimator.fit(X, y, sample_weight) for estimator in both("MLPClassifier", solver=solver, max_iter=10)
        )
        assert_same_fit(theirs, ours, X)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    balanced = fastbp.sklearn.MLPClassifier(class_weight="balanced", solver=solver, max_iter=10, random_state=3)
    np.testing.assert_allclose(balanced.fit(X, y).loss_, clone(balanced).set_params(class_weight=None).fit(X, y).loss_)


def test_one_class_alone_with_early_stopping_and_in_parts():
    X, _ = digits(60)
    y = np.full(60, 7)
    theirs, ours = (estimator.fit(X, y) for estimator in both("MLPClassifier", early_stopping=True, max_iter=5))
    assert_same_fit(theirs, ours, X)
    for classes in ([7], [6, 7]):
        theirs, ours = both("MLPClassifier")
        for estimator in (theirs, ours):
            for _ in range(3):
                estimator.partial_fit(X, y, classes=classes)
        assert_same_fit(theirs, ours, X)


def test_folds_that_hold_one_class_are_scored_as_there():
    X, y = digits(60)
    y, folds = np.sort(y > 4), KFold(2)
    theirs, ours = both("MLPClassifier", max_iter=5)
    for estimator in (theirs, ours):
        assert np.isfinite(cross_val_score(estimator, X, y, cv=folds)).all()
    scores = [
        learning_curve(estimator, X, y, cv=folds, train_sizes=[10, 30], error_score="raise")[2]
        for estimator in (theirs, ours)
    ]
    np.testing.assert_array_equal(*scores)


def of_dtype(dtype):
    return lambda model: [setattr(model, name, [a.astype(dtype) for a in getattr(model, name)]) for name in PARAMETERS]


def replaced(name, number, array):
    return lambda model: getattr(model, name).__setitem__(number, copy.copy(array))


PARAMETERS = "coefs_", "intercepts_"
EDITS = {
    "longdouble": of_dtype(np.longdouble),
    "big-endian": of_dtype(">f8"),
    "big-endian float32": of_dtype(">f4"),
    "float32": of_dtype(np.float32),
    "float16": of_dtype(np.float16),
    "integers": of_dtype(int),
    "objects": of_dtype(object),
    "complex": of_dtype(complex),
    "fortran": lambda model: [setattr(model, "coefs_", [np.asfortranarray(W) for W in model.coefs_])],
    "one of float32": replaced("coefs_", 1, np.ones((6, 3), np.float32)),
    "intercepts of float32": replaced("intercepts_", 0, np.ones(6, np.float32)),
    "intercepts of integers": replaced("intercepts_", 0, np.ones(6, int)),
    "complex intercepts": replaced("intercepts_", 0, np.ones(6, complex)),
    "one intercept for all": replaced("intercepts_", 0, np.ones(1)),
    "a row of intercepts": replaced("intercepts_", 0, np.ones((1, 6))),
    "a number of intercepts": replaced("intercepts_", 0, 0.5),
    "more rows": replaced("coefs_", 1, np.ones((10**6, 3))),
    "fewer rows": replaced("coefs_", 1, np.ones((5, 3))),
    "no rows": replaced("coefs_", 1, np.ones((0, 3))),
    "flat coefs": replaced("coefs_", 1, np.ones(6)),
    "too few features": replaced("coefs_", 0, np.ones((3, 6))),
    "too many intercepts": replaced("intercepts_", 0, np.ones(10**6)),
    "too few intercepts": replaced("intercepts_", 1, np.ones(2)),
    "other outputs": lambda model: vars(model).update(
        coefs_=[np.ones((4, 6)), np.ones((6, 5))], intercepts_=[np.ones(6), np.ones(5)]
    ),
    "a list": replaced("coefs_", 0, [[1.0] * 6] * 4),
}  # fmt: skip


def outcome(call):
    """What a call gives, or the class of its error."""
    try:
        return call()
    except Exception as error:
        return type(error)


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("width", [np.float32, np.float64])
def test_parameters_set_from_outside_predict_as_there_or_are_refused_as_there(edit, width):
    rng = np.random.default_rng(0)
    X, y = rng.random((50, 4)).astype(width), rng.integers(0, 3, 50)
    got = []
    for estimator in both("MLPClassifier", hidden_layer_sizes=(6,), max_iter=2):
        edit(estimator.fit(X, y))
        got.append(outcome(lambda model=estimator: model.predict_proba(X)))
    theirs, ours = got
    if isinstance(theirs, type):
        assert ours is theirs
    else:
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        tolerance = 20 * max(np.finfo(width).eps, np.finfo(ours.dtype).eps)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_parameters_set_from_outside_are_trained_or_refused_by_name(edit, solver):
    rng = np.random.default_rng(0)
    X, y = rng.random((50, 4)), rng.integers(0, 3, 50)
    theirs, ours = both("MLPClassifier", hidden_layer_sizes=(6,), max_iter=2, warm_start=True, solver=solver)
    for estimator in (theirs, ours):
        edit(estimator.fit(X, y))
    before = copy.deepcopy(ours.coefs_ + ours.intercepts_)
    try:
        ours.fit(X, y)
    except (TypeError, ValueError) as error:
        assert "expected" in str(error)  # noqa: PT017 - only where there is an error
        assert "s_[" in str(error)  # noqa: PT017
        np.testing.assert_equal(ours.coefs_ + ours.intercepts_, before)
    else:
        narrowest = min(array.dtype.itemsize for array in before)
        theirs.fit(X, y)
        for name in PARAMETERS:  # they stay in another byte order there
            setattr(theirs, name, [array.astype(array.dtype.type) for array in getattr(theirs, name)])
        assert_same_fit(theirs, ours, X, rtol={2: 1e-4, 4: 1e-5, 8: 1e-8}[narrowest])


def test_parameters_that_are_missing_are_refused():
    X, y = digits(60)
    model = fastbp.sklearn.MLPClassifier((6,), max_iter=2, warm_start=True).fit(X, y)
    del model.intercepts_[1]
    for call in (lambda: model.predict(X), lambda: model.fit(X, y)):
        with pytest.raises(ValueError, match="coefs_, intercepts_: expected"):
            call()
    model = fastbp.sklearn.MLPClassifier((6,), max_iter=2, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="coefs_, intercepts_: expected 3 each, as hidden_layer_sizes asks for"):
        model.set_params(hidden_layer_sizes=(6, 6)).fit(X, y)


@pytest.mark.parametrize("sizes", [(2.5,), (2.0,), 2.5, [3, 2.5], ("3",)], ids=str)
def test_sizes_that_are_not_integers_are_refused(sizes):
    X, y = digits(60)
    errors = []
    for estimator in both("MLPClassifier", hidden_layer_sizes=sizes):
        with pytest.raises((TypeError, ValueError)) as error:
            estimator.fit(X, y)
        errors.append(error.value)
    assert isinstance(errors[1], TypeError) or type(errors[0]) is type(errors[1])
    assert "hidden_layer_sizes" in str(errors[1])


@pytest.mark.parametrize("value", [-1, 60, 10**12])
def test_a_random_state_that_puts_samples_in_no_order_is_refused(value):
    class Liar(np.random.RandomState):
        def shuffle(self, x):
            x[...] = [value, *range(1, len(x))]

    X, y = digits(60)
    with pytest.raises(ValueError, match="random_state: expected a generator that puts 60 samples in the order"):
        fastbp.sklearn.MLPClassifier(random_state=Liar(0), max_iter=1).fit(X, y)
