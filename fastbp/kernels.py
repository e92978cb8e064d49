"""Every compiled function of fastbp, under the names of its NumPy twins in `fastbp.reference`.

A kernel computes and nothing else: arrays come checked, C-contiguous, of one dtype, and results are written to
trailing arguments. Importing this module compiles nothing; a kernel compiles on its first call with each dtype, or is
loaded from the cache. They are defined in `fastbp.ops`.
"""

from typing import Any

import fastbp.layers
import fastbp.optimizers  # noqa: F401
from fastbp.ops.contract import TWINS
from fastbp.runtime.cache import cache_folder as cache_folder
from fastbp.runtime.cache import cache_status as cache_status
from fastbp.runtime.cache import check_all_saved as check_all_saved
from fastbp.runtime.threads import get_num_threads as get_num_threads
from fastbp.runtime.threads import num_threads as num_threads
from fastbp.runtime.threads import set_num_threads as set_num_threads
from fastbp.runtime.vectors import REGISTER_BYTES as REGISTER_BYTES


def __getattr__(name: str) -> Any:
    if name in TWINS:
        return TWINS[name].kernel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*TWINS, *globals()])
