"""
What Adam does in the book's valley
===================================

f(x, y) = x²/20 + y² is a long valley: steep across, almost flat along (section 6.1). Four methods go down it from
(-7, 2), 30 steps each.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastbp.graph import Variable
from fastbp.optimizers import SGD, AdaGrad, Adam, Momentum


def gradient(params):
    """By a graph, written down as the formula is."""
    x, y = Variable(params["x"], "x"), Variable(params["y"], "y")
    f = x**2 / 20 + y**2
    f.backward()
    return {"x": x.grad, "y": y.grad}


def path(optimizer):
    params, places = {"x": -7.0, "y": 2.0}, [(-7.0, 2.0)]
    for _ in range(30):
        optimizer.update(params, gradient(params))
        places.append((params["x"], params["y"]))
    return np.array(places)


methods = {"SGD": SGD(0.95), "Momentum": Momentum(0.1), "AdaGrad": AdaGrad(1.5), "Adam": Adam(0.3)}
paths = {name: path(optimizer) for name, optimizer in methods.items()}

x, y = np.meshgrid(np.linspace(-8, 8, 200), np.linspace(-4, 4, 200))
figure, panes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained", sharex=True, sharey=True)
for axes, (name, places) in zip(panes.flat, paths.items(), strict=True):
    axes.contour(x, y, x**2 / 20 + y**2, levels=[0.05, 0.25, 0.75, 1.5, 3, 5, 8], colors="0.7", linewidths=0.8)
    axes.plot(*places.T, "o-", color="C3", markersize=3, linewidth=1)
    axes.plot(0, 0, "+", color="black")
    axes.set_title(f"{name}, rate {methods[name].lr:g}")
    print(f"{name:9} ends at x = {places[-1, 0]:7.4f}, y = {places[-1, 1]:7.4f}")

# %%
# Why Adam goes almost straight
# -----------------------------
# Adam divides the mean of the last gradients, m, by the root of the mean of their squares, v. So the first step is as
# long in x as in y, though the slope in y is more than five times as steep. SGD's step is the slope itself: it jumps
# from wall to wall across the valley, and creeps along it.

figure, panes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for axes, name in zip(panes, ("SGD", "Adam"), strict=True):
    steps = np.abs(np.diff(paths[name], axis=0))
    axes.semilogy(range(1, 31), steps[:, 0], "o-", markersize=3, label="along the valley, x")
    axes.semilogy(range(1, 31), steps[:, 1], "s--", markersize=3, label="across it, y")
    axes.set(title=name, xlabel="step", ylim=(1e-3, 6))
    axes.grid(alpha=0.3)
    axes.legend()
panes[0].set_ylabel("length of the step")
