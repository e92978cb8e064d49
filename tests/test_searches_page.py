"""Everything that docs/searches.md shows is run, and prints what it says."""

import re

import pytest

from fastbp.cli import main
from tests.subprocesses import ROOT, run_python

pytest.importorskip("sklearn")

PAGE = (ROOT / "docs" / "searches.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_every_snippet_has_its_output():
    assert len(PYTHON) == PAGE.count("```python") == 3


@pytest.mark.parametrize(("code", "output"), PYTHON, ids=["joblib, processes", "joblib, threads", "Dask"])
def test_a_snippet_prints_what_the_page_says(code, output):
    if "dask" in code:
        pytest.importorskip("distributed")
    assert run_python(code) == output.strip()


@pytest.mark.parametrize("line", SHELL)
def test_a_command_works(line):
    assert main(line.split()[1:]) == 0
