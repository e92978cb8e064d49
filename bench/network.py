"""The book's network: one gradient and one update."""

import contextlib

from fastbp import TwoLayerNet, use_reference
from fastbp.optimizers import SGD

from .cases import DTYPES, HIDDEN, Draw

IMPLEMENTATIONS = {"fastbp": contextlib.nullcontext, "numpy": use_reference}


class Network:
    """Time of one step of the 784-50-10 network with a batch of 100."""

    params = (DTYPES, list(IMPLEMENTATIONS))
    param_names = ("dtype", "impl")
    number = 20  # with a setup, asv would otherwise time single calls

    def setup(self, dtype, impl):
        draw = Draw(dtype, HIDDEN)
        self.x, self.t = draw.positive(draw.N, draw.D), draw.labels() % 10
        self.network, self.optimizer = TwoLayerNet(784, 50, 10, dtype=dtype, seed=0), SGD(0.1)
        self.implementation = IMPLEMENTATIONS[impl]
        self.time_step(dtype, impl)

    def time_step(self, dtype, impl):
        with self.implementation():
            self.optimizer.update(self.network.params, self.network.gradient(self.x, self.t))
