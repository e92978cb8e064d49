"""
A layer and an operation of your own
====================================

Two ways to try an idea. A *layer* is a class with ``forward`` and ``backward``; it trains in any network. An
*operation* is a node of a graph, with its local derivative beside it; it is drawn, and compiled to a kernel.
"""

# %%
# A layer
# -------
# Softsign is x/(1 + abs(x)): like tanh, but slower to reach ±1. Its derivative is 1/(1 + abs(x))². `forward` keeps what
# `backward` needs.

import warnings

import numpy as np

from fastbp import Sequential, gradient_check, graph
from fastbp.data import load_digits
from fastbp.graph import Variable
from fastbp.layers import Affine, SoftmaxWithLoss


class Softsign:
    def forward(self, x):
        self.below = 1 + np.abs(x)
        return x / self.below

    def backward(self, dout):
        return dout / self.below**2


# %%
# With parameters
# ---------------
# A layer that learns lists its parameters, and sets a gradient for each in `backward`: dscale for scale.


class Scale:
    parameter_names = ("scale",)

    def __init__(self, D):
        self.scale = np.ones(D)

    def forward(self, x):
        self.x = x
        return x * self.scale

    def backward(self, dout):
        self.dscale = np.sum(dout * self.x, axis=0)
        return dout * self.scale


# %%
# Is the derivative right?
# ------------------------
# The check compares with numerical differentiation, parameter by parameter. Do this before you train.

rng = np.random.default_rng(0)
digits = load_digits()


def affine(D, M):
    return Affine(rng.standard_normal((D, M)) / D**0.5, np.zeros(M))


network = Sequential([affine(64, 50), Scale(50), Softsign(), affine(50, 10)], SoftmaxWithLoss())
print(gradient_check(network, digits.x_train[:3], digits.t_train[:3]))

# %%
# Train it
# --------
# `fit` knows no kernel for these classes. It goes layer by layer, which takes longer, and says so.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    history = network.fit(
        digits.x_train,
        digits.t_train,
        epochs=20,
        optimizer="adam",
        seed=0,
        validation_data=(digits.x_test, digits.t_test),
    )
print(caught[0].message)
print("accuracy:", round(history["val_accuracy"][-1], 3))

# %%
# An operation
# ------------
# In a graph the same function is an `Operation`. Its `backward` gets the gradient of the result, the result and the
# operands, and returns a gradient for each operand.


class SoftsignNode(graph.Operation):
    symbol = "softsign"

    def forward(self, x):
        return x / (abs(x) + 1)

    def backward(self, dout, out, x):
        below = abs(x) + 1
        return (dout / (below * below),)


def softsign(x):
    return graph.apply(SoftsignNode(), x)


x, w = Variable(2.0, "x"), Variable(0.5, "w")
y = softsign(x * w) * 3
y.backward()
print(f"y = {y.value}, by x {x.grad:.4f}, by w {w.grad:.4f}")
y.draw()

# %%
# Compiled
# --------
# `graph.compile` makes one kernel of an elementwise graph, with operations of your own in it. The kernel has the
# value and all gradients in one pass over the arrays.

f = graph.compile(lambda x, w: (softsign(x * w) ** 2).sum())
value, (dx, dw) = f.value_and_grad(np.linspace(-2, 2, 1000), np.full(1000, 0.5))
print(round(value, 4), dx.shape, dw.shape)

# %%
# It is readable code:

print(f.source)

# %%
# A layer that `fit` compiles
# ---------------------------
# To give fastbp itself a new activation, loss, optimizer or layer, one file is enough: the equation, a twin in NumPy,
# a kernel and a record by which everything else finds it. ``CONTRIBUTING.md`` in the repository shows it for an
# activation.
