"""The pictures that a script shows: they go to files of a folder."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastbp.extras import require

__all__ = ["Album", "album", "collected"]

_BACKEND = "module://fastbp.scripts.backend"


@dataclass
class Album:
    """Where pictures go, and how many there are.

    Attributes
    ----------
    folder : Path
        Made with the first picture.
    name : str
        What the files are called, before their number.
    say : function
        Takes a line that names a file.
    """

    folder: Path
    name: str
    say: Callable[[str], None]
    count: int = 0

    def add(self, save: Callable[[Path], Any]) -> None:
        """Have a picture saved in the next file."""
        self.count += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}-{self.count}.png"
        save(path)
        self.say(f"picture saved to {path}")


_open: list[Album] = []


def album() -> Album | None:
    """The album of the script that runs."""
    return _open[-1] if _open else None


@contextmanager
def collected(pictures: Album) -> Iterator[None]:
    """Put what `plt.show()` of Matplotlib and `Image.show()` of Pillow show into an album."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = _BACKEND
    if "matplotlib" in sys.modules:
        require("matplotlib").use(_BACKEND)
    if not _open and importlib.util.find_spec("PIL") is not None:
        require("PIL.ImageShow").register(_Viewer(), 0)
    _open.append(pictures)
    try:
        yield
    finally:
        _open.remove(pictures)
        if before is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = before


class _Viewer:
    """What Pillow asks first to show an image."""

    def show(self, image: Any, **_: Any) -> bool:
        pictures = album()
        if pictures is None:
            return False
        pictures.add(image.save)
        return True
