"""What each script of a clone needs, and whether it is there: modules and files. Nothing is run."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastbp.book.mnist import FOLDER_VARIABLE
from fastbp.data import missing_mnist
from fastbp.scripts.answers import answers_for

__all__ = ["Needs", "listed"]

_DATA_SUFFIXES = (".pkl", ".png", ".jpg", ".npy", ".npz", ".csv", ".gz")


@dataclass(frozen=True)
class Needs:
    """What a script needs.

    Attributes
    ----------
    script : str
        Its path in the clone.
    answered : list of str
        The modules of the book that fastbp answers.
    others : list of str
        Modules that must be installed, and files that it reads.
    missing : list of str
        What of these is not there.
    """

    script: str
    answered: list[str]
    others: list[str]
    missing: list[str]


def listed(folder: Path, data: Path | None = None) -> list[Needs]:
    """Return the needs of every script of a clone's chapters, or of one chapter.

    Parameters
    ----------
    folder : Path
        A clone of the book's repository, or a folder in it.
    data : Path, optional
        The folder of MNIST's files.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there is no script in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--list: expected a folder, got {folder}, which is none; check the path")
    paths = sorted([*folder.glob("ch*/*.py"), *folder.glob("*.py")])
    scripts = [path for path in paths if path.stem not in answers_for(path.resolve().parent, is_numpy=False)]
    if not scripts:
        raise ValueError(f"--list: expected a clone with folders such as ch04, got {folder} with no script in them")
    return [_needs(path, str(path.relative_to(folder)), data) for path in scripts]


def _needs(path: Path, name: str, data: Path | None) -> Needs:
    folder = path.resolve().parent
    answers = answers_for(folder, is_numpy=False)
    modules, files = _found_in(path, answers)
    answered = sorted(module for module in modules if module in answers)
    packages = sorted({module.partition(".")[0] for module in modules - set(answered)} - sys.stdlib_module_names)
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    missing += [file for file in files if not (folder / file).exists()]
    if "dataset.mnist" in answered:
        missing += missing_mnist(data or os.environ.get(FOLDER_VARIABLE) or None)
    return Needs(name, answered, [*packages, *files], missing)


def _found_in(path: Path, answers: dict[str, str]) -> tuple[set[str], list[str]]:
    """The modules that a script and the files beside it import, but for those files, and the data that they read."""
    modules: set[str] = set()
    files: list[str] = []
    seen, waiting = {path}, [path]
    while waiting:
        tree = ast.parse(waiting.pop().read_bytes())
        files += [file for file in _data_of(tree) if file not in files]
        for module in _imports_of(tree):
            beside = path.parent / f"{module}.py"
            if module in answers or not beside.exists():
                modules.add(module)
            elif beside not in seen:
                seen.add(beside)
                waiting.append(beside)
    return modules, files


def _imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _data_of(tree: ast.Module) -> Iterator[str]:
    """Names of files that are given to a function which does not save."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not _name_of(node.func).startswith("save"):
            for given in node.args:
                if isinstance(given, ast.Constant) and str(given.value).endswith(_DATA_SUFFIXES):
                    yield str(given.value)


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
