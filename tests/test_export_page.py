"""Everything that docs/export.md shows is run, in its order and in one folder, and prints what it says."""

import re

import pytest

from fastbp.cli import main
from tests.subprocesses import ROOT, run_python

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_every_snippet_has_its_output():
    assert len(PYTHON) == PAGE.count("```python") == 3


def test_snippets_and_commands_do_what_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for code, output in PYTHON:
        assert run_python(code, folder=tmp_path) == output.strip()
    monkeypatch.chdir(tmp_path)
    commands = [line for line in SHELL if line.startswith("fastbp")]
    assert len(commands) == 3
    for line in commands:
        assert main(line.split()[1:]) == 0
    made = {"model.npz", "model.py", "probabilities.onnx", "model.c", "network.c", "network.onnx", "network.py"}
    assert made <= {path.name for path in tmp_path.iterdir()}
