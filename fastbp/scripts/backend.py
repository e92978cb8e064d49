"""A backend of Matplotlib whose `plt.show()` puts the figures into the album of the script that runs.

Then it closes them, as a reader closes their windows.
"""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fastbp.scripts.pictures import album

__all__ = ["FigureCanvas", "FigureManager"]


class FigureManager(FigureManagerBase):
    """What pyplot asks to show all figures."""

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:  # noqa: ARG003 - the name is Matplotlib's
        """Save the figures, and close them."""
        pictures = album()
        for number in pyplot.get_fignums():
            if pictures is not None:
                pictures.add(pyplot.figure(number).savefig)
            pyplot.close(number)


class FigureCanvas(FigureCanvasAgg):
    """Draws into memory."""

    manager_class: Any = FigureManager
