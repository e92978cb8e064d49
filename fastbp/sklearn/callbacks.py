"""scikit-learn's callbacks, those of `set_callbacks`: a fit is a task, and each of its iterations is one in it."""

from __future__ import annotations

from typing import Any


class Tasks:
    """A fit and its iterations, of which the callbacks of an estimator are told.

    Parameters
    ----------
    estimator : estimator
        With callbacks.
    X, y : array-like
        As they were given to `fit`, as callbacks score with them.
    sample_weight : array-like or None
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        self._estimator = estimator
        self._iteration: Any = None
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._told = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._fit = estimator._init_callback_context(max_subtasks=estimator.max_iter)
        self._fit.call_on_fit_task_begin(**self._told)

    def begin_iteration(self) -> None:
        """Tell that an iteration begins, from the parameters that the estimator has."""
        self._iteration = self._fit.subcontext(task_name="iteration")
        self._iteration.call_on_fit_task_begin(**self._told, reconstruction_attributes=self._parameters)

    def end_iteration(self) -> bool:
        """Tell that it ended; returns whether a callback wants no further one."""
        is_over: bool = self._iteration.call_on_fit_task_end(**self._told, reconstruction_attributes=self._parameters)
        return is_over

    def end(self) -> None:
        """Tell that the fit ended."""
        self._fit.call_on_fit_task_end(**self._told, reconstruction_attributes={})

    def _parameters(self) -> dict[str, Any]:
        """What an estimator that predicts as this one does now has of its own: copies, as training goes on."""
        return {name: [array.copy() for array in getattr(self._estimator, name)] for name in ("coefs_", "intercepts_")}
