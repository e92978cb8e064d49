"""What the estimators have besides scikit-learn's: dropout, classes with weights, validation, callbacks, converters."""

import io
import re

import numpy as np
import onnxruntime
import pytest
import scipy.sparse
from skl2onnx import to_onnx
from sklearn import neural_network
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import fastbp
from fastbp.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


def classifier(**settings):
    return MLPClassifier((20,), **{"max_iter": 10, "random_state": 0, **settings})


def test_dropout_drops_in_training_alone_and_follows_from_the_random_state(digits):
    X, y = digits
    models = [classifier(dropout=0.4).fit(X, y) for _ in range(2)]
    assert models[0].loss_curve_ == models[1].loss_curve_ != classifier().fit(X, y).loss_curve_
    assert classifier(dropout=0.4, random_state=1).fit(X, y).loss_curve_ != models[0].loss_curve_
    np.testing.assert_array_equal(models[0].predict_proba(X), models[0].predict_proba(X))
    plain = models[0].to_sklearn()
    np.testing.assert_allclose(plain.predict_proba(X), models[0].predict_proba(X), rtol=1e-12)


def test_dropout_draws_other_masks_in_every_partial_fit(digits):
    X, y = digits
    model = classifier(dropout=0.5, learning_rate_init=1e-12, shuffle=False)
    for _ in range(2):
        model.partial_fit(X, y, classes=np.arange(10))
    assert abs(model.loss_curve_[0] - model.loss_curve_[1]) > 1e-5


def test_class_weights_are_sample_weights(digits):
    X, y = digits
    y = np.minimum(y, 3)
    for class_weight in ("balanced", {0: 2.0, 1: 0.5, 2: 1, 3: 0.1}):
        by_class = classifier(class_weight=class_weight).fit(X, y, np.arange(400) + 1.0)
        weights = compute_sample_weight(class_weight, y) * (np.arange(400) + 1.0)
        np.testing.assert_allclose(by_class.loss_curve_, classifier().fit(X, y, weights).loss_curve_, rtol=1e-12)
    assert classifier(class_weight="balanced").fit(X, y).loss_ != classifier().fit(X, y).loss_
    with pytest.raises(ValueError, match="class_weight: expected numbers by class for partial_fit"):
        classifier(class_weight="balanced").partial_fit(X, y, classes=np.arange(4))


def test_an_activation_for_each_layer(digits):
    X, y = digits
    settings = {"hidden_layer_sizes": (12, 8), "max_iter": 5, "random_state": 0}
    same = MLPClassifier(activation=["tanh", "tanh"], **settings).fit(X, y)
    np.testing.assert_array_equal(
        same.predict_proba(X), MLPClassifier(activation="tanh", **settings).fit(X, y).predict_proba(X)
    )
    assert same.to_sklearn().activation == "tanh"
    mixed = MLPClassifier(activation=["logistic", "relu"], **settings).fit(X, y)
    h = 1 / (1 + np.exp(-(X @ mixed.coefs_[0] + mixed.intercepts_[0])))
    h = np.maximum(h @ mixed.coefs_[1] + mixed.intercepts_[1], 0)
    z = h @ mixed.coefs_[2] + mixed.intercepts_[2]
    np.testing.assert_allclose(mixed.predict_log_proba(X), z - np.log(np.exp(z).sum(1, keepdims=True)), rtol=1e-9)
    with pytest.raises(ValueError, match="activation: expected the same for every hidden layer"):
        mixed.to_sklearn()
    for wrong in (["tanh"], ["tanh", "swish"]):
        with pytest.raises(ValueError, match="activation: expected a name or one for each of 2 hidden layers"):
            MLPClassifier(activation=wrong, **settings).fit(X, y)


def test_a_validation_loss_curve(digits):
    X, y = digits
    model = classifier(max_iter=6).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert len(model.validation_loss_curve_) == 6
    np.testing.assert_allclose(model.validation_loss_curve_[-1], log_loss(y[300:], model.predict_proba(X[300:])))
    np.testing.assert_array_equal(model.coefs_[0], classifier(max_iter=6).fit(X[:300], y[:300]).coefs_[0])
    model = MLPRegressor(max_iter=4, random_state=0).fit(X, y, X_val=scipy.sparse.csr_array(X), y_val=y)
    np.testing.assert_allclose(model.validation_loss_curve_[-1], np.mean((model.predict(X) - y) ** 2) / 2)
    model = classifier(max_iter=4).fit(X, y > 4, X_val=X, y_val=y > 4)
    np.testing.assert_allclose(model.validation_loss_curve_[-1], log_loss(y > 4, model.predict_proba(X)))


