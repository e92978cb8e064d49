"""scikit-learn's MLPClassifier and MLPRegressor on compiled kernels: the same estimators and numbers, sooner.

`from fastbp.sklearn import MLPClassifier` in place of `from sklearn.neural_network import MLPClassifier` is all that a
program changes. It needs scikit-learn: `pip install "scikit-learn>=1.9"`.
"""

from fastbp.extras import require

require("sklearn")

from fastbp.sklearn.estimators import MLPClassifier, MLPRegressor  # noqa: E402 - after the word on what is missing

__all__ = ["MLPClassifier", "MLPRegressor"]
