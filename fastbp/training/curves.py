"""A picture of learning curves, which a notebook shows."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Curves(Figure):
    """matplotlib's figure, also one that no `%matplotlib inline` was said for."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()