def test_early_stopping_scores_the_validation_samples_that_are_given(digits):
    X, y = digits
    model = classifier(early_stopping=True, max_iter=40, n_iter_no_change=3).fit(
        X[:300], y[:300], X_val=X[300:], y_val=y[300:]
    )
    assert model.best_validation_score_ == max(model.validation_scores_) == model.score(X[300:], y[300:])
    free = classifier(max_iter=1).fit(X[:300], y[:300])
    np.testing.assert_allclose(model.loss_curve_[0], free.loss_curve_[0])  # all 300 are learned from


def test_wrong_validation_samples_are_refused(digits):
    X, y = digits
    for X_val, y_val, words in [
        (X, None, "X_val, y_val: expected both or neither"),
        (None, y, "X_val, y_val: expected both or neither"),
        (X[:, :5], y, "X has 5 features, but MLPClassifier is expecting 64"),
        (X, y + 1, "`y_val` has classes not in `self.classes_`"),
        (np.where(X > 0.9, np.nan, X), y, "Input X contains NaN"),
        (X[:5], y, "inconsistent numbers of samples"),
    ]:
        with pytest.raises(ValueError, match=words):
            classifier().fit(X, y, X_val=X_val, y_val=y_val)


def test_callbacks_see_the_estimator_of_the_moment_and_can_end_the_fit(digits):
    X, y = digits
    seen = []

    def watch(model):
        seen.append((model.n_iter_, model.loss_curve_[-1], model.score(X, y)))

    def stop(model):
        if model.n_iter_ == 4:
            raise fastbp.StopTraining

    model = classifier().fit(X, y, callbacks=[watch, stop])
    assert [n for n, _, _ in seen] == [1, 2, 3, 4]
    assert [loss for _, loss, _ in seen] == model.loss_curve_
    assert seen[-1][2] == model.score(X, y)
    np.testing.assert_array_equal(model.coefs_[0], classifier(max_iter=4).fit(X, y).coefs_[0])
    classifier(max_iter=1).fit(X, y, callbacks=watch)
    assert len(seen) == 5


def test_ctrl_c_leaves_the_finished_iterations(digits):
    X, y = digits

    def interrupt(model):
        if model.n_iter_ == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = classifier().fit(X, y, callbacks=interrupt)
    np.testing.assert_array_equal(model.coefs_[0], classifier(max_iter=3).fit(X, y).coefs_[0])


def test_lbfgs_takes_none_of_it(digits):
    X, y = digits
    with pytest.raises(ValueError, match="dropout: expected 0 for solver='lbfgs'"):
        classifier(solver="lbfgs", dropout=0.1).fit(X, y)
    for extras in ({"callbacks": print}, {"X_val": X, "y_val": y}):
        with pytest.raises(ValueError, match="expected none for solver='lbfgs'"):
            classifier(solver="lbfgs").fit(X, y, **extras)


