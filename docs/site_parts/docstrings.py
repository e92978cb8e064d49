"""Docstrings as Sphinx reads them: they are plain text, in which bars and stars are only themselves."""

import re

# Sphinx takes the point at the beginning of a name away.
POINT = re.compile(r"(?<!`)`(\.[^`]*)`(?!`)")
STAR = re.compile(r"(?<=[ (])\*(?=\w)")


def in_markup(_app, _what, _name, _thing, _options, lines):
    """Escape what a formula means by itself and reStructuredText as markup."""
    lines[:] = [_escaped(line) for line in lines]


def _escaped(line):
    if line.lstrip().startswith((">>>", "...", "**")):
        return line
    parts = re.split(r"(``[^`]*``|`[^`]*`)", POINT.sub(r"``\1``", line))
    parts[::2] = [STAR.sub(r"\\*", part).replace("|", r"\|") for part in parts[::2]]
    return "".join(parts)


def setup(app):
    """Take the docstrings before numpydoc does."""
    app.connect("autodoc-process-docstring", in_markup, priority=400)
