"""The examples in docstrings do what they show."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import fastbp
from fastbp import graph
from fastbp.graph import Variable
from tests.test_data import idx

NAMES = sorted(
    found.name for found in pkgutil.walk_packages(fastbp.__path__, "fastbp.") if found.name[-8:] != "__main__"
)
EXAMPLES = {
    test.name: test
    for name in NAMES
    for test in doctest.DocTestFinder().find(importlib.import_module(name))
    if test.examples
}


def context():
    """What an example may take for granted."""
    return {
        "fastbp": fastbp,
        "np": np,
        **{name: getattr(graph, name) for name in graph.__all__},
        **{name: Variable(value, name) for name, value in {"price": 100, "number": 2, "tax": 1.1}.items()},
        "network": fastbp.TwoLayerNet(4, 3, 2, seed=0),
        "x": np.ones((5, 4)),
        "t": np.zeros(5, int),
        "a": np.ones(3),
        "b": np.ones(3),
    }


def write_mnist(folder):
    """Two white images to train with and two to test with, and their labels, in MNIST's four files."""
    folder.mkdir()
    for part in ("train", "t10k"):
        for name, values in (("images-idx3", np.full((2, 28, 28), 255)), ("labels-idx1", np.array([5, 0]))):
            (folder / f"{part}-{name}-ubyte").write_bytes(idx(values))


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_shows_what_it_does(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # some write files
    if example.name.startswith("fastbp.data."):
        write_mnist(tmp_path / "mnist")
    example.globs = context() | example.globs
    failed, _ = doctest.DocTestRunner().run(example)
    assert failed == 0, capsys.readouterr().out


def test_examples_are_found():
    assert {"fastbp.graph", "fastbp.ops.contract.use_reference", "fastbp.ops.rectifiers.ELU"} <= EXAMPLES.keys()
