"""
The chapter as a walk
=====================

Backpropagation from the price of two apples to a trained network: graph, chain rule, layers, network, training. Each
step is a few lines, and each picture is drawn from the very computation that ran. The sections are those of chapter 5
of "Deep Learning from Scratch".

This walk is also there :doc:`in Chinese </auto_zh/chapter_zh>`.
"""

# %%
# A computational graph
# ---------------------
# Two apples at 100 each, with 10% tax. A `Variable` is a number that remembers how it was computed. The value of each
# step stands above its arrow.

import numpy as np

from fastbp import graph
from fastbp.graph import Variable

price, number, tax = Variable(100, "apple"), Variable(2, "number"), Variable(1.1, "tax")
total = price * number * tax
total.draw(gradients=None)

# %%
# Each node computes something small from what is beside it alone. It needs to know nothing of the whole. That is called
# *local computation*, and it is what makes the way back as simple as the way forward.
#
# Backward
# --------
# How much more do I pay if an apple costs 1 more? `backward` sends that question through the graph from right to left.
# The gradients stand below the arrows, in another color.

total.backward()
print(f"by the price {price.grad:.1f}, by the number {number.grad:.0f}, by the tax {tax.grad:.0f}")
total.draw()

# %%
# One more for an apple is 2.2 more in total. One unit more of tax, that is 100%, is 200 more.
#
# The chain rule
# --------------
# z = (x + y)² is two steps: t = x + y, then z = t². The derivative of the whole is the product of the derivatives of
# the steps: ∂z/∂x = ∂z/∂t · ∂t/∂x = 2t · 1. The graph can show the formulas instead of the numbers:

graph.figures.figure("chain-rule").draw()

# %%
# And the same graph with numbers: x = 1 and y = 2, so that both gradients are 2·(1 + 2) = 6.

x, y = Variable(1, "x"), Variable(2, "y")
t = x + y
z = t**2
z.backward()
print(x.grad, y.grad)
z.draw()

# %%
# Two rules for two nodes
# -----------------------
# A plus node passes on what comes from the right, to both sides.

graph.figures.figure("plus-formulas").draw()

# %%
# A times node multiplies it by the *other* operand. For that it must keep its operands from the way forward.

graph.figures.figure("times-formulas").draw()

# %%
# With these two rules alone the gradients of a longer bill follow. Oranges are on it, too:

apples, oranges = Variable(2, "apples"), Variable(3, "oranges")
apple, orange, tax = Variable(100, "apple"), Variable(150, "orange"), Variable(1.1, "tax")
bill = (apple * apples + orange * oranges) * tax
bill.backward()
bill.draw()

# %%
# Layers
# ------
# A layer is a node as a class: `forward` computes and keeps what the way back will need, `backward` takes the gradient
# of the output and returns that of the input. Here are the apples in layers. The import is the only line that differs
# from the book's code.

from fastbp.layers import MulLayer

apple_layer, tax_layer = MulLayer(), MulLayer()
apple_price = apple_layer.forward(100, 2)
print(f"forward: {tax_layer.forward(apple_price, 1.1):.1f}")

dapple_price, dtax = tax_layer.backward(1)
dapple, dnumber = apple_layer.backward(dapple_price)
print(f"backward: apple {dapple:.1f}, number {dnumber:.1f}, tax {dtax:.1f}")

# %%
# The activations
# ---------------
# ReLU lets a gradient through where its input was above 0, and stops it elsewhere.

from fastbp.layers import ReLU, Sigmoid

relu = ReLU()
print(relu.forward(np.array([[1.0, -0.5], [-2.0, 3.0]])))
print(relu.backward(np.ones((2, 2))))

# %%
# The sigmoid is a graph of four nodes. Walking back through them, the formula shrinks at each one, until only the
# output is left in it: y(1 − y).

graph.figures.figure("sigmoid").draw()

# %%
# So a layer keeps the output alone, and the four nodes are one.

a = Variable(1.0, "x")
s = a.sigmoid()
s.draw(gradients="formulas")

# %%
sigmoid = Sigmoid()
out = sigmoid.forward(np.array([0.0, 1.0]))
print(out.round(4), sigmoid.backward(np.ones(2)).round(4), (out * (1 - out)).round(4))

# %%
# The affine layer
# ----------------
# A layer of a network multiplies by a matrix and adds a bias. On the way back the shapes decide where a matrix is
# transposed: ∂L/∂X must have the shape of X, and ∂L/∂W that of W. The bias was added to every row of the batch, so its
# gradient is the sum over the rows.

graph.figures.figure("affine-batch").draw()

# %%
# Softmax and its loss
# --------------------
# At the end stands the softmax with the cross-entropy, as one node: three scores and a target come in, the loss comes
# out.

scores, target = Variable(np.log([3.0, 2.0, 5.0]), "a"), Variable(np.array([0.0, 1.0, 0.0]), "t")
loss = graph.softmax_with_loss(scores, target)
loss.backward()
loss.draw()

# %%
# `opened` shows what is inside a node. There are two layers in this one, and they show why they belong together: the
# gradient that arrives at the scores is y − t, the output minus the truth.

graph.opened(loss).draw()

# %%
# The same with formulas, an arrow for each class:

graph.figures.figure("softmax-with-loss").draw()

# %%
# Down to single numbers it is a large graph, but it has no other rules than those above. ``fastbp graph derivation -o
# derivation.html`` makes a page with a slider that goes through it step by step.

graph.figures.figure("softmax-with-loss-opened").draw()

# %%
# The network
# -----------
# Two affine layers with ReLU between them. Its parameters are arrays with names. `loss` goes forward, `gradient` goes
# forward and back.

from fastbp import TwoLayerNet, gradient_check
from fastbp.data import load_digits

digits = load_digits()  # 8×8 images, which come with scikit-learn
network = TwoLayerNet(64, 50, 10, seed=0)
print(network.params)
print("loss before training:", round(network.loss(digits.x_train, digits.t_train), 4))

# %%
# Is the gradient right?
# ----------------------
# Numerical differentiation moves each parameter a little and looks at what the loss does. It is slow, and too simple to
# be wrong. Backpropagation must give the same.

check = gradient_check(network, digits.x_train[:3], digits.t_train[:3])
print(check)
print("passed:", check.passed)

# %%
# Training
# --------
# The loop of the book: draw a batch, get the gradient, take a step downhill.

rng = np.random.default_rng(0)
losses = []
for _ in range(1000):
    batch = rng.choice(len(digits.x_train), 100)
    grads = network.gradient(digits.x_train[batch], digits.t_train[batch])
    for key in network.params:
        network.params[key] -= 0.1 * grads[key]
    losses.append(network.last_layer.loss)

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(losses)
axes.set(xlabel="step", ylabel="loss of the batch", ylim=(0, None))
axes.grid(alpha=0.3)
print("accuracy on images that it never saw:", round(network.accuracy(digits.x_test, digits.t_test), 4))

# %%
# The whole loop in compiled code
# -------------------------------
# `fit` does what the loop does, in one kernel, and keeps a history.

network = TwoLayerNet(64, 50, 10, seed=0)
history = network.fit(
    digits.x_train, digits.t_train, epochs=70, optimizer="adam", seed=0, validation_data=(digits.x_test, digits.t_test)
)
print("best:", history.best("val_accuracy"))
history.plot()
