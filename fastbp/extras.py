"""Optional packages: they are imported where they are used, and a clear error names what to install."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str = "demo") -> Any:
    """Return an optional module, which `fastbp[extra]` installs.

    Raises
    ------
    ImportError
        If it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{error.name}: expected to be installed, got nothing; install it with: pip install "fastbp[{extra}]"'
        ) from None
