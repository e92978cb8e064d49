"""The site's pages are true: their examples and snippets do what they show, and every public name is there with one."""

import doctest
import importlib
import inspect
import re

import pytest

from tests.pages import PAGES
from tests.subprocesses import ROOT, run_python
from tests.test_docstrings import EXAMPLES, context
from tests.test_public_names import EXPECTED, resolved

DOCS = ROOT / "docs"
REFERENCE = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.rst"))}
STATEMENTS = {
    name: "".join(example.source for example in doctest.DocTestParser().get_examples(text))
    for name, text in REFERENCE.items()
}
DIRECTIVE = re.compile(r"^\.\. auto\w+:: (fastbp[.\w]*)$", re.MULTILINE)
SNIPPET = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
SNIPPETS = [
    pytest.param(code, output, id=f"{path.stem}-{number}")
    for path in sorted(DOCS.glob("*.md"))
    if f"docs/{path.name}" not in PAGES and path.stem != "export"  # test_readme.py, test_export_page.py
    for number, (code, output) in enumerate(SNIPPET.findall(path.read_text(encoding="utf-8")))
]
NAMES = [
    (module, name)
    for module, names in EXPECTED.items()
    for name in names
    if not inspect.ismodule(resolved(module, name))
]


def function_of(thing):
    """What has the docstring: the same for a method wherever it is inherited."""
    return getattr(thing, "fget", getattr(thing, "__func__", thing))


def shown_in_docstrings():
    """The functions and classes whose docstrings have examples, and the statements of these."""
    found = {}
    for test in EXAMPLES.values():
        source = "".join(example.source for example in test.examples)
        thing = importlib.import_module(".".join(module_of(test.name)))
        for part in test.name.split(".")[len(module_of(test.name)) :]:
            thing = getattr(thing, part)
        found[id(function_of(thing))] = source
    return found


def module_of(name):
    parts = name.split(".")
    while True:
        try:
            importlib.import_module(".".join(parts))
        except ImportError:
            parts.pop()
        else:
            return parts


SHOWN = shown_in_docstrings()


def is_shown(module, name):
    """Whether an example has it: its own, one of its class, or one of a page of the reference."""
    thing = resolved(module, name)
    if id(function_of(thing)) in SHOWN:
        return True
    *_, last = name.split(".")
    use = rf"\b{last}\b"
    if "." not in name:
        return any(re.search(use, statements) for statements in STATEMENTS.values())
    owner = resolved(module, name.split(".")[0])
    of_class = "".join(SHOWN.get(id(kind), "") for kind in owner.__mro__)
    if re.search(rf"\.{last}\b", of_class):
        return True
    owners = "|".join(sharing(thing, last))
    return any(
        re.search(rf"(\.|def ){last}\b", statements) and re.search(rf"\b({owners})\b", statements)
        for statements in STATEMENTS.values()
    )


def sharing(thing, member):
    """The public classes that have this very member."""
    classes = {name: resolved(module, name) for module, name in NAMES if "." not in name}
    return [
        name
        for name, kind in classes.items()
        if inspect.isclass(kind) and function_of(getattr(kind, member, None)) is function_of(thing)
    ]


@pytest.mark.parametrize("page", REFERENCE)
def test_the_examples_of_a_page_show_what_they_do(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {name: context()[name] for name in ("np", "fastbp")}
    test = doctest.DocTestParser().get_doctest(REFERENCE[page], names, page, None, None)
    failed, _ = doctest.DocTestRunner().run(test)
    assert failed == 0, capsys.readouterr().out


@pytest.mark.parametrize(("code", "output"), SNIPPETS)
def test_a_snippet_prints_what_its_page_says(code, output, tmp_path, monkeypatch):
    if "sklearn" in code:
        pytest.importorskip("sklearn")
    moved = f"import os; os.chdir({str(tmp_path)!r})\n"
    assert run_python(moved + code) == output.strip()


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_has_an_example(module, name):
    assert is_shown(module, name)


def test_a_public_name_is_in_the_reference():
    listed = {id(resolved_path(name)) for text in REFERENCE.values() for name in DIRECTIVE.findall(text)}
    missing = [name for module, name in NAMES if "." not in name and id(resolved(module, name)) not in listed]
    assert not missing


def resolved_path(path):
    parts = module_of(path)
    thing = importlib.import_module(".".join(parts))
    for part in path.split(".")[len(parts) :]:
        thing = getattr(thing, part)
    return thing


def test_the_files_that_a_page_names_are_there():
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:runtime|engine|ops)/[\w/]+\.py)`", text))
    assert len(files) > 10
    assert {file for file in files if not (ROOT / "fastbp" / file).exists()} == set()


def test_the_pages_of_the_reference_are_in_its_contents():
    contents = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    assert all(re.search(rf"^{page}$", contents, re.MULTILINE) for page in REFERENCE)
