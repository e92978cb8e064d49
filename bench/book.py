"""Networks in the style of the book's code: plain NumPy layers, and a new array for every result.

Readers of chapters 5 and 7 have such code before they change an import.
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


def windows(x, height, width, stride, pad):
    """The pixels under each place of a window, as a matrix with a row for each place (im2col)."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (2, 3))[:, :, ::stride, ::stride]
    N, C, OH, OW, _, _ = view.shape
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(N * OH * OW, C * height * width), (N, OH, OW)


def add_windows(rows, shape, height, width, stride, pad):
    """The sum of such a matrix's numbers at each pixel of images of a shape (col2im)."""
    N, C, H, W = shape
    padded = np.zeros((N, C, H + 2 * pad, W + 2 * pad), rows.dtype)
    OH, OW = (H + 2 * pad - height) // stride + 1, (W + 2 * pad - width) // stride + 1
    places = rows.reshape(N, OH, OW, C, height, width).transpose(0, 3, 4, 5, 1, 2)
    for i in range(height):
        for j in range(width):
            padded[:, :, i : i + stride * OH : stride, j : j + stride * OW : stride] += places[:, :, i, j]
    return padded[:, :, pad : pad + H, pad : pad + W]


class Convolution:
    def __init__(self, W, b, stride=1, pad=0):
        self.W, self.b, self.stride, self.pad = W, b, stride, pad

    def forward(self, x):
        self.shape, (F, _, FH, FW) = x.shape, self.W.shape
        self.rows, (N, OH, OW) = windows(x, FH, FW, self.stride, self.pad)
        out = np.dot(self.rows, self.W.reshape(F, -1).T) + self.b
        return out.reshape(N, OH, OW, F).transpose(0, 3, 1, 2)

    def backward(self, dout):
        F, _, FH, FW = self.W.shape
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, F)
        self.dW, self.db = np.dot(self.rows.T, dout).T.reshape(self.W.shape), np.sum(dout, axis=0)
        return add_windows(np.dot(dout, self.W.reshape(F, -1)), self.shape, FH, FW, self.stride, self.pad)


class Pooling:
    def __init__(self, pool_h, pool_w, stride=2):
        self.pool_h, self.pool_w, self.stride = pool_h, pool_w, stride

    def forward(self, x):
        self.shape = x.shape
        rows, (N, OH, OW) = windows(x, self.pool_h, self.pool_w, self.stride, 0)
        rows = rows.reshape(-1, self.pool_h * self.pool_w)
        self.largest = np.argmax(rows, axis=1)
        return np.max(rows, axis=1).reshape(N, OH, OW, -1).transpose(0, 3, 1, 2)

    def backward(self, dout):
        rows = np.zeros((dout.size, self.pool_h * self.pool_w), dout.dtype)
        rows[np.arange(dout.size), self.largest] = dout.transpose(0, 2, 3, 1).ravel()
        return add_windows(rows, self.shape, self.pool_h, self.pool_w, self.stride, 0)


class Flat:
    """Images as rows, before an affine layer of this file."""

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout):
        return dout.reshape(self.shape)


class SoftmaxWithLoss:
    def forward(self, x, t):
        x = x - np.max(x, axis=1, keepdims=True)
        self.y, self.t = np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True), t
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class SGD:
    def __init__(self, lr):
        self.lr = lr

    def update(self, params, grads):
        for key in params:
            params[key] -= self.lr * grads[key]


class Adam:
    def __init__(self, lr):
        self.lr, self.steps = lr, 0
        self.m, self.v = {}, {}

    def update(self, params, grads):
        self.steps += 1
        lr = self.lr * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for key, grad in grads.items():
            m, v = (state.setdefault(key, np.zeros_like(grad)) for state in (self.m, self.v))
            m += 0.1 * (grad - m)
            v += 0.001 * (grad**2 - v)
            params[key] -= lr * m / (np.sqrt(v) + 1e-7)


class Network:
    """A stack of the layer classes of a module, so that one import decides which."""

    def __init__(self, layers, last, optimizer=None):
        self.layers, self.last = layers, last
        self.optimizer = optimizer or SGD(0.1)
        self.trained = [layer for layer in layers if hasattr(layer, "W")]
        self.params = {
            f"{name}{number}": getattr(layer, name) for number, layer in enumerate(self.trained, 1) for name in "Wb"
        }

    def gradient(self, x, t):
        for layer in self.layers:
            x = layer.forward(x)
        self.last.forward(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return {
            f"{name}{number}": getattr(layer, f"d{name}")
            for number, layer in enumerate(self.trained, 1)
            for name in "Wb"
        }

    def step(self, x, t):
        self.optimizer.update(self.params, self.gradient(x, t))


class TwoLayerNet(Network):
    def __init__(self, params, layers):
        W1, b1, W2, b2 = (params[key].copy() for key in ("W1", "b1", "W2", "b2"))
        super().__init__([layers.Affine(W1, b1), layers.Relu(), layers.Affine(W2, b2)], layers.SoftmaxWithLoss())
