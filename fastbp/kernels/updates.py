"""One update of one parameter array for each optimizer, in place.

`param`, `grad` and the state (`v`, `h`, `m`) are flat, (n,), and of one dtype. Rates are Python floats, rounded
to that dtype as NumPy would.
"""

from __future__ import annotations

import math

from fastbp.kernels._shared import shared_kernel


@shared_kernel
def decayed_gradient(param, grad, weight_decay, out):
    """out = grad + weight_decay·param, the gradient of the loss and weight_decay/2·sum(param²)."""
    decay = param.dtype.type(weight_decay)
    for i in range(param.size):
        out[i] = grad[i] + decay * param[i]


@shared_kernel
def sgd_update(param, grad, lr):
    """param -= lr·grad."""
    rate = param.dtype.type(lr)
    for i in range(param.size):
        param[i] -= rate * grad[i]


@shared_kernel
def momentum_update(param, grad, v, lr, momentum):
    """v = momentum·v - lr·grad; param += v."""
    rate, friction = param.dtype.type(lr), param.dtype.type(momentum)
    for i in range(param.size):
        v[i] = friction * v[i] - rate * grad[i]
        param[i] += v[i]


@shared_kernel
def nesterov_update(param, grad, v, lr, momentum):
    """param += momentum²·v - (1 + momentum)·lr·grad; v = momentum·v - lr·grad."""
    rate, friction = param.dtype.type(lr), param.dtype.type(momentum)
    ahead = param.dtype.type((1 + momentum) * lr)
    for i in range(param.size):
        param[i] += friction * friction * v[i] - ahead * grad[i]
        v[i] = friction * v[i] - rate * grad[i]


@shared_kernel
def adagrad_update(param, grad, h, lr, eps):
    """h += grad²; param -= lr·grad/(sqrt(h) + eps)."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    for i in range(param.size):
        h[i] += grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(h[i]) + epsilon)


@shared_kernel
def rmsprop_update(param, grad, h, lr, decay_rate, eps):
    """h = decay_rate·h + (1 - decay_rate)·grad²; param -= lr·grad/(sqrt(h) + eps)."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    keep, add = param.dtype.type(decay_rate), param.dtype.type(1 - decay_rate)
    for i in range(param.size):
        h[i] = keep * h[i] + add * grad[i] * grad[i]
        param[i] -= rate * grad[i] / (math.sqrt(h[i]) + epsilon)


@shared_kernel
def adam_update(param, grad, m, v, lr, beta1, beta2, eps):
    """m += (1 - beta1)·(grad - m); v += (1 - beta2)·(grad² - v); param -= lr·m/(sqrt(v) + eps)."""
    rate, epsilon = param.dtype.type(lr), param.dtype.type(eps)
    add1, add2 = param.dtype.type(1 - beta1), param.dtype.type(1 - beta2)
    for i in range(param.size):
        m[i] += add1 * (grad[i] - m[i])
        v[i] += add2 * (grad[i] * grad[i] - v[i])
        param[i] -= rate * m[i] / (math.sqrt(v[i]) + epsilon)
