"""The house that `docs/architecture.md` describes: its imports, its private names, and what each record has."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from sklearn.neural_network import _multilayer_perceptron

from fastbp import graph, layers, optimizers
from fastbp.ops.contract import ACTIVATIONS, LAYERS, LOSSES, OPTIMIZERS, TWINS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastbp"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
}
MODULES = pytest.mark.parametrize("module", sorted(TREES))

# The modules of the graph in their order.
GRAPH = re.findall(r"^- `(\w+)`", graph.__doc__, re.MULTILINE)

# Modules that hand on the names of operations.
HANDING_ON = ("kernels.py", "layers.py", "optimizers.py", "reference.py")

PRIVATE = re.compile(r"_\w*(?<!_)")

# Private names of others, which have no public ones: of Numba, of macOS, of Python.
FOREIGN = {
    "runtime/cache.py": {"_rebuild", "_reduce"},
    "runtime/jit.py": {"_cache"},
    "runtime/linking.py": {"_final_module", "_shared_module"},
    "runtime/pointers.py": {"_engine"},
    "runtime/pool.py": {"__ulock_wait", "__ulock_wake"},
    "training/interrupts.py": {"_getframe"},
}
OF_NAMED_TUPLES = {"_fields", "_replace"}
OF_SCIKIT_LEARN = {
    *dir(_multilayer_perceptron.MLPClassifier),
    "_init_callback_context",  # documented for estimators of others
    "_skl_callbacks",
    *re.findall(r"self\.(_\w+)", Path(_multilayer_perceptron.__file__).read_text(encoding="utf-8")),
}


def imported(tree):
    """Each module that is imported from, and the name that is taken from it; None for all of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def defined(tree):
    """The names that a module defines, those of its classes' members and attributes among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            yield node.attr


def is_own(value):
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def attributes(tree):
    """The names of attributes that a module reads, sets or asks for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant):
                yield name.value


def private_names_of_others(tree, allowed=frozenset()):
    """The private names that a module takes from other modules of fastbp, or from objects of their classes."""
    for source, name in imported(tree):
        if name is not None and PRIVATE.fullmatch(name) and source.split(".")[0] in ("", "fastbp"):
            yield f"{source}.{name}"
    own = {*defined(tree), *allowed}
    yield from (name for name in attributes(tree) if PRIVATE.fullmatch(name) and name not in own)


def test_imports_go_down_only(capsys):
    status = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


@MODULES
def test_a_module_uses_no_private_name_of_another(module):
    allowed = FOREIGN.get(module, set()) | OF_NAMED_TUPLES
    if module.startswith("sklearn/") or module == "benchmark/peers.py":
        allowed |= OF_SCIKIT_LEARN
    assert not list(private_names_of_others(TREES[module], allowed))


@pytest.mark.parametrize(
    "code",
    [
        "from fastbp.checks import _name",
        "def f():\n    from fastbp.checks import _name",
        "from . import _name",
        "from fastbp import checks\nchecks._name",
        "class A(B):\n    def f(self):\n        return self._name",
        "def f(thing):\n    thing._name = 1",
        "getattr(thing, '_name')",
    ],
)
def test_a_use_of_anothers_private_name_is_found(code):
    assert list(private_names_of_others(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from scipy import _name",
        "thing.__name__",
        "class A:\n    def f(self, other):\n        self._name = 1\n        return other._name",
        "Variable._repr_svg_ = 1",
    ],
)
def test_a_use_of_ones_own_private_name_is_none(code):
    assert not list(private_names_of_others(ast.parse(code)))


def test_the_order_of_the_graphs_modules_has_every_module():
    assert sorted(f"graph/{name}.py" for name in [*GRAPH, "__init__"]) == sorted(
        module for module in TREES if module.startswith("graph/")
    )


