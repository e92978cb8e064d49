"""Everything that the README, its translations and the guides show is run, and prints what it says."""

import re
import tomllib

import pytest

from fastbp._version import __version__
from fastbp.benchmark import comparison
from fastbp.cli import main
from tests.pages import PAGES, README, TRANSLATIONS, commands, links, scripts_of_ranks, sections, snippets, text_of
from tests.subprocesses import ROOT, run_python, run_ranks

# What several pages show runs once.
SNIPPETS = {
    snippet: f"{page} {number}" for page in reversed(PAGES) for number, snippet in enumerate(snippets(text_of(page)))
}
SCRIPTS_OF_RANKS = [script for page in PAGES for script in scripts_of_ranks(text_of(page))]
COMMANDS = dict.fromkeys(line for page in PAGES for line in commands(text_of(page)) if line.startswith("fastbp"))

INSTALLING = ['pip install ".[demo]" && fastbp train', 'pip install ".[test]" && python -m pytest']

BOTH = pytest.mark.parametrize("page", TRANSLATIONS)


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_has_its_output(page):
    text = text_of(page)
    assert len(snippets(text)) + len(scripts_of_ranks(text)) == text.count("```python")


@pytest.mark.parametrize(("code", "output"), SNIPPETS, ids=SNIPPETS.values())
def test_a_snippet_prints_what_the_page_says(code, output, tmp_path):
    if "dask" in code:
        pytest.importorskip("distributed")
    assert run_python(code, folder=tmp_path) == output.strip()


@pytest.mark.parametrize(("code", "ranks", "name", "output"), SCRIPTS_OF_RANKS)
def test_ranks_print_what_the_page_says(code, ranks, name, output, tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / name).write_text(code)
    assert run_ranks(int(ranks), tmp_path / name) == output


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "SECONDS", 5)  # in place of 75
    assert main(line.split()[1:]) == 0


def test_the_other_commands_are_the_ones_that_ci_runs():
    others = [line for page in (README, *TRANSLATIONS) for line in commands(text_of(page))]
    assert others == INSTALLING * 3
    of_ranks = {f"mpiexec -n {ranks} python {name}" for _, ranks, name, _ in SCRIPTS_OF_RANKS}
    assert {line for page in PAGES for line in commands(text_of(page))} - set(COMMANDS) - of_ranks == set(INSTALLING)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in INSTALLING:
        assert line in script


@pytest.mark.parametrize("page", [README, *TRANSLATIONS])
def test_a_person_with_five_minutes_can_read_it(page):
    assert len(text_of(page).splitlines()) <= 150


@BOTH
def test_a_translation_has_the_snippets_of_the_readme(page):
    assert snippets(text_of(page)) == snippets(text_of(README))


@BOTH
def test_a_translation_has_the_sections_of_the_readme(page):
    def outline(text):
        """The level of each heading, and how many items and rows stand below it."""
        return [
            [len(re.findall(mark, part, re.MULTILINE)) for mark in ("^#", "^##", "^- ", r"^\|")]
            for part in sections(text)
        ]

    assert outline(text_of(page)) == outline(text_of(README))


@BOTH
def test_a_translation_links_and_names_what_the_readme_does(page):
    def names(text):
        found = [{*links(section), *re.findall(r"`[^`]*`", section)} for section in sections(text)]
        return [part - {README, *TRANSLATIONS} for part in found]

    assert names(text_of(page)) == names(text_of(README))


@BOTH
def test_a_translation_has_the_figures_of_the_readme(page):
    def figures(text):
        return [set(re.findall(r"\d+(?:[.,]\d+)*", section)) for section in sections(text)]

    for theirs, own in zip(figures(text_of(page)), figures(text_of(README)), strict=True):
        assert own <= theirs


@pytest.mark.parametrize("page", [README, *TRANSLATIONS])
def test_each_language_links_the_other_two(page):
    first = text_of(page).splitlines()[2]
    assert sorted([page, *links(first)]) == sorted([README, *TRANSLATIONS])


def test_one_oldest_python_is_promised():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert f"Python {oldest} or newer" in text_of(README)
    assert settings["tool"]["mypy"]["python_version"] == oldest


def test_the_version_to_cite_is_this_one():
    assert f"\nversion: {__version__}\n" in text_of("CITATION.cff")


def test_book_code_with_its_names_runs():
    code = """
from collections import OrderedDict
from fastbp.functions import *
from fastbp.gradcheck import numerical_gradient
from fastbp.layers import *
import numpy as np
names = OrderedDict(A=Affine, R=Relu, S=Sigmoid, L=SoftmaxWithLoss, M=MulLayer, P=AddLayer)
print(*[name for name in names], sigmoid(0), softmax_loss(np.zeros((1, 2)), np.array([1])).__round__(4))
"""
    assert run_python(code) == "A R S L M P 0.5 0.6931"
