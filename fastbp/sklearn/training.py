"""The solvers sgd and adam: scikit-learn's epochs, with the steps of each in compiled code.

The optimizer that an estimator keeps is scikit-learn's own object, so that either library goes on where the other left
off; in the engine an optimizer of fastbp's stands for it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._base import LOSS_FUNCTIONS
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastbp import optimizers
from fastbp.checks import Array, checked_order
from fastbp.sklearn.callbacks import Tasks
from fastbp.sklearn.networks import Samples, engine_of, parameter_names
from fastbp.training.at_once import at_work
from fastbp.training.display import Bar
from fastbp.training.fit import StopTraining
from fastbp.training.interrupts import Interruptible
from fastbp.training.run import Pace
from fastbp.training.screen import told_of_compiling

DIVERGED = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)

# Parameters that are looked at after each iteration.
LIVE = ("shuffle", "tol", "n_iter_no_change", "verbose", "warm_start", "random_state", "max_fun")

Callback = Callable[[Any], None]

# Samples, their targets in columns, and their weights.
Data = tuple[Any, Array, Array | None]


def train(
    estimator: Any,
    activations: list[str],
    data: Data,
    held_out: Data | None,
    callbacks: Sequence[Callback],
    tasks: Tasks | None,
    is_incremental: bool,
) -> None:
    """Fit for `max_iter` epochs, or one if `is_incremental`, from the estimator's parameters on."""
    if estimator.early_stopping and is_incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    if not is_incremental or not hasattr(estimator, "_optimizer"):
        estimator._optimizer = _new_optimizer(estimator)
    scored = held_out
    if estimator.early_stopping and held_out is None:
        data, scored = _split(estimator, *data)
    with told_of_compiling(bool(estimator.verbose)):
        scored = scored if estimator.early_stopping else None
        run = _Run(estimator, activations, data, held_out, scored, callbacks, tasks)
    estimator.n_iter_ = 0
    with at_work(), run.interrupts:
        try:
            for _ in range(estimator.max_iter):
                run.epoch()
                if _waited_enough(estimator) or is_incremental:
                    break
                if estimator.n_iter_ == estimator.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization "
                        "hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
        except StopTraining:
            pass
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        finally:
            run.finish()
        if estimator.early_stopping and hasattr(estimator, "_best_coefs"):
            estimator.coefs_, estimator.intercepts_ = estimator._best_coefs, estimator._best_intercepts


class _Run(Interruptible):
    """The epochs of one call of `fit` or `partial_fit`."""

    def __init__(
        self,
        estimator: Any,
        activations: list[str],
        data: Data,
        held_out: Data | None,
        scored: Data | None,
        callbacks: Sequence[Callback],
        tasks: Tasks | None,
    ) -> None:
        super().__init__()
        self._estimator, self._held_out, self._tasks = estimator, held_out, tasks
        self._callbacks = [*callbacks, *([_ending(tasks)] if tasks is not None else [])]
        self._scored: tuple[Any, ...] = (None, None, None)
        if scored is not None:
            X, y, weights = scored
            self._scored = (
                X,
                estimator._label_binarizer.inverse_transform(y) if is_classifier(estimator) else y,
                weights,
            )
        samples = len(data[1])
        self._samples = Samples(*data, estimator, estimator.coefs_[0].dtype)
        self._order, self._pace = np.arange(samples), Pace()
        self._batch_size = _batch_size(estimator.batch_size, samples)
        self._optimizer = _compiled(estimator._optimizer)
        self._engine = engine_of(estimator, activations, self._optimizer, self._batch_size)
        self._engine.read()
        self._is_written = True
        self._names = [name for name in estimator.get_params(deep=False) if name not in LIVE] if self._callbacks else []
        self._bar = Bar(estimator.max_iter, bool(estimator.verbose), unit=" iterations")
        # No steps: what these compile is compiled now, where Ctrl-C need not wait for it.
        self._samples.train(self._engine, self._samples.epoch(self._order, self._batch_size), 0, 0, True)

    def epoch(self) -> None:
        """One pass over the samples, and what the estimator notes of it."""
        estimator = self._estimator
        if self._tasks is not None:
            begin = self._tasks.begin_iteration
            self._call(lambda _: begin())
        if estimator.shuffle:
            places = np.arange(len(self._order))
            estimator._random_state.shuffle(places)
            self._order = self._order[checked_order("random_state", places, len(self._order))]
        optimizer = estimator._optimizer
        is_sgd = isinstance(optimizer, SGDOptimizer)
        self._optimizer.lr = float(optimizer.learning_rate if is_sgd else optimizer.learning_rate_init)
        epoch = self._samples.epoch(self._order, self._batch_size)
        step, steps = 0, len(epoch.sizes)
        while step < steps:
            first, last = self._pace.stretch(step, steps)
            start = time.perf_counter()
            self._is_written = False
            done = self._samples.train(self._engine, epoch, first, last, estimator.early_stopping)
            if done < last - first:
                raise ValueError(
                    f"{DIVERGED} The loss was {epoch.losses[first + done]} at step {first + done + 1} of iteration "
                    f"{estimator.n_iter_ + 1}; the parameters are those before it."
                )
            self._pace.took(done, time.perf_counter() - start)
            step = last
            if step < steps:
                self.look_at_interrupts()
        if self._held_out is not None:
            with self.paused():
                held_out_loss = _loss(estimator, *self._held_out)
            estimator.validation_loss_curve_.append(held_out_loss)
        estimator.n_iter_ += 1
        estimator.t_ += len(self._order)
        estimator.loss_ = float(np.sum(epoch.losses * epoch.sizes) / len(self._order))
        estimator.loss_curve_.append(estimator.loss_)
        self._show()
        if estimator.early_stopping:
            self.write()
        estimator._update_no_improvement_count(estimator.early_stopping, *self._scored)
        estimator._optimizer.iteration_ends(estimator.t_)
        self.look_at_interrupts()
        for callback in self._callbacks:
            self._call(callback)

    def _call(self, callback: Callback) -> None:
        before = self._fixed()
        with self.paused():
            callback(self._estimator)
        for name, value in self._fixed().items():
            if value is not before[name] and not np.array_equal(value, before[name]):
                raise ValueError(
                    f"{name}: expected a callback to leave it as it is in the course of fit, got another; "
                    f"set it before, or between two calls of fit with warm_start=True"
                )
        self._engine.read()

    def _fixed(self) -> dict[str, Any]:
        """What the run was made of: the parameters that it does not look at again, and the arrays that it trains."""
        estimator = self._estimator
        fixed = {name: getattr(estimator, name) for name in self._names}
        for name in ("coefs_", "intercepts_"):
            fixed[name] = [id(array) for array in getattr(estimator, name)]
        return fixed

    def write(self) -> None:
        """Give the parameters and the optimizer's state to the estimator."""
        if not self._is_written:
            self._engine.write()
            _take_state(self._estimator._optimizer, self._optimizer)
        self._is_written = True

    def _show(self) -> None:
        estimator = self._estimator
        self._bar.reach(estimator.n_iter_, loss=f"{estimator.loss_:.8f}")
        if estimator.verbose and not self._bar.is_shown:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")

    def finish(self) -> None:
        """Leave the estimator as it was trained."""
        self.write()
        self._bar.close()


