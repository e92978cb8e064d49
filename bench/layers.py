"""Each layer, forward and backward, on the kernels and on the reference, at the book's sizes."""

import contextlib

from fastbp import use_reference

from .cases import DTYPES, LAYERS, Draw

IMPLEMENTATIONS = {"fastbp": contextlib.nullcontext, "numpy": use_reference}
CASES = {case.name: case for case in LAYERS}


class Layers:
    """Time of one forward and backward."""

    params = (list(CASES), DTYPES, list(IMPLEMENTATIONS))
    param_names = ("layer", "dtype", "impl")
    number = 20  # with a setup, asv would otherwise time single calls

    def setup(self, name, dtype, impl):
        case = CASES[name]
        draw = Draw(dtype, case.size)
        self.layer, self.inputs, self.dout = case.layer(draw), case.inputs(draw), case.dout(draw)
        self.implementation = IMPLEMENTATIONS[impl]
        self.time_forward_backward(name, dtype, impl)  # compiles, and touches every page

    def time_forward_backward(self, name, dtype, impl):
        with self.implementation():
            self.layer.forward(*self.inputs)
            self.layer.backward(*self.dout)