@pytest.mark.parametrize("name", GRAPH)
def test_a_module_of_the_graph_imports_from_modules_above_it_only_and_at_its_top(name):
    tree, above = TREES[f"graph/{name}.py"], GRAPH[: GRAPH.index(name)]
    for source, what in imported(tree):
        if source == "fastbp.graph":
            assert what in above
        elif source.startswith("fastbp.graph."):
            assert source.removeprefix("fastbp.graph.") in above
    inside = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.ClassDef)]
    assert not [source for function in inside for source, _ in imported(function)]


def test_the_engines_steps_name_no_operation():
    sources = {source for source, _ in imported(TREES["engine/steps.py"]) if source.startswith("fastbp")}
    others = {source for source in sources if not source.startswith("fastbp.runtime")}
    assert others == {"fastbp.engine.arrangement", "fastbp.ops.state"}


@MODULES
def test_a_module_is_short(module):
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("module", HANDING_ON)
def test_a_public_module_defines_no_operation(module):
    for node in TREES[module].body:
        if isinstance(node, ast.ClassDef):
            assert [ast.unparse(base) for base in node.bases] == ["Protocol"]
        elif isinstance(node, ast.FunctionDef):
            assert node.name in ("__getattr__", "__dir__")


def test_functions_go_through_layers():
    sources = {source for source, _ in imported(TREES["functions.py"]) if source.startswith("fastbp")}
    assert sources == {"fastbp.checks", "fastbp.layers"}


@pytest.mark.parametrize("module", [layers, optimizers])
def test_public_names_are_those_of_operations(module):
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith("fastbp.ops.")


@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_kernel_and_twin_are_operations(twins):
    assert twins.kernel.__module__.startswith("fastbp.ops.")
    assert twins.twin.__module__.startswith("fastbp.ops.")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_has_twins(name):
    function = ACTIVATIONS[name].activation
    if name == "identity":  # NumPy copies
        assert function.forward is function.backward is None
        return
    assert TWINS[f"{function.name}_forward"] is function.forward
    assert TWINS[f"{function.name}_backward"] is function.backward


@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS)
def test_an_update_has_twins(kind):
    update = OPTIMIZERS[kind].update
    assert TWINS[update.__name__] is update


@pytest.mark.parametrize("output", LOSSES)
def test_a_loss_has_twins_in_its_file(output):
    files = {twins.twin.__module__ for twins in TWINS.values()}
    assert LOSSES[output].layer.__module__ in files


@pytest.mark.parametrize("kind", [*LAYERS, *optimizers.OPTIMIZERS], ids=lambda kind: kind.__name__)
def test_a_record_is_in_the_documentation(kind):
    module = optimizers if kind in OPTIMIZERS else layers
    text = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8") + module.__doc__
    assert re.search(rf"\b{kind.__name__}\b", text)


@pytest.mark.parametrize("kind", [*LAYERS, *optimizers.OPTIMIZERS], ids=lambda kind: kind.__name__)
def test_a_method_has_a_whole_docstring_its_own_or_of_what_it_overrides(kind):
    own = [parent for parent in kind.__mro__ if parent.__module__.startswith("fastbp.")]
    methods = {name for parent in own for name, value in vars(parent).items() if inspect.isfunction(value)}
    for name in methods:
        if not name.startswith("_"):
            assert inspect.getdoc(getattr(kind, name)), name
    for name in methods & {"forward", "backward", "update"}:
        text = inspect.getdoc(getattr(kind, name))
        for section in ("Parameters", "Raises"):
            assert f"\n{section}\n---" in text, name


def test_the_document_names_every_part_and_only_files_that_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = {path.stem for path in PACKAGE.iterdir() if not path.stem.startswith("_") and path.suffix in ("", ".py")}
    picture = text[text.index("```mermaid") : text.index("- `runtime` makes")]
    assert {part for part in parts if not re.search(rf"\b{part}\b", picture)} == set()
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(files) > 20
    assert {file for file in files if not (PACKAGE / file).exists()} == set()