def test_a_progress_bar_on_a_terminal(digits, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    model = classifier(verbose=True, max_iter=3).fit(*digits)
    assert f"loss={model.loss_:.8f}" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_a_loss_that_is_not_finite_is_reported_with_its_step():
    X, y = load_diabetes(return_X_y=True)
    model = MLPRegressor(activation="identity", solver="sgd", learning_rate_init=1e3, batch_size=100, random_state=0)
    words = r"Solver produced non-finite parameter weights.* The loss was (nan|inf) at step \d of iteration \d+; "
    with pytest.raises(ValueError, match=words):
        model.fit(X, y)
    assert all(np.isfinite(W).all() for W in model.coefs_)


def test_to_sklearn_and_back_goes_on_with_the_same_numbers(digits):
    X, y = digits
    for settings in ({}, {"solver": "sgd", "learning_rate": "invscaling"}):
        ours = classifier(class_weight="balanced", **settings).fit(X, y).set_params(class_weight=None)
        theirs = ours.to_sklearn()
        assert type(theirs) is neural_network.MLPClassifier
        back = MLPClassifier.from_sklearn(theirs, dropout=0.0)
        assert type(back) is MLPClassifier
        assert back.get_params() == ours.get_params()
        for model in (ours, theirs, back):
            model.partial_fit(X, y)
        np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), rtol=1e-8)
        np.testing.assert_array_equal(back.predict_proba(X), ours.predict_proba(X))
    with pytest.raises(TypeError, match="estimator: expected scikit-learn's MLPRegressor, got MLPClassifier"):
        MLPRegressor.from_sklearn(theirs)
    assert MLPClassifier.from_sklearn(neural_network.MLPClassifier(alpha=3), dropout=0.5).get_params()["alpha"] == 3


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_to_sklearn_of_counts_predicts_and_goes_on_the_same(digits, solver):
    X, y = digits
    ours = MLPRegressor("poisson", (8,), max_iter=5, random_state=0, solver=solver).fit(X, y)
    theirs = ours.to_sklearn()
    assert type(theirs) is neural_network.MLPRegressor
    np.testing.assert_allclose(theirs.predict(X), ours.predict(X), rtol=1e-12)
    np.testing.assert_array_equal(MLPRegressor.from_sklearn(theirs).predict(X), ours.predict(X))
    if solver == "adam":
        np.testing.assert_allclose(theirs.partial_fit(X, y).predict(X), ours.partial_fit(X, y).predict(X), rtol=1e-8)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_onnx(kind, digits):
    X, y = digits
    X = X.astype(np.float32)
    model = kind(hidden_layer_sizes=(20,), max_iter=10, random_state=0, dropout=0.1).fit(X, y)
    options = {"options": {"zipmap": False}} if kind is MLPClassifier else {}
    exported = to_onnx(model.to_sklearn(), X[:1], **options)
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    got = session.run(None, {session.get_inputs()[0].name: X})
    if kind is MLPClassifier:
        np.testing.assert_array_equal(got[0], model.predict(X))
        np.testing.assert_allclose(got[1], model.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(got[0].ravel(), model.predict(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_bad_input_is_refused_in_scikit_learns_words(kind, digits):
    X, y = digits
    model = kind(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(X, y)
    for bad, words in [
        (np.where(X > 0.9, np.nan, X), "Input X contains NaN"),
        (np.where(X > 0.9, np.inf, X), "Input X contains infinity"),
        (X[:, :3], "X has 3 features, but MLP"),
        (X[0], "Expected 2D array, got 1D array instead"),
        (X[:0], "Found array with 0 sample"),
        (X + 1j, "Complex data not supported"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.predict(bad)
    for X_bad, y_bad, words in [
        (np.where(X > 0.9, np.nan, X), y, "Input X contains NaN"),
        (X, np.where(y == 3, np.nan, y), "contains NaN"),
        (X[:0], y[:0], "Found array with 0 sample"),
        (X, y[:5], "inconsistent numbers of samples"),
        (X, None, "requires y to be passed"),
    ]:
        with pytest.raises(ValueError, match=words):
            kind().fit(X_bad, y_bad)
    for settings in (
        {"alpha": -1},
        {"dropout": 1.0},
        {"activation": "swish"},
        {"solver": "rmsprop"},
        {"batch_size": 0},
    ):
        with pytest.raises(ValueError, match=f"The '{next(iter(settings))}' parameter of {kind.__name__} must be"):
            kind(**settings).fit(X, y)
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0"):
        kind(hidden_layer_sizes=(5, 0)).fit(X, y)


def test_bad_labels_are_refused(digits):
    X, y = digits
    mixed = np.array([1, "a"] * 200, object)
    with pytest.raises((TypeError, ValueError)) as theirs:
        neural_network.MLPClassifier().fit(X, mixed)
    with pytest.raises(type(theirs.value), match=re.escape(str(theirs.value))):
        MLPClassifier().fit(X, mixed)
    with pytest.raises(ValueError, match="Unknown label type"):
        MLPClassifier().fit(X, y + 0.5)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        MLPClassifier().partial_fit(X, y)
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'"):
        MLPClassifier(solver="lbfgs").partial_fit(X, y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        MLPClassifier(early_stopping=True).partial_fit(X, y, classes=np.arange(10))


def test_a_direct_conversion_to_onnx_says_what_to_convert(digits):
    X, y = digits
    X = X.astype(np.float32)
    model = classifier().fit(X, y)
    for given in (model, make_pipeline(StandardScaler(), model)):
        with pytest.raises(TypeError, match=r"got fastbp's MLPClassifier.*; convert model\.to_sklearn\(\), "):
            to_onnx(given, X[:1])
    to_onnx(model.to_sklearn(), X[:1])
