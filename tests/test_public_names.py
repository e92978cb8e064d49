"""Every public name stays importable, with the arguments that it has.

`python -m tests.test_public_names` adds new names to the record. What is in it changes only where that is wanted.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

RECORD = Path(__file__).parent / "fixtures" / "public_names.json"
EXPECTED: dict[str, dict[str, str]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
MODULES = (
    "fastbp",
    "fastbp.cli",
    "fastbp.data",
    "fastbp.export",
    "fastbp.functions",
    "fastbp.gradcheck",
    "fastbp.graph",
    "fastbp.graph.figures",
    "fastbp.history",
    "fastbp.layers",
    "fastbp.network",
    "fastbp.optimizers",
    "fastbp.reference",
    "fastbp.saving",
    "fastbp.sklearn",
)


def signature(thing: Any) -> str:
    """The names, kinds and defaults of the arguments. What the annotations call a type may change."""
    found = inspect.signature(thing)
    arguments = [argument.replace(annotation=inspect.Parameter.empty) for argument in found.parameters.values()]
    return str(found.replace(parameters=arguments, return_annotation=inspect.Signature.empty))


def described(thing: Any) -> str:
    if isinstance(thing, ModuleType):
        return "module"
    if isinstance(thing, property):
        return "property"
    if isinstance(thing, type) and issubclass(thing, Exception):
        return "exception"
    if isinstance(thing, type):
        return f"class{signature(thing)}"
    return signature(thing) if callable(thing) else "value"


def without_receiver(text: str) -> str:
    """A method's arguments without the first, whatever its function calls that."""
    return re.sub(r"^\((self|x|network|variable|y)(, |\))", lambda found: "(" + found[2].removeprefix(", "), text)


def members(name: str, kind: type) -> dict[str, str]:
    """The public methods and properties of a class that fastbp itself defines."""
    own = [parent for parent in inspect.getmro(kind) if parent.__module__.split(".")[0] == "fastbp"]
    # scikit-learn puts requests for metadata into its subclasses.
    names = {
        name for parent in own for name in vars(parent) if not name.startswith("_") and not name.endswith("_request")
    }
    found = {member: getattr(kind, member) for member in sorted(names)}
    return {
        f"{name}.{member}": without_receiver(described(value))
        for member, value in found.items()
        if inspect.isroutine(value) or isinstance(value, property)
    }


def public_names(module: ModuleType) -> list[str]:
    """What the module lists; where it lists nothing, the functions that it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    functions = inspect.getmembers(module, inspect.isfunction)
    return [name for name, value in functions if not name.startswith("_") and value.__module__ == module.__name__]


def found_in(module: ModuleType) -> dict[str, str]:
    found = {}
    for name in public_names(module):
        thing = getattr(module, name)
        found[name] = described(thing)
        if isinstance(thing, type):
            found |= members(name, thing)
    return found


def resolved(module: str, name: str) -> Any:
    if module == "fastbp.sklearn":
        pytest.importorskip("sklearn")
    thing: Any = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(thing, part), f"{module}.{name} is gone"
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in EXPECTED.items() for name in names])
def test_a_public_name_is_there_with_its_arguments(module, name):
    found = described(resolved(module, name))
    assert (without_receiver(found) if "." in name else found) == EXPECTED[module][name], f"{module}.{name}"


@pytest.mark.parametrize("module", EXPECTED)
def test_a_star_imports_what_it_did(module):
    if module == "fastbp.sklearn":
        pytest.importorskip("sklearn")
    imported: dict[str, Any] = {}
    exec(f"from {module} import *", imported)
    assert {name for name in EXPECTED[module] if "." not in name} <= imported.keys()


if __name__ == "__main__":
    record = {name: found_in(importlib.import_module(name)) | EXPECTED.get(name, {}) for name in MODULES}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
