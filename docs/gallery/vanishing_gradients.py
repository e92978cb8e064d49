"""
Gradients through ten layers
============================

Why deep networks were hard to train with the sigmoid. Its slope is at most 1/4, and each layer on the way back
multiplies by it. ReLU's slope is 1 or 0: with weights that fit, gradients arrive at the first layer as large as they
left the last (sections 6.2 and 5.5).
"""

import matplotlib.pyplot as plt
import numpy as np

from fastbp import MultiLayerNet
from fastbp.data import load_digits

digits = load_digits()
x, t = digits.x_train[:200], digits.t_train[:200]


def gradients(activation):
    """The gradients by the outputs of each of ten layers."""
    network = MultiLayerNet(64, [100] * 10, 10, activation, activation, seed=0)
    network.loss(x, t, train_flg=True)
    dout, found = network.last_layer.backward(), []
    for name, layer in reversed(network.layers.items()):
        if name.startswith("Affine"):
            found.append(dout)
        dout = layer.backward(dout)
    return found[:0:-1]  # from the first layer to the tenth


# %%
# One histogram for each layer, the first on the left. The number is the standard deviation.

figure, panes = plt.subplots(2, 10, figsize=(11, 4), layout="constrained", sharey="row")
spreads = {}
for row, activation in zip(panes, ("sigmoid", "relu"), strict=True):
    layers = gradients(activation)
    spreads[activation] = [dout.std() for dout in layers]
    widest = 3 * max(spreads[activation])
    for number, (axes, dout) in enumerate(zip(row, layers, strict=True), 1):
        axes.hist(dout.ravel(), bins=np.linspace(-widest, widest, 41), color="C0" if activation == "sigmoid" else "C1")
        axes.set(xticks=[], yticks=[], yscale="log", title=f"{number}")
        axes.set_xlabel(f"{dout.std():.0e}", fontsize="small")
    row[0].set_ylabel(activation)

# %%
# The same as one line each. Mind the scale: with the sigmoid a factor of some four is lost at every layer.

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for activation, values in spreads.items():
    axes.semilogy(range(1, 11), values, "o-", color="C0" if activation == "sigmoid" else "C1", label=activation)
axes.set(xlabel="layer", ylabel="standard deviation of the gradient", xticks=range(1, 11))
axes.grid(alpha=0.3)
axes.legend()
for activation, values in spreads.items():
    print(f"{activation:8} first layer {values[0]:.1e}, tenth {values[-1]:.1e}, ratio {values[0] / values[-1]:.1e}")
