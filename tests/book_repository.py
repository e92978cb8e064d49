"""The modules of the book's repository, where the variable FASTBP_BOOK names a clone of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

CLONE = Path(os.environ.get("FASTBP_BOOK") or "no clone")

needs_clone = pytest.mark.skipif(
    not (CLONE / "common").is_dir(), reason="FASTBP_BOOK names no clone of the book's repository"
)


def own(path: str) -> ModuleType:
    """The book's own module in a file such as `common/layers.py`."""
    sys.path.insert(0, str(CLONE))
    before = set(sys.modules)
    try:
        spec = importlib.util.spec_from_file_location(f"own_{path[:-3].replace('/', '_')}", CLONE / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(CLONE))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("common", "dataset"):
                del sys.modules[name]
    return module
