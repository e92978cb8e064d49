"""
Decision boundaries through training
====================================

Two moons, and a network that learns to tell them apart. A callback of `fit` keeps the network's answer for every
point of the plane at some epochs.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from fastbp import MultiLayerNet
from fastbp.functions import softmax
from fastbp.optimizers import Adam

x, t = make_moons(400, noise=0.2, random_state=0)
side = np.linspace(-2, 3, 120)
plane = np.stack(np.meshgrid(side, side - 0.5), axis=-1).reshape(-1, 2)
network = MultiLayerNet(2, [32, 32], 2, seed=0)
answers = {0: softmax(network.predict(plane))[:, 1]}


def keep(progress):
    if progress.epoch in (1, 5, 20, 60, 200):
        answers[progress.epoch] = softmax(network.predict(plane))[:, 1]


network.fit(x, t, epochs=200, batch_size=50, optimizer=Adam(0.005), seed=0, on_epoch=keep)

# %%
# Blue where the network says one moon, red where it says the other, white where it does not know.

figure, panes = plt.subplots(2, 3, figsize=(8, 5.2), layout="constrained", sharex=True, sharey=True)
for axes, (epoch, answer) in zip(panes.flat, answers.items(), strict=True):
    values = answer.reshape(len(side), len(side))
    axes.contourf(side, side - 0.5, values, levels=np.linspace(0, 1, 21), cmap="RdBu_r")
    axes.contour(side, side - 0.5, values, levels=[0.5], colors="black", linewidths=1)
    axes.scatter(*x.T, c=np.where(t, "#8b0000", "#00008b"), s=5)
    axes.set_title(f"epoch {epoch}" if epoch else "before training", fontsize="medium")
    axes.set(xticks=[], yticks=[])
print("accuracy:", network.accuracy(x, t))
