"""What commands say to stderr, and the files that they write."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from fastbp.extras import require
from fastbp.files import check_place
from fastbp.training.history import check_picture


def complain(message: str) -> None:
    """Print a line of its own to stderr, after all that was printed before."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    print(f"fastbp: {message}", file=sys.stderr)


def check_plot(path: Path) -> None:
    """Raise an error unless matplotlib can save a picture there, the file of the option --plot."""
    require("matplotlib").use("Agg")
    check_picture("--plot", path, require("matplotlib.figure").Figure())
    check_place("--plot", path)
