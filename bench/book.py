"""The two-layer network in the style of the book's code: plain NumPy layers, and a new array for every result.

Readers of chapter 5 have this code before they change an import.
"""

import numpy as np


class Relu:
    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dout[self.mask] = 0
        return dout


class Tanh:
    def forward(self, x):
        self.out = np.tanh(x)
        return self.out

    def backward(self, dout):
        return dout * (1 - self.out**2)


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return np.dot(x, self.W) + self.b

    def backward(self, dout):
        self.dW = np.dot(self.x.T, dout)
        self.db = np.sum(dout, axis=0)
        return np.dot(dout, self.W.T)


class SoftmaxWithLoss:
    def forward(self, x, t):
        x = x - np.max(x, axis=1, keepdims=True)
        self.y, self.t = np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True), t
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class TwoLayerNet:
    """The network on the layer classes of a module, so that one import decides which."""

    def __init__(self, params, layers, activation="Relu"):
        self.params = {key: value.copy() for key, value in params.items()}
        self.first = layers.Affine(self.params["W1"], self.params["b1"])
        self.second = layers.Affine(self.params["W2"], self.params["b2"])
        self.layers = [self.first, getattr(layers, activation)(), self.second]
        self.last = layers.SoftmaxWithLoss()

    def step(self, x, t, lr=0.1):
        for layer in self.layers:
            x = layer.forward(x)
        self.last.forward(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        first, second = self.first, self.second
        gradients = {"W1": first.dW, "b1": first.db, "W2": second.dW, "b2": second.db}
        for key, value in gradients.items():
            self.params[key] -= lr * value
