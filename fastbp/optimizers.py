"""The book's optimizers (chapter 6): `update(params, grads)` changes the parameters in place.

`params` and `grads` are mappings with the same keys; values are arrays, or plain floats as in the book's plots,
which are replaced in `params`. All keys and shapes are checked before anything is changed. The state of an
optimizer (`v`, `h`, `m`) is a dict of arrays, made at the first update. Where a method divides by a root, `eps` is
added to it, which keeps the quotient finite: 1e-7 outside the root, as in the book. Numbers of the state that would be
subnormal, nearer to 0 than 1.2e-38 in float32, become 0: a CPU takes some hundred cycles for each.

Every optimizer takes, and has as attributes that may be set at any time:

lr : float, callable or ndarray (steps,)
    The rate: a number, a function of the step number 0, 1, 2 and so on, or an array with one rate for each step.
    It is kept as given; `current_lr` is the rate of the next update, which is step number `iter`.
weight_decay : float
    From 0 on. weight_decay·W is added to the gradient, as L2 regularization does (section 6.4.2); `AdamW` takes it from
    W itself. In a network the record of a layer says which parameters decay: W of an affine layer, not b. In another
    mapping those decay whose names start with "W".
"""

from fastbp.ops import contract
from fastbp.ops.optimizer import Optimizer as Optimizer
from fastbp.ops.updates import *  # noqa: F403
from fastbp.ops.updates import __all__ as __all__

OPTIMIZERS: tuple[type[Optimizer], ...] = tuple(kind for kind in contract.OPTIMIZERS if issubclass(kind, Optimizer))
