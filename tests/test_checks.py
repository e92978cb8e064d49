"""The checks before a change lands: the workflow and pre-commit make those that .ci/run and pyproject.toml name."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read(*path):
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def test_the_workflow_runs_the_oldest_python_that_is_promised():
    promised = tomllib.loads(read("pyproject.toml"))["project"]["requires-python"]
    (matrix,) = re.findall(r"python: \[(.*)\]", read(".github", "workflows", "checks.yml"))
    versions = [tuple(map(int, version.split("."))) for version in re.findall(r'"([\d.]+)"', matrix)]
    oldest = min(versions)
    assert promised == f">={'.'.join(map(str, oldest))}"
    assert max(versions) > oldest


def test_ci_takes_the_python_that_the_workflow_names():
    assert "PYTHON: python${{ matrix.python }}" in read(".github", "workflows", "checks.yml")
    assert "python=${PYTHON:-" in read(".ci", "run")


def test_pre_commit_calls_the_tools_that_ci_calls():
    entries = re.findall(r"entry: (ruff \w+|mypy|lint-imports)$", read(".pre-commit-config.yaml"), flags=re.MULTILINE)
    called = re.findall(r"^(ruff \w+|mypy|lint-imports)", read(".ci", "run"), flags=re.MULTILINE)
    assert sorted(entries) == sorted(called) == ["lint-imports", "mypy", "ruff check", "ruff format"]
