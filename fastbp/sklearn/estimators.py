"""The estimators: scikit-learn's own, with fitting and predicting done by compiled kernels.

They are subclasses, so that parameters, their checks, the words of errors, tags and metadata are scikit-learn's. What
is replaced is where the time goes: `_fit`, with which `fit` and `partial_fit` end, and `_forward_pass_fast`, with which
all predictions begin.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from numbers import Real
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike
from sklearn import neural_network
from sklearn.base import _fit_context, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.neural_network._base import ACTIVATIONS as IN_PLACE
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from fastbp.checks import FLOAT64, Array, DType
from fastbp.ops.contract import ACTIVATIONS
from fastbp.sklearn.callbacks import Tasks
from fastbp.sklearn.minimizing import minimize
from fastbp.sklearn.networks import check_parameters
from fastbp.sklearn.prediction import is_plain, outputs
from fastbp.sklearn.training import DIVERGED, Callback, Data, train

__all__ = ["MLPClassifier", "MLPRegressor"]


class _OnKernels(CallbackSupportMixin):  # type: ignore[misc]
    """What the estimators have in common.

    A fitted estimator may predict in several Python threads at once. `fit` and `partial_fit` need it alone.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "activation": [StrOptions(set(ACTIVATIONS)), "array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    # Parameters and attributes that scikit-learn's estimator does not have.
    _own_parameters: ClassVar[tuple[str, ...]] = ("dropout",)
    _own_attributes: ClassVar[tuple[str, ...]] = ("validation_loss_curve_", "_skl_callbacks")
    _kind: ClassVar[Any]

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        callbacks: Callback | Iterable[Callback] = (),
    ) -> Any:
        """Fit the model to data matrix X and target(s) y.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            float32 is fitted as float32, all else as float64.
        y : array-like (n_samples,) or (n_samples, n_outputs)
            Class labels, or real numbers in regression.
        sample_weight : array-like (n_samples,), optional
            What each sample counts for in the loss.
        X_val, y_val : array-like, optional
            Other samples, whose loss after each iteration comes into `validation_loss_curve_`. With `early_stopping`
            they are scored in place of a share of X. Not for lbfgs.
        callbacks : callable or iterable of callables
            Each is called after each iteration with the estimator, which has its parameters and curves of that moment;
            `fastbp.StopTraining` raised there ends the fit. Not for lbfgs. Those of scikit-learn's protocol are set by
            `set_callbacks`, for any solver: each iteration is a task of theirs.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For parameters, samples and targets that scikit-learn refuses, in its words, and where the loss becomes NaN
            or infinite, with the step at which it did; the parameters are then those before that step.

        Examples
        --------
        >>> X, y = np.eye(4), [0, 1, 0, 1]
        >>> model = MLPClassifier((8,), max_iter=20, tol=1.0, random_state=0).fit(X, y, X_val=X, y_val=y)
        >>> len(model.validation_loss_curve_) == model.n_iter_
        True
        """
        called = [callbacks] if callable(callbacks) else list(callbacks)
        return self._fit(X, y, sample_weight, held_out=(X_val, y_val), callbacks=called)

    def _fit(
        self: Any,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        incremental: bool = False,
        held_out: tuple[Any, Any] = (None, None),
        callbacks: Iterable[Callback] = (),
    ) -> Any:
        sizes = list(np.ravel(self.hidden_layer_sizes))
        if not all(isinstance(size, np.integer) for size in sizes):
            raise TypeError(
                f"hidden_layer_sizes: expected integers, got {self.hidden_layer_sizes}; "
                "give the number of neurons of each hidden layer"
            )
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        activations = self._activations(len(sizes))
        if self.solver == "lbfgs":
            self._refuse_for_lbfgs(held_out, callbacks)
        is_first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        given = X, y, sample_weight
        X, y = self._validate_input(X, y, incremental, reset=is_first)
        y = y.reshape(len(y), -1)
        self.n_outputs_ = y.shape[1]
        data = X, y, self._weights(sample_weight, X, y, incremental)
        others = self._held_out(*held_out)
        self._random_state = check_random_state(self.random_state)
        if is_first:
            self._initialize(y, [X.shape[1], *sizes, self.n_outputs_], X.dtype)
        if is_first and others is not None:
            self.validation_loss_curve_: list[float] = []
        check_parameters(self, X.shape[1], len(sizes))
        tasks = None if incremental or not hasattr(self, "_skl_callbacks") else Tasks(self, *given)
        if self.solver == "lbfgs":
            minimize(self, activations, *data, tasks)
        else:
            self._make_writeable()
            train(self, activations, data, others, list(callbacks), tasks, incremental)
        if not all(np.isfinite(array).all() for array in self.coefs_ + self.intercepts_):
            raise ValueError(DIVERGED)
        if tasks is not None:
            tasks.end()
        return self

    def _refuse_for_lbfgs(self: Any, held_out: tuple[Any, Any], callbacks: Iterable[Callback]) -> None:
        if self.dropout:
            raise ValueError(
                f"dropout: expected 0 for solver='lbfgs', which minimizes one function, got {self.dropout}; take 'adam'"
            )
        if any(part is not None for part in held_out) or callbacks:
            raise ValueError(
                "X_val, y_val, callbacks: expected none for solver='lbfgs', whose iterations are SciPy's; take 'adam'"
            )

    def _activations(self: Any, hidden: int) -> list[str]:
        """The activation of each hidden layer."""
        if isinstance(self.activation, str):
            return [self.activation] * hidden
        names = list(self.activation)
        if len(names) != hidden or not all(name in ACTIVATIONS for name in names):
            raise ValueError(
                f"activation: expected a name or one for each of {hidden} hidden layers, of {', '.join(ACTIVATIONS)}, "
                f"got {names}; correct the list or give one name"
            )
        return names

    def _init_coef(self: Any, fan_in: int, fan_out: int, dtype: DType) -> tuple[Array, Array]:
        """Start values of the next layer, by the rule of Glorot; the output layer's is that of the last hidden one."""
        names = [self.activation] if isinstance(self.activation, str) else [*self.activation]
        activation = names[min(len(self.coefs_), len(names) - 1)]
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (fan_in + fan_out))
        W = self._random_state.uniform(-bound, bound, (fan_in, fan_out))
        b = self._random_state.uniform(-bound, bound, fan_out)
        return W.astype(dtype, copy=False), b.astype(dtype, copy=False)

    def _of_scikit_learn(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the constructor that scikit-learn's takes."""
        return {name: arguments[name] for name in self._kind._get_param_names()}

    def _weights(
        self: Any,
        sample_weight: ArrayLike | None,
        X: Any,
        y: Array,  # noqa: ARG002 - of use where there are classes
        incremental: bool,  # noqa: ARG002
    ) -> Array | None:
        """What each sample counts for."""
        if sample_weight is None:
            return None
        weights: Array = _check_sample_weight(sample_weight, X, dtype=FLOAT64)
        return weights

    def _held_out(self: Any, X: Any, y: Any) -> Data | None:
        """Other samples, checked as those that are fitted, with targets in columns."""
        if X is None and y is None:
            return None
        if X is None or y is None:
            raise ValueError(
                "X_val, y_val: expected both or neither, got one of them; give the targets with the samples"
            )
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=not is_classifier(self),
            dtype=(np.float64, np.float32),
            reset=False,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, self._targets(y).reshape(len(y), -1), None

    def _targets(self, y: Array) -> Array:
        return y

    def _make_writeable(self: Any) -> None:
        """Copy arrays that cannot be trained in place: those of a memory-mapped file or of another byte order."""
        for name in ("coefs_", "intercepts_"):
            arrays = getattr(self, name)
            if not all(array.flags.carray and array.dtype.isnative for array in arrays):
                native = (array.astype(array.dtype.type, "C", copy=False) for array in arrays)
                setattr(self, name, [array if array.flags.carray else array.copy("C") for array in native])

    def _forward_pass_fast(self: Any, X: Any, check_input: bool = True) -> Array:
        """The activations of the last layer."""
        given = X
        if check_input and (hasattr(self, "feature_names_in_") or not is_plain(X, self.n_features_in_)):
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        activations = [*self._activations(len(self.coefs_) - 1), self.out_activation_]
        out, is_finite = outputs(X, self.coefs_, self.intercepts_, activations)
        if check_input and not is_finite:
            validate_data(self, given, accept_sparse=["csr", "csc"], reset=False)  # it says what is not finite
        return out

    def to_sklearn(self: Any) -> Any:
        """Return scikit-learn's own estimator with these parameters and everything fitted, as a copy.

        It predicts the same, and `partial_fit` goes on with the same numbers. What takes only scikit-learn's classes,
        such as a converter to ONNX, takes this; skl2onnx knows no `loss="poisson"`, though. `dropout`, which
        predictions do not have, is left out, and so is `class_weight`.

        Raises
        ------
        ValueError
            If hidden layers have different activations, or one that scikit-learn does not have.

        Examples
        --------
        >>> X, y = np.eye(4), [0, 1, 0, 1]
        >>> model = MLPClassifier((8,), max_iter=20, tol=1.0, random_state=0).fit(X, y)
        >>> type(model.to_sklearn()).__module__.split(".")[0]
        'sklearn'
        """
        names = set(self._activations(np.size(self.hidden_layer_sizes))) or {"relu"}
        if len(names) > 1:
            raise ValueError(
                f"activation: expected the same for every hidden layer, as scikit-learn has it, got {self.activation}; "
                "fit with one activation"
            )
        if not names <= IN_PLACE.keys():
            raise ValueError(
                f"activation: expected one that scikit-learn has, of {', '.join(IN_PLACE)}, got {self.activation}; "
                "fit with one of these"
            )
        params = {key: value for key, value in self.get_params().items() if key not in self._own_parameters}
        params["activation"] = self.activation if isinstance(self.activation, str) else names.pop()
        return _copied(self, self._kind(**params), self._own_attributes)

    def onnx_parser(self) -> NoReturn:
        """Tell skl2onnx, which asks for it, that it converts the estimator of `to_sklearn`.

        Raises
        ------
        TypeError
            In any case.

        Examples
        --------
        >>> from fastbp.sklearn import MLPClassifier
        >>> try:
        ...     MLPClassifier().onnx_parser()
        ... except TypeError as error:
        ...     print(str(error)[:48])
        model: expected an estimator of scikit-learn's o
        """
        raise TypeError(
            f"model: expected an estimator of scikit-learn's own, got fastbp's {type(self).__name__}, for which "
            f"skl2onnx has no converter; convert model.to_sklearn(), also as a step of a pipeline"
        )

    @classmethod
    def from_sklearn(cls, estimator: Any, **params: Any) -> Any:
        """Return an estimator with the parameters of scikit-learn's and everything fitted, as a copy.

        Parameters
        ----------
        estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        **params
            Parameters to be set differently, such as `dropout`.

        Raises
        ------
        TypeError
            If it is of another kind.

        Examples
        --------
        >>> from sklearn import neural_network
        >>> X, y = np.eye(4), [0, 1, 0, 1]
        >>> theirs = neural_network.MLPClassifier((8,), max_iter=20, tol=1.0, random_state=0).fit(X, y)
        >>> ours = MLPClassifier.from_sklearn(theirs)
        >>> np.allclose(ours.predict_proba(X), theirs.predict_proba(X))
        True
        """
        if not isinstance(estimator, cls._kind):
            raise TypeError(
                f"estimator: expected scikit-learn's {cls._kind.__name__}, got {type(estimator).__name__}; pass one"
            )
        return _copied(estimator, cls(**(estimator.get_params() | params)), ())


def _copied(source: Any, target: Any, left_out: tuple[str, ...]) -> Any:
    """`target` with copies of what was fitted in `source`."""
    params = source.get_params()
    for name, value in vars(source).items():
        if name not in params and name not in left_out:
            setattr(target, name, copy.deepcopy(value))
    return target


class MLPClassifier(_OnKernels, neural_network.MLPClassifier):  # type: ignore[misc]
    """scikit-learn's `MLPClassifier` on compiled kernels.

    Parameters, attributes and methods are those of `sklearn.neural_network.MLPClassifier`, whose documentation holds
    for them. With the same `random_state` it starts from the same weights and takes the samples in the same order, so
    that losses and predictions are the same but for rounding. There are besides:

    Parameters
    ----------
    activation : str or sequence of str
        One for all hidden layers, or one for each.
    dropout : float
        The share of outputs of each hidden layer that is dropped in training, from 0 to less than 1. Not for lbfgs.
    class_weight : dict, "balanced" or None
        What samples of each class count for in the loss, by label, times `sample_weight`; "balanced" takes
        n_samples/(n_classes·count of the class).

    Attributes
    ----------
    validation_loss_curve_ : list of float
        The loss of `X_val`, `y_val` after each iteration, without the L2 penalty, where `fit` was given them.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 2))
    >>> y = np.where(X.sum(axis=1) > 0, "above", "below")
    >>> model = MLPClassifier((16,), solver="lbfgs", random_state=0).fit(X, y)
    >>> model.predict([[2.0, 2.0], [-2.0, -2.0]])
    array(['above', 'below'], dtype='<U5')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neural_network.MLPClassifier._parameter_constraints,
        **_OnKernels._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }
    _own_parameters = ("dropout", "class_weight")
    _kind = neural_network.MLPClassifier

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        class_weight: Any = None,
    ) -> None:
        super().__init__(**self._of_scikit_learn(locals()))
        self.dropout = dropout
        self.class_weight = class_weight

    def _weights(self, sample_weight: ArrayLike | None, X: Any, y: Array, incremental: bool) -> Array | None:
        weights: Array | None = super()._weights(sample_weight, X, y, incremental)
        if self.class_weight is None:
            return weights
        if self.class_weight == "balanced" and incremental:
            raise ValueError(
                "class_weight: expected numbers by class for partial_fit, which does not see all samples, got "
                "'balanced'; give a dict, with what compute_class_weight('balanced', classes=classes, y=y) returns"
            )
        labels = self._label_binarizer.inverse_transform(y)
        by_class: Array = compute_sample_weight(self.class_weight, labels)
        return by_class if weights is None else by_class * weights

    def _targets(self, y: Array) -> Array:
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise ValueError(
                f"`y_val` has classes not in `self.classes_`. `self.classes_` has {self.classes_}, `y_val` has "
                f"{unknown} besides."
            )
        targets: Array = self._label_binarizer.transform(y).astype(bool)
        return targets


class MLPRegressor(_OnKernels, neural_network.MLPRegressor):  # type: ignore[misc]
    """scikit-learn's `MLPRegressor` on compiled kernels.

    Parameters, attributes and methods are those of `sklearn.neural_network.MLPRegressor`, whose documentation holds
    for them. With the same `random_state` it starts from the same weights and takes the samples in the same order, so
    that losses and predictions are the same but for rounding. There are besides:

    Parameters
    ----------
    activation : str or sequence of str
        One for all hidden layers, or one for each.
    dropout : float
        The share of outputs of each hidden layer that is dropped in training, from 0 to less than 1. Not for lbfgs.

    Attributes
    ----------
    validation_loss_curve_ : list of float
        The loss of `X_val`, `y_val` after each iteration, without the L2 penalty, where `fit` was given them.

    Examples
    --------
    >>> X = np.linspace(-1, 1, 100).reshape(-1, 1)
    >>> model = MLPRegressor(hidden_layer_sizes=(16,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> np.allclose(model.predict([[0.5]]), 0.25, atol=0.02)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neural_network.MLPRegressor._parameter_constraints,
        **_OnKernels._parameter_constraints,
    }
    _kind = neural_network.MLPRegressor

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(**self._of_scikit_learn(locals()))
        self.dropout = dropout
