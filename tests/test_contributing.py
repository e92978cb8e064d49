"""The documents are true: the activation of CONTRIBUTING.md works where it is pasted, and what they name is there."""

import pkgutil
import re
import shutil

import pytest

from tests.pages import PAGES, anchors, links, text_of
from tests.subprocesses import ROOT, run_python

DOCUMENTS = (*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "bench/README.md")
TEXT = text_of("CONTRIBUTING.md")


def test_the_activation_works_once_it_is_pasted(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (path,) = re.findall(r"Append this to `(.*?)`", TEXT)
    (name,) = re.findall(r'add `"(\w+)"` to its `__all__`', TEXT)
    shutil.copytree(ROOT / "fastbp", tmp_path / "fastbp")
    file = tmp_path / path
    source = file.read_text(encoding="utf-8").replace('__all__ = ["', f'__all__ = ["{name}", "', 1)
    file.write_text(f"{source}\n\n{example}", encoding="utf-8")
    code = f"""
import numpy as np
import runpy
from fastbp import Sequential, export, graph, layers, use_reference
from fastbp.ops.contract import ACTIVATIONS
x, dout = np.array([-2.0, 0.5, 3.0]), np.array([1.0, 2.0, 4.0])
layer = layers.{name}()
print(layer.forward(x), layer.backward(dout))
with use_reference():
    print(layer.forward(x), layer.backward(dout))
(function,) = (name for name, record in ACTIVATIONS.items() if record.layer is layers.{name})
value, (gradient,) = graph.compile(lambda x: getattr(graph, function)(x).sum()).value_and_grad(x)
print(value, gradient)
export.to_numpy(Sequential([layer], layers.IdentityWithLoss()), "network.py", sample_shape=(3,))
print(runpy.run_path("network.py")["predict"](x[None])[0])
"""
    lines = run_python(code, package=tmp_path, FASTBP_CACHE=tmp_path / "cache").splitlines()
    assert lines == ["[0.   0.25 9.  ] [ 0.  2. 24.]"] * 2 + ["9.25 [0. 1. 6.]", "[0.   0.25 9.  ]"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(document):
    named = re.findall(r"`((?:fastbp|tests|bench|docs|\.ci|\.github)/[\w/.-]*\w)`", text_of(document))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(document):
    for link in links(text_of(document)):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), link
        assert not heading or heading in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_script_that_a_document_names_is_there(document):
    modules = set(re.findall(r"python -m ((?:bench|tests)[.\w]*)", text_of(document)))
    assert not [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()]


def test_every_name_of_fastbp_in_the_pages_is_there():
    names = {name for page in PAGES for name in re.findall(r"`(fastbp(?:\.[a-z]\w*)+)", text_of(page))}
    assert len(names) > 5
    for name in names:
        assert pkgutil.resolve_name(name)


def test_its_checks_are_those_of_ci():
    (block,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    tools = re.findall(r"ruff check|ruff format|mypy|lint-imports", block)
    assert tools == re.findall(r"^(ruff check|ruff format|mypy|lint-imports)", (ROOT / ".ci/run").read_text(), re.M)
