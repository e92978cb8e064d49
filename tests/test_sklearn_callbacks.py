"""The estimators under scikit-learn's callbacks: what is told of each iteration, and when it ends."""

import copy

import numpy as np
import pytest

pytest.importorskip("sklearn.callback")

from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
SOLVERS = pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])


def classifier(**settings):
    return MLPClassifier((10,), **{"max_iter": 6, "random_state": 0, **settings})


class Recorder:
    """Notes what it is told; wants no more iterations after `last`."""

    def __init__(self, last=None):
        self.calls, self.estimators, self.last = [], [], last

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.calls.append(("end", context.task_name, context.task_id))
        self.told = X, y, metadata
        if context.task_name == "iteration":
            self.estimators.append(fitted_estimator)
            return context.task_id == self.last
        return False


@SOLVERS
def test_a_fit_is_a_task_and_each_iteration_one_in_it(solver):
    recorder = Recorder()
    model = classifier(solver=solver).set_callbacks(recorder).fit(X, Y)
    iterations = [(kind, "iteration", k) for k in range(model.n_iter_) for kind in ("begin", "end")]
    assert recorder.calls == ["setup", ("begin", "fit", 0), *iterations, ("end", "fit", 0), "teardown"]
    assert recorder.told[0] is X
    assert recorder.told[1] is Y
    assert recorder.told[2] is None
    assert not hasattr(model, "_callback_fit_ctx")


@SOLVERS
def test_callbacks_change_no_number(solver):
    alone = classifier(solver=solver).fit(X, Y)
    told = classifier(solver=solver).set_callbacks(Recorder(), ScoringMonitor(scoring="accuracy")).fit(X, Y)
    for one, other in zip(alone.coefs_, told.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    assert alone.n_iter_ == told.n_iter_


@SOLVERS
def test_the_fitted_estimator_predicts_as_if_the_fit_had_ended_there(solver):
    recorder = Recorder()
    classifier(solver=solver).set_callbacks(recorder).fit(X, Y)
    for count in (1, 4):
        then = classifier(solver=solver, max_iter=count).fit(X, Y)
        np.testing.assert_array_equal(recorder.estimators[count - 1].predict_proba(X), then.predict_proba(X))


@SOLVERS
def test_a_callback_ends_the_fit(solver):
    recorder = Recorder(last=2)
    model = classifier(solver=solver, max_iter=50).set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == len(recorder.estimators) == 3
    np.testing.assert_array_equal(recorder.estimators[-1].predict_proba(X), model.predict_proba(X))
    assert recorder.calls[-2:] == [("end", "fit", 0), "teardown"]


def test_weights_are_told():
    recorder, weights = Recorder(), np.arange(300) + 1.0
    classifier().set_callbacks(recorder).fit(X, Y, weights)
    assert recorder.told[2]["sample_weight"] is weights


def test_an_error_in_fit_tears_down():
    recorder = Recorder()
    model = MLPRegressor(activation="identity", solver="sgd", learning_rate_init=1e3, max_iter=5, random_state=0)
    with pytest.raises(ValueError, match="non-finite"):
        model.set_callbacks(recorder).fit(100 * X, Y)
    assert recorder.calls[-1] == "teardown"


def test_partial_fit_tells_nothing():
    recorder = Recorder()
    classifier().set_callbacks(recorder).partial_fit(X, Y, classes=np.arange(10))
    assert recorder.calls == []


def test_fits_own_callbacks_come_before():
    seen, recorder = [], Recorder()
    classifier().set_callbacks(recorder).fit(X, Y, callbacks=lambda model: seen.append(len(recorder.estimators)))
    assert seen == [0, 1, 2, 3, 4, 5]


def test_scikit_learns_own_callbacks_work():
    pytest.importorskip("rich")  # for its bar
    monitor = ScoringMonitor(scoring="accuracy")
    model = classifier().set_callbacks(monitor, ProgressBar()).fit(X, Y)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "iteration"]
    assert len(scores) == model.n_iter_ == 6
    assert scores[-1] == model.score(X, Y)


class Propagated(Recorder):
    """One that a pipeline and a search hand on."""

    max_propagation_depth = None


def test_callbacks_come_from_pipelines_and_searches():
    recorder = Propagated()
    pipeline = make_pipeline(StandardScaler(), classifier())
    pipeline.set_callbacks(recorder).fit(X, Y)
    assert len(recorder.estimators) == pipeline[-1].n_iter_ == 6
    recorder = Propagated()
    search = GridSearchCV(classifier(), {"alpha": [1e-4, 1e-3]}, cv=2)
    alone = clone(search).fit(X, Y)
    search.set_callbacks(recorder).fit(X, Y)
    assert len(recorder.estimators) == 5 * 6
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_set_callbacks_and_copies():
    recorder = Recorder()
    model = classifier().set_callbacks(recorder)
    with pytest.raises(TypeError, match="FitCallback protocol"):
        model.set_callbacks(print)
    assert not hasattr(model.fit(X, Y).to_sklearn(), "_skl_callbacks")
    clone(model).fit(X, Y)
    copy.deepcopy(model).fit(X, Y)
    before = len(recorder.calls)
    model.set_callbacks().fit(X, Y)
    assert len(recorder.calls) == before
