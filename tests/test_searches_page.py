"""Everything that docs/searches.md shows is run, and prints what it says."""

import re

import pytest

from fastbp.cli import main
from tests.subprocesses import ROOT, run_python, run_ranks

pytest.importorskip("sklearn")

PAGE = (ROOT / "docs" / "searches.md").read_text(encoding="utf-8")
CODE, OUTPUT = r"```python\n([^`]*)```\n\n", r"```text\n(.*?)```"
PYTHON = re.findall(CODE + OUTPUT, PAGE, re.DOTALL)
MPI = re.findall(rf"{CODE}```sh\nmpiexec -n (\d) python digits.py\n```\n\n{OUTPUT}", PAGE, re.DOTALL)
SHELL = re.findall(r"^fastbp .*", PAGE, re.MULTILINE)


def test_every_snippet_has_its_output():
    assert len(PYTHON) + len(MPI) == PAGE.count("```python") == 4


@pytest.mark.parametrize(("code", "output"), PYTHON, ids=["joblib, processes", "joblib, threads", "Dask"])
def test_a_snippet_prints_what_the_page_says(code, output):
    if "dask" in code:
        pytest.importorskip("distributed")
    assert run_python(code) == output.strip()


@pytest.mark.parametrize("line", SHELL)
def test_a_command_works(line):
    assert main(line.split()[1:]) == 0


def test_the_ranks_of_mpi_print_what_the_page_says(tmp_path):
    [(code, ranks, output)] = MPI
    script = tmp_path / "digits.py"
    script.write_text(code)
    assert run_ranks(int(ranks), script) == output
