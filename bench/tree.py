"""Two modules of `fastbp.benchmark` as they are in this tree.

asv runs this suite beside the fastbp of any commit, which may lack them or have others.
"""

import importlib.util
from pathlib import Path


def _module(name):
    path = Path(__file__).resolve().parents[1] / "fastbp" / "benchmark" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench.{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measure = _module("measure")
peak = _module("peak")
