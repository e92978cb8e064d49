"""Every kernel in plain NumPy: the specification that the compiled code is held equal to.

Each function has the name, the arguments and the result of its twin in `fastbp.kernels`, and is written to be
read beside "Deep Learning from Scratch", chapters 3 to 6 (backpropagation: chapter 5). Results are written to
the trailing arguments. x is (N, D) or (N, C), W (D, M), b (M,); t is labels (N,) or a distribution (N, C).
`fastbp.use_reference()` runs the whole package on these functions. They are defined in `fastbp.ops`, each beside its
kernel.
"""

from typing import Any

import fastbp.layers
import fastbp.optimizers  # noqa: F401
from fastbp.ops.contract import TWINS

__all__ = sorted(TWINS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in TWINS:
        return TWINS[name].twin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(TWINS)
