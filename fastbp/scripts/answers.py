"""The import hook: what a script imports by the names of the book's modules comes from `fastbp.book`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["answered", "answers_for", "is_answered"]

_MODULES = {
    f"common.{name}": name
    for name in (
        "functions", "gradient", "layers", "multi_layer_net", "multi_layer_net_extend", "optimizer", "trainer", "util",
    )
}  # fmt: skip
_DATA = {"dataset.mnist": "mnist"}
# The networks of the chapters, and the chapters that have one of that name; the last one answers elsewhere.
_NETWORKS = {"two_layer_net": ("ch04", "ch05"), "simple_convnet": ("ch07",), "deep_convnet": ("ch08",)}


def answers_for(folder: Path, is_numpy: bool) -> dict[str, str]:
    """Return the modules that fastbp answers for a script of a folder, each with that of `fastbp.book`.

    A network is answered in its own chapter; elsewhere if the folder has no file of that name. The images are answered
    also where the book's own code computes.
    """
    if is_numpy:
        return dict(_DATA)
    networks = {
        name: folder.name if folder.name in chapters else chapters[-1]
        for name, chapters in _NETWORKS.items()
        if folder.name in chapters or not (folder / f"{name}.py").exists()
    }
    return _MODULES | _DATA | networks


@contextmanager
def answered(modules: Mapping[str, str]) -> Iterator[None]:
    """Let imports find these modules, before any file of that name, until the end of the block."""
    packages = {name.partition(".")[0] for name in modules if "." in name}
    first, last = _Answers(modules), _EmptyPackages(packages)
    sys.meta_path.insert(0, first)
    sys.meta_path.append(last)
    try:
        yield
    finally:
        sys.meta_path.remove(first)
        sys.meta_path.remove(last)


def is_answered(module: ModuleType) -> bool:
    """Whether a module was made here."""
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _Answers | _EmptyPackages)


class _Answers(MetaPathFinder, Loader):
    """Makes modules with the names of those in `fastbp.book`, of which a script may change its own copy."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        return ModuleSpec(name, self, origin=f"fastbp.book.{self.modules[name]}") if name in self.modules else None

    def exec_module(self, module: ModuleType) -> None:
        source = importlib.import_module(f"fastbp.book.{self.modules[module.__name__]}")
        public = {name: value for name, value in vars(source).items() if not name.startswith("_")}
        vars(module).update(public, __all__=list(source.__all__), __doc__=source.__doc__)


class _EmptyPackages(MetaPathFinder, Loader):
    """Answers for the packages `common` and `dataset` where there is no clone of the repository around the script."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        return ModuleSpec(name, self, is_package=True) if name in self.names else None

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""
