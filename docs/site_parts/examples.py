"""The pictures of the scripts, and their order on the site."""

from pathlib import Path

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

from fastbp.graph import Variable
from fastbp.graph.drawing import Drawing

ORDER = (
    ("chapter", "book_scripts", "estimators", "convolution", "checkpoints", "own_parts")
    + ("learning_curves", "decision_boundaries", "filters", "vanishing_gradients", "valley", "speed")
)  # fmt: skip


def place_of(file: str) -> int:
    """The place of a script among those of its folder; one that is not listed stops the build."""
    return ORDER.index(Path(file).stem.removesuffix("_zh"))


class Scraper:
    """Saves the graph, or the figure, that is the last expression of a block of a script.

    pyplot's figures are those of sphinx-gallery's own scraper; `History.plot` gives one that pyplot does not know.
    """

    def __repr__(self) -> str:
        return "Scraper()"

    def __call__(self, block, block_vars, gallery_conf) -> str:
        """Return the text that shows the picture."""
        found = block_vars["example_globals"].get("___")
        if isinstance(found, Variable) and found.operation is not None:
            found = found.draw()
        if isinstance(found, Drawing):
            path = Path(next(block_vars["image_path_iterator"])).with_suffix(".svg")
            path.write_text(found.svg, encoding="utf-8")
            text = _graph(path, found.picture.title, gallery_conf["src_dir"])
        elif isinstance(found, Figure):
            path = Path(next(block_vars["image_path_iterator"]))
            found.savefig(path, dpi=120)
            text = figure_rst([path], gallery_conf["src_dir"])
        else:
            return ""
        block_vars["example_globals"]["___"] = None  # shown once
        return text


def _graph(path: Path, title: str, sources: str) -> str:
    """A graph that a click shows alone, where it may be as wide as it is."""
    place = path.relative_to(sources).as_posix()
    alt = title or "The computational graph, values above the arrows and gradients below"
    return f"\n.. image:: /{place}\n   :alt: {alt}\n   :class: fastbp-graph\n   :target: ../_images/{path.name}\n\n"