def _ending(tasks: Tasks) -> Callback:
    """What tells that an iteration ended, after the callbacks of `fit`."""

    def end(_: Any) -> None:
        if tasks.end_iteration():
            raise StopTraining

    return end


def _loss(estimator: Any, X: Any, y: Array, weights: Array | None) -> float:
    """The loss of other samples, without the penalty."""
    name = getattr(estimator, "loss", "log_loss")
    if estimator.out_activation_ == "logistic":
        name = "binary_log_loss"
    return float(LOSS_FUNCTIONS[name](y, estimator._forward_pass_fast(X, check_input=False), weights))


def _split(estimator: Any, X: Any, y: Array, weights: Array | None) -> tuple[Data, Data]:
    """Samples to learn from and samples to be scored on."""
    arrays = [X, y] if weights is None else [X, y, weights]
    parts = train_test_split(
        *arrays,
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=y if is_classifier(estimator) and estimator.n_outputs_ == 1 else None,
    )
    learned, scored = [*parts[::2], None][:3], [*parts[1::2], None][:3]
    if scored[0].shape[0] < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return tuple(learned), tuple(scored)


def _batch_size(batch_size: int | str, samples: int) -> int:
    if isinstance(batch_size, str):
        return min(200, samples)
    if batch_size > samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
        )
    return min(int(batch_size), samples)


def _waited_enough(estimator: Any) -> bool:
    """Whether there were too many epochs without a better one, and the rate is not made smaller instead."""
    if estimator._no_improvement_count <= estimator.n_iter_no_change:
        return False
    what = "Validation score" if estimator.early_stopping else "Training loss"
    message = (
        f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} consecutive epochs."
    )
    if estimator._optimizer.trigger_stopping(message, estimator.verbose):
        return True
    estimator._no_improvement_count = 0
    return False


def _new_optimizer(estimator: Any) -> Any:
    params = estimator.coefs_ + estimator.intercepts_
    if estimator.solver == "adam":
        return AdamOptimizer(
            params, estimator.learning_rate_init, estimator.beta_1, estimator.beta_2, estimator.epsilon
        )
    return SGDOptimizer(
        params,
        estimator.learning_rate_init,
        estimator.learning_rate,
        estimator.momentum,
        estimator.nesterovs_momentum,
        estimator.power_t,
    )


def _compiled(optimizer: Any) -> Any:
    """fastbp's optimizer that does what scikit-learn's does, with its state."""
    ours: Any
    if isinstance(optimizer, AdamOptimizer):
        rates = optimizer.learning_rate_init, optimizer.beta_1, optimizer.beta_2
        ours = optimizers.Adam(*rates, eps=optimizer.epsilon)
        ours.iter = optimizer.t
        ours.m, ours.v = _by_name(optimizer.ms), _by_name(optimizer.vs)
        return ours
    kind = optimizers.Nesterov if optimizer.nesterov else optimizers.Momentum
    # fastbp's stay below 1, which scikit-learn takes.
    ours = kind(optimizer.learning_rate, min(float(optimizer.momentum), float(np.nextafter(1, 0))))
    ours.v = _by_name(optimizer.velocities)
    return ours


def _take_state(optimizer: Any, ours: Any) -> None:
    """Give scikit-learn's optimizer the state of fastbp's."""
    if isinstance(optimizer, SGDOptimizer):
        optimizer.velocities = _in_order(ours.v)
        return
    optimizer.t, optimizer.ms, optimizer.vs = ours.iter, _in_order(ours.m), _in_order(ours.v)
    if ours.iter:
        optimizer.learning_rate = ours.rate_at(ours.iter - 1)  # that of the last step


def _by_name(arrays: list[Array]) -> dict[str, Array]:
    return dict(zip(parameter_names(len(arrays) // 2), arrays, strict=True))


def _in_order(arrays: dict[str, Array]) -> list[Array]:
    return [arrays[name] for name in parameter_names(len(arrays) // 2)]
