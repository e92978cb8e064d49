"""Each kernel and its NumPy twin at the book's sizes on one thread; products also against the machine's limit."""

import functools

from fastbp import kernels, reference

from . import flops
from .cases import DTYPES, KERNELS, Draw
from .suite import IMPLEMENTATIONS, Limit, Ratio, Time, in_processes, missing_from, on_one_thread, placed
from .tree import peak

CASES = {case.name: case for case in KERNELS}
PRODUCTS = {"100×784×50": (100, 784, 50), "100×784×256": (100, 784, 256), "128×784×1024": (128, 784, 1024)}


def setup_cache():
    return in_processes("kernels")


def measured():
    """Seconds of a call by case and implementation, in this process."""
    cases = {
        (name, dtype): functools.partial(functions, case, dtype) for name, case in CASES.items() for dtype in DTYPES
    }
    least = {}
    for dtype in DTYPES:
        speed = peak.multiply_add_peak(dtype)
        for name, (N, D, M) in PRODUCTS.items():
            cases[name, dtype] = functools.partial(functions, CASES["affine_forward"], dtype, (N, D, M))
            least[name, dtype] = flops.of_product(N, D, M) / speed
    return {**on_one_thread(cases), "least": least}


def functions(case, dtype, size=None):
    """One call of the kernel and one of its twin; each has its own arguments."""
    found = {}
    for implementation, module in zip(IMPLEMENTATIONS, (kernels, reference), strict=True):
        missing_from(module, case.kernel)
        arguments = placed(case.arguments(Draw(dtype, size or case.size)))
        found[implementation] = functools.partial(getattr(module, case.kernel), *arguments)
    return found


class Kernels(Time):
    """One call of a kernel."""

    params = (list(CASES), DTYPES, IMPLEMENTATIONS)
    param_names = ("kernel", "dtype", "impl")


class KernelRatios(Ratio):
    """A kernel against its NumPy twin."""

    params = (list(CASES), DTYPES)
    param_names = ("kernel", "dtype")


class ProductLimits(Limit):
    """An affine layer forward against the multiply-add peak of one core."""

    params = (list(PRODUCTS), DTYPES)
    param_names = ("size", "dtype")
