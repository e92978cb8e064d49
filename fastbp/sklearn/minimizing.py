"""The solver lbfgs: SciPy's optimizer over the compiled loss and gradient of all samples at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from fastbp.checks import FLOAT64, Array
from fastbp.ops.updates import Gradients
from fastbp.sklearn.callbacks import Tasks
from fastbp.sklearn.networks import Samples, engine_of, parameter_names
from fastbp.training.at_once import at_work
from fastbp.training.interrupts import Interrupts


def minimize(
    estimator: Any, activations: list[str], X: Any, y: Array, weights: Array | None, tasks: Tasks | None
) -> None:
    """Fit from the estimator's parameters on. The result is of float64, as SciPy's is.

    A sparse X is made dense: every evaluation reads all of it.
    """
    for parameters in (estimator.coefs_, estimator.intercepts_):
        parameters[:] = [array.astype(FLOAT64) for array in parameters]
    dense = X.toarray() if scipy.sparse.issparse(X) else X
    objective = _Objective(estimator, activations, Samples(dense, y, weights, estimator, FLOAT64), len(y), tasks)
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    options |= _get_additional_lbfgs_options_dict("iprint", 1 if estimator.verbose >= 1 else -1)
    with at_work(), objective.interrupts:
        try:
            result = scipy.optimize.minimize(
                objective, objective.start(), method="L-BFGS-B", jac=True, options=options, callback=objective.keep
            )
        except KeyboardInterrupt:
            estimator.n_iter_, estimator.loss_ = objective.iterations, objective.loss
            objective.put(objective.reached)
            raise
    if objective.is_over:
        estimator.n_iter_ = objective.iterations
    else:
        estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = result.fun
    objective.put(result.x)


class _Objective:
    """The loss and its gradient by all parameters in one vector: coefs, then intercepts.

    Attributes
    ----------
    interrupts : Interrupts
        Ctrl-C comes between two evaluations.
    iterations, loss, reached : int, float, ndarray
        Of the last finished iteration: how many there were, its loss and its parameters.
    is_over : bool
        Whether a callback wants no further iteration.
    """

    def __init__(
        self, estimator: Any, activations: list[str], samples: Samples, count: int, tasks: Tasks | None
    ) -> None:
        self._samples, self._epoch = samples, samples.epoch(np.arange(count), count)
        self._engine = engine_of(estimator, activations, Gradients(), count)
        self._engine.read()
        self._index = self._engine.index(parameter_names(len(estimator.coefs_)))
        self.interrupts = Interrupts()
        self.iterations, self.loss, self.reached = 0, np.inf, self.start()
        self._tasks, self.is_over = tasks, False

    def keep(self, intermediate_result: Any) -> None:
        """Note the end of an iteration."""
        self.iterations += 1
        self.loss, self.reached = float(intermediate_result.fun), intermediate_result.x.copy()
        if self._tasks is not None:
            self.put(self.reached)
            with self.interrupts.let_through():
                self._tasks.begin_iteration()  # SciPy calls at the end only
                self.is_over = self._tasks.end_iteration()
        if self.is_over:
            raise StopIteration

    def start(self) -> Array:
        """The estimator's parameters."""
        vector: Array = self._engine.flat[self._index]
        return vector

    def put(self, vector: Array) -> None:
        """Make these the estimator's parameters."""
        self._engine.flat[self._index] = vector
        self._engine.write_parameters()

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """The loss and the gradient at a vector."""
        self.interrupts.deliver()
        self._engine.flat[self._index] = vector
        self._samples.train(self._engine, self._epoch, 0, 1, True)
        return float(self._epoch.losses[0]), self._engine.states[0][self._index]
