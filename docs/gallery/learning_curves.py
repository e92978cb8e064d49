"""
Learning curves
===============

The same network, trained by five methods, and one that learns its training data by heart.
"""

# %%
# Five optimizers
# ---------------
# Each begins from the same weights and sees the same batches.

import matplotlib.pyplot as plt

from fastbp import MultiLayerNet, MultiLayerNetExtend
from fastbp.data import load_digits
from fastbp.optimizers import SGD, AdaGrad, Adam, Momentum, RMSprop

digits = load_digits()
data = digits.x_train, digits.t_train

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for optimizer in (SGD(0.02), Momentum(0.02), AdaGrad(0.02), RMSprop(0.001), Adam(0.002)):
    network = MultiLayerNet(64, [50, 50], 10, seed=0)
    history = network.fit(*data, epochs=30, optimizer=optimizer, seed=0)
    axes.plot(history["epoch"], history["loss"], label=f"{type(optimizer).__name__}, rate {optimizer.lr:g}")
axes.set(xlabel="epoch", ylabel="loss of the training data", yscale="log")
axes.grid(alpha=0.3)
axes.legend()

# %%
# By heart
# --------
# 150 images, and a network with far more parameters than that. The training accuracy reaches 1, while that on new
# images stays behind. Dropout narrows the gap.

new = digits.x_test, digits.t_test
figure, panes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
for axes, ratio in zip(panes, (0.0, 0.3), strict=True):
    network = MultiLayerNetExtend(64, [200, 200], 10, use_dropout=ratio > 0, dropout_ration=ratio, seed=0)
    history = network.fit(
        digits.x_train[:150], digits.t_train[:150], epochs=60, batch_size=50, optimizer=Adam(0.002), seed=0,
        validation_data=new,
    )  # fmt: skip
    axes.plot(history["epoch"], history["accuracy"], label="training")
    axes.plot(history["epoch"], history["val_accuracy"], "--", label="new images")
    axes.set(title=f"dropout {ratio}" if ratio else "without dropout", xlabel="epoch", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
panes[0].set_ylabel("accuracy")
