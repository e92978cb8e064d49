"""Each kernel and its NumPy twin, at the book's sizes."""

from fastbp import kernels, reference

from .cases import DTYPES, KERNELS, Draw

IMPLEMENTATIONS = {"fastbp": kernels, "numpy": reference}
CASES = {case.name: case for case in KERNELS}


class Kernels:
    """Time of one call."""

    params = (list(CASES), DTYPES, list(IMPLEMENTATIONS))
    param_names = ("kernel", "dtype", "impl")
    number = 20  # with a setup, asv would otherwise time single calls

    def setup(self, name, dtype, impl):
        case = CASES[name]
        self.function = getattr(IMPLEMENTATIONS[impl], case.kernel)
        self.arguments = case.arguments(Draw(dtype, case.size))
        self.function(*self.arguments)  # compiles, and touches every page

    def time_kernel(self, name, dtype, impl):
        self.function(*self.arguments)
