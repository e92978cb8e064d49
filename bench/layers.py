"""Each layer forward and backward, on the kernels and on the reference, on one thread.

A batch of one sample shows the cost of a call. A batch of 100 shows the cost of the computation.
"""

import functools

from fastbp import layers

from .cases import DTYPES, LAYERS, Draw
from .suite import IMPLEMENTATIONS, Ratio, Time, in_processes, missing_from, on_both, on_one_thread

CASES = {case.name: case for case in LAYERS}
BATCHES = (1, 100)


def setup_cache():
    return in_processes("layers")


def measured():
    """Seconds of a call by case and implementation, in this process."""
    return on_one_thread(
        {
            (name, batch, dtype): functools.partial(functions, case, batch, dtype)
            for name, case in CASES.items()
            for batch in BATCHES
            for dtype in DTYPES
        }
    )


def functions(case, batch, dtype):
    """One forward and backward on the kernels, and one on the reference; each has its own layer."""
    missing_from(layers, case.name)

    def both_ways():
        draw = Draw(dtype, (batch, *case.size[1:]))
        layer, inputs, dout = case.layer(draw), case.inputs(draw), case.dout(draw)

        def call():
            layer.forward(*inputs)
            layer.backward(*dout)

        return call

    return on_both(both_ways)


class Layers(Time):
    """One forward and backward of a layer."""

    params = (list(CASES), BATCHES, DTYPES, IMPLEMENTATIONS)
    param_names = ("layer", "batch", "dtype", "impl")


class LayerRatios(Ratio):
    """A layer on the kernels against the same layer on the reference."""

    params = (list(CASES), BATCHES, DTYPES)
    param_names = ("layer", "batch", "dtype")
