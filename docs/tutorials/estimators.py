"""
scikit-learn's MLP replaced
===========================

``fastbp.sklearn`` has scikit-learn's `MLPClassifier` and `MLPRegressor` on compiled kernels. One import changes.
Parameters, attributes and errors stay, and so do the numbers. The times on this page were measured when it was built.
"""

# %%
# One import
# ----------

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fastbp.sklearn import MLPClassifier  # was: from sklearn.neural_network import MLPClassifier

X, y = load_breast_cancer(return_X_y=True)
model = make_pipeline(StandardScaler(), MLPClassifier((64, 64), max_iter=300, random_state=0))
print("accuracy in five folds:", cross_val_score(model, X, y, cv=5).round(3))

# %%
# The same numbers
# ----------------
# Both begin from the same weights, draw the same batches and end at the same loss, up to rounding. Both also warn that
# twenty iterations are few. Nobody needs to read that here.

warnings.simplefilter("ignore", ConvergenceWarning)
X, y = load_digits(return_X_y=True)
X = X / 16
kinds = {"scikit-learn": neural_network.MLPClassifier, "fastbp": MLPClassifier}
settings = {"hidden_layer_sizes": (100,), "max_iter": 20, "tol": 1e9, "n_iter_no_change": 20, "random_state": 0}
fitted = {name: kind(**settings).fit(X, y) for name, kind in kinds.items()}
for name, each in fitted.items():
    print(f"{name:12}  {each.n_iter_} iterations, loss {each.loss_:.12f}")
difference = np.abs(np.subtract(*(each.predict_proba(X) for each in fitted.values()))).max()
print(f"largest difference of a probability: {difference:.1g}")

# %%
# Sooner
# ------
# In turns, five times each, after both have run once. The shortest time of each counts. Both have one thread: so what
# else the machine does counts less. Limits of threadpoolctl hold for fastbp, too.

tables = {
    "digits\n(100,)": (X, {"hidden_layer_sizes": (100,)}),
    "digits\n(64, 64)": (X, {"hidden_layer_sizes": (64, 64)}),
}
seconds = {name: [] for name in kinds}
for table, own in tables.values():
    times = {name: [] for name in kinds}
    for _ in range(5):
        for name, kind in kinds.items():
            estimator = kind(**settings | own)
            with threadpool_limits(1):
                start = time.perf_counter()
                estimator.fit(table, y)
                times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        seconds[name].append(min(taken))

figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
places = np.arange(len(tables))
for shift, (name, values) in zip((-0.2, 0.2), seconds.items(), strict=True):
    bars = axes.barh(places + shift, np.array(values) * 1e3, 0.38, label=name)
    axes.bar_label(bars, fmt="%.0f ms", padding=3)
axes.set_yticks(places, tables)
axes.invert_yaxis()
axes.margins(x=0.15)
axes.set(xlabel="ms for 20 iterations of 1,797 digits, one thread")
axes.legend(loc="lower right")
for table, theirs, ours in zip(tables, *seconds.values(), strict=True):
    print(f"{table.replace(chr(10), ' '):16}  {theirs / ours:.1f} times")

# %%
# More than scikit-learn's
# ------------------------
# Validation data of your own, dropout, an activation for each layer, and a stop when nothing gets better. Each of these
# is a parameter; without it the estimator is scikit-learn's.

X_train, X_val, y_train, y_val = X[:1400], X[1400:], y[:1400], y[1400:]
model = MLPClassifier((100, 50), activation=("gelu", "relu"), dropout=0.2, max_iter=60, random_state=0, tol=1e-3)
model.fit(X_train, y_train, X_val=X_val, y_val=y_val)

figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
axes.plot(model.loss_curve_, label="loss in training, with dropout")
axes.plot(model.validation_loss_curve_, "--", label="loss of the validation data")
axes.set(xlabel="iteration", ylim=(0, None))
axes.legend()
print("accuracy:", round(model.score(X_val, y_val), 3))

# %%
# There and back
# --------------
# `to_sklearn` gives scikit-learn's own object, for what takes nothing else, and `from_sklearn` comes back from it.
# Either goes on training where the other stopped.

theirs = fitted["fastbp"].to_sklearn()
print(type(theirs).__module__, theirs.score(X, y) == fitted["fastbp"].score(X, y))
