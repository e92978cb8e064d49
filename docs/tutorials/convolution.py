"""
A convolutional network
=======================

Images of digits through filters, a pooling and two affine layers: the network of chapter 7, on the small digits that
come with scikit-learn. Every line works for larger images, too.
"""

# %%
# Images
# ------
# Layers for images take arrays (N, C, H, W): samples, channels, lines, columns. float32 is enough to train with.

import time

import matplotlib.pyplot as plt
import numpy as np

import fastbp
from fastbp import Sequential, SimpleConvNet
from fastbp.data import load_digits
from fastbp.layers import Affine, BatchNormalization, Convolution, Flatten, Pooling, ReLU, SoftmaxWithLoss
from fastbp.optimizers import Adam

digits = load_digits(np.float32)
x_train, x_test = (x.reshape(-1, 1, 8, 8) for x in (digits.x_train, digits.x_test))
t_train, t_test = digits.t_train, digits.t_test
print(x_train.shape, x_train.dtype, x_test.shape)

# %%
# The book's network
# ------------------
# Convolution, ReLU, pooling, affine, ReLU, affine. `fit` runs whole epochs in compiled code.

filters = {"filter_num": 16, "filter_size": 3, "pad": 1, "stride": 1}
network = SimpleConvNet((1, 8, 8), filters, hidden_size=64, weight_init_std=0.1, dtype=np.float32, seed=0)
history = network.fit(
    x_train, t_train, epochs=20, batch_size=50, optimizer=Adam(0.002), seed=0, validation_data=(x_test, t_test)
)
print(f"{history['seconds'].sum():.2f} s for {len(history)} epochs, accuracy {history['val_accuracy'][-1]:.3f}")
history.plot()

# %%
# What it gets wrong
# ------------------

scores = network.predict(x_test)
wrong = np.flatnonzero(scores.argmax(axis=1) != t_test)[:10]
figure, places = plt.subplots(1, max(len(wrong), 1), figsize=(7, 1.2), layout="constrained", squeeze=False)
for axes, i in zip(places[0], wrong, strict=False):
    axes.imshow(x_test[i, 0], cmap="gray_r")
    axes.set_title(f"{t_test[i]}, not {scores[i].argmax()}", fontsize="x-small")
    axes.axis("off")

# %%
# A stack of your own
# -------------------
# `Sequential` takes any layers. Batch normalization after each convolution lets the rate be higher. Weights of the
# standard deviation sqrt(2/n), n inputs for each output, suit ReLU (section 6.2.3).

rng = np.random.default_rng(0)


def convolution(filters, channels):
    W = rng.standard_normal((filters, channels, 3, 3)) * (2 / (channels * 9)) ** 0.5
    return Convolution(W.astype(np.float32), np.zeros(filters, np.float32), pad=1)


def normalization(channels):
    return BatchNormalization(np.ones(channels, np.float32), np.zeros(channels, np.float32))


def affine(inputs, outputs):
    W = rng.standard_normal((inputs, outputs)) * (2 / inputs) ** 0.5
    return Affine(W.astype(np.float32), np.zeros(outputs, np.float32))


layers = [convolution(16, 1), normalization(16), ReLU(), Pooling(2, 2, stride=2)]
layers += [convolution(32, 16), normalization(32), ReLU(), Pooling(2, 2, stride=2)]
deeper = Sequential([*layers, Flatten(), affine(128, 10)], SoftmaxWithLoss())
history = deeper.fit(
    x_train, t_train, epochs=20, batch_size=50, optimizer=Adam(0.005), seed=0, validation_data=(x_test, t_test)
)
print(history.best("val_accuracy"))

# %%
# Beside plain NumPy
# ------------------
# Under `fastbp.use_reference` the same calls run on NumPy alone: a readable twin of every kernel. One epoch of each, on
# the machine that built this page:


def seconds_of_an_epoch():
    fresh = SimpleConvNet((1, 8, 8), filters, hidden_size=64, dtype=np.float32, seed=0)
    start = time.perf_counter()
    fresh.fit(x_train, t_train, batch_size=50, optimizer=Adam(0.002), seed=0)
    return time.perf_counter() - start


compiled = min(seconds_of_an_epoch() for _ in range(3))
with fastbp.use_reference():
    plain = seconds_of_an_epoch()
print(f"compiled {compiled * 1e3:.0f} ms, NumPy {plain * 1e3:.0f} ms: {plain / compiled:.0f} times")
