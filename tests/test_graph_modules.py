"""The modules of the graph: their order, and what one may use of another."""

import ast
import re
from pathlib import Path

import pytest

from fastbp import graph

FOLDER = Path(graph.__file__).parent
ORDER = re.findall(r"^- `(\w+)`", graph.__doc__, re.MULTILINE)
TREES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.py")}


def imported(tree):
    """Each name that a module imports, with the module that it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (("", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_the_order_in_the_docs_has_every_module():
    assert sorted([*ORDER, "__init__"]) == sorted(TREES)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_from_modules_above_it_only(module):
    above = ORDER[: ORDER.index(module)]
    for source, name in imported(TREES[module]):
        if source == "fastbp.graph":
            assert name in above
        elif source.startswith("fastbp.graph."):
            assert source.removeprefix("fastbp.graph.") in above


@pytest.mark.parametrize("module", TREES)
def test_a_module_imports_at_its_top(module):
    inside = [f for f in ast.walk(TREES[module]) if isinstance(f, ast.FunctionDef | ast.ClassDef)]
    assert not [name for function in inside for _, name in imported(function)]


@pytest.mark.parametrize("module", TREES)
def test_no_module_uses_a_private_name_of_another(module):
    tree = TREES[module]
    private = re.compile(r"_[^_]\w*(?<!_)$")
    assert not [name for _, name in imported(tree) if private.match(name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private.match(node.attr):
            assert isinstance(node.value, ast.Name)
            assert node.value.id == "self"


@pytest.mark.parametrize("module", TREES)
def test_a_module_is_short(module):
    assert len((FOLDER / f"{module}.py").read_text(encoding="utf-8").splitlines()) < 500
