"""Optional packages: they are imported where they are used, and a clear error names what to install."""

from __future__ import annotations

import importlib
from typing import Any

# What pip installs, where its name is not the module's.
_PACKAGES = {"PIL": "pillow", "sklearn": '"scikit-learn>=1.9"'}


def require(module: str) -> Any:
    """Return an optional module.

    Raises
    ------
    ImportError
        If it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).split(".")[0]
        raise ImportError(
            f"{error.name}: expected to be installed, got nothing; "
            f"install it with: pip install {_PACKAGES.get(missing, missing)}"
        ) from None
