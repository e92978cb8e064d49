"""Everything that the README shows is run, and prints what it says."""

import re
import tomllib

import pytest

from fastbp.benchmark import comparison
from fastbp.cli import main
from tests.subprocesses import ROOT, run_python

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_every_snippet_has_its_output():
    assert len(PYTHON) == README.count("```python") == 8


@pytest.mark.parametrize(("code", "output"), PYTHON, ids=range(len(PYTHON)))
def test_a_snippet_prints_what_the_readme_says(code, output, tmp_path):
    assert run_python(code, folder=tmp_path) == output.strip()


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("fastbp")])
def test_a_command_works(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "SECONDS", 5)  # in place of 75
    assert main(line.split()[1:]) == 0


def test_the_other_commands_are_the_ones_that_ci_runs():
    others = [line for line in SHELL if not line.startswith("fastbp")]
    assert others == ['pip install ".[demo]" && fastbp train', 'pip install ".[test]" && python -m pytest']
    script = (ROOT / ".ci" / "run").read_text()
    for line in others:
        assert line in script


def test_one_oldest_python_is_promised():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert f"(Python {oldest} or newer;" in README
    assert settings["tool"]["mypy"]["python_version"] == oldest


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
