"""
The filters of the first convolution
====================================

Before training the filters are noise. After it they look for edges and strokes (section 7.6).
"""

import matplotlib.pyplot as plt
import numpy as np

from fastbp import SimpleConvNet
from fastbp.data import load_digits
from fastbp.optimizers import Adam


def enlarged(rows):
    """16×16 images of the 8×8 ones."""
    return rows.reshape(-1, 1, 8, 8).repeat(2, axis=2).repeat(2, axis=3)


digits = load_digits(np.float32)
x, x_test = enlarged(digits.x_train), enlarged(digits.x_test)
settings = {"filter_num": 24, "filter_size": 5, "pad": 0, "stride": 1}
network = SimpleConvNet((1, 16, 16), settings, hidden_size=64, dtype=np.float32, seed=0)
before = network.params["W1"].copy()
network.fit(x, digits.t_train, epochs=30, batch_size=50, optimizer=Adam(0.002), seed=0)
after = network.params["W1"]
print("accuracy:", round(network.accuracy(x_test, digits.t_test), 3))


def show(filters, title):
    figure, places = plt.subplots(3, 8, figsize=(7, 2.9), layout="constrained")
    for axes, pixels in zip(places.flat, filters[:, 0], strict=True):
        axes.imshow(pixels, cmap="gray", vmin=filters.min(), vmax=filters.max())
        axes.axis("off")
    figure.suptitle(title)


# %%
# Each square is a filter of 5×5 numbers: bright is large, dark is small.

show(before, "before training")

# %%

show(after, "after training")

# %%
# What they see
# -------------
# One image, and the outputs of the first filters after ReLU.

from fastbp.layers import Convolution, ReLU

image = x_test[4:5]
seen = ReLU().forward(Convolution(after, network.params["b1"]).forward(image))[0]
figure, places = plt.subplots(1, 7, figsize=(7, 1.3), layout="constrained")
for axes, pixels in zip(places, [image[0, 0], *seen[:6]], strict=True):
    axes.imshow(pixels, cmap="gray")
    axes.axis("off")
places[0].set_title("the image", fontsize="small")
