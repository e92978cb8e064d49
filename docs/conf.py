"""The site: `sphinx-build -W -b html docs docs/_build/html`, which needs no network.

The tutorials and the gallery are scripts. They run in the build, and their pictures come from that run.
`docs/site_parts` has what draws.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

import matplotlib as mpl  # noqa: E402
from site_parts import docstrings, drawings, house  # noqa: E402
from site_parts.examples import Scraper, place_of  # noqa: E402

from fastbp import __version__  # noqa: E402

mpl.use("Agg")

project = "fastbp"
author = "the maintainers of fastbp"
project_copyright = author
version = release = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_gallery.gen_gallery"]
exclude_patterns = [
    "_build",
    "site_parts",
    *(f"{folder}/*" for folder in ("tutorials", "gallery", "zh")),
    "**/GALLERY_HEADER.rst",
]
default_role = "py:obj"
nitpicky = False
# The configuration has functions, which Sphinx cannot keep between builds.
suppress_warnings = ["config.cache"]

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": ["tutorials", "gallery", "zh"],
    "gallery_dirs": ["auto_tutorials", "auto_gallery", "auto_zh"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": place_of,
    "image_scrapers": ("matplotlib", Scraper()),
    "capture_repr": ("_repr_html_",),
    "ignore_repr_types": r"matplotlib|fastbp\.graph",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 1000,
    "plot_gallery": "True",
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "fastbp"
html_static_path = ["_static"]
html_css_files = ["fastbp.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "fastbp"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Pages without others below them.
html_sidebars = {
    page: []
    for page in ("index", "start", "how-it-works", "differences", "architecture", "searches", "guides", "benchmarks")
}


def setup(app):
    """Draw what the pages show, before they are read."""
    docstrings.setup(app)
    house.setup(app)
    app.connect("builder-inited", lambda app: drawings.save_all(Path(app.srcdir) / "drawings"))
