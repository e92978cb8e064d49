"""The cache of compiled kernels: never old code, never a failure."""

import gc
import os
import shutil
import stat

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from fastbp import Sequential
from fastbp.layers import Affine, Dropout, Identity, ReLU, Sigmoid, SoftmaxWithLoss, Tanh
from fastbp.optimizers import Adam
from fastbp.runtime import cache as kernel_cache
from fastbp.runtime.lanes.panel import line_size
from tests.subprocesses import ROOT, run_python

SIGMOID = """
from fastbp import kernels
from fastbp.functions import sigmoid
print(kernels.cache_status())
print(sigmoid([0.0])[0])
"""

COMPILATIONS = """
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
"""


FIT = """
from tests.test_fit import data, deep
x, t = data()
for scale in 1, 255:
    network = deep()
    network.fit((scale * x).astype("u1") if scale > 1 else x, t, epochs=3, seed=0, scale=1 / scale)
    print(*(value.sum().hex() for value in network.params.values()))
"""


posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no users by number")


@pytest.fixture
def package(tmp_path):
    shutil.copytree(ROOT / "fastbp", tmp_path / "fastbp", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def entries(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.bin")}


def test_a_second_process_loads_what_the_first_compiled(package, tmp_path):
    cache = tmp_path / "cache"
    first = run_python(SIGMOID, package=package, FASTBP_CACHE=cache)
    saved = entries(cache)
    assert saved
    assert run_python(SIGMOID, package=package, FASTBP_CACHE=cache) == first
    assert entries(cache) == saved
    assert first.startswith(str(cache))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    cache = tmp_path_factory.mktemp("fitted")
    return cache, run_python(FIT, FASTBP_CACHE=cache)


def test_a_run_that_compiles_gives_the_same_bits_as_one_that_loads(fitted):
    cache, printed = fitted
    assert run_python(FIT, FASTBP_CACHE=cache) == printed


def test_a_kernel_for_kernels_says_that_python_cannot_call_it():
    with pytest.raises(TypeError, match="make it with entry_kernel"):
        line_size(None, 3)


@pytest.mark.parametrize("removed", ["*multiply.multiply-*", "*_multiply_column_tail-*", "*softmax_of_rows-*"])
def test_what_a_kernel_needs_is_compiled_again_where_its_file_is_gone(fitted, tmp_path, removed):
    cache = shutil.copytree(fitted[0], tmp_path / "cache")
    (path,) = cache.rglob(removed)
    path.unlink()
    assert run_python(FIT, FASTBP_CACHE=cache) == fitted[1]
    assert path.exists()
    mended = entries(cache)
    assert run_python(COMPILATIONS + FIT + "print('compiled', len(compiled))", FASTBP_CACHE=cache).endswith(
        "\ncompiled 0"
    )
    assert entries(cache) == mended


def test_an_edit_in_another_kernel_file_is_seen(package, tmp_path):
    cache = tmp_path / "cache"
    assert run_python(SIGMOID, package=package, FASTBP_CACHE=cache).endswith("0.5")
    source = package / "fastbp" / "runtime" / "elementary.py"
    edited = source.read_text().replace("return y + (multiply_add", "return _HALF(x) * y + (multiply_add")
    assert edited != source.read_text()
    source.write_text(edited)
    assert run_python(SIGMOID, package=package, FASTBP_CACHE=cache).endswith("0.25")


@pytest.mark.parametrize("damage", ["truncated", "emptied", "one bit"])
def test_a_damaged_file_is_compiled_again_and_mended(package, tmp_path, damage):
    cache = tmp_path / "cache"
    run_python(SIGMOID, package=package, FASTBP_CACHE=cache)
    saved = sorted(entries(cache))
    good = [path.read_bytes() for path in saved]
    for path, content in zip(saved, good, strict=True):
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:middle], "emptied": b"", "one bit": flipped}[damage])
    damaged = [path.read_bytes() for path in saved]
    assert run_python(SIGMOID, package=package, FASTBP_CACHE=cache).endswith("0.5")
    assert all(path.read_bytes() != bad for path, bad in zip(saved, damaged, strict=True))
    mended = entries(cache)
    assert run_python(SIGMOID, package=package, FASTBP_CACHE=cache).endswith("0.5")
    assert entries(cache) == mended


def test_without_a_folder_to_write_to_there_is_no_cache_and_a_reason(package, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    printed = run_python(SIGMOID, package=package, FASTBP_CACHE=blocked / "cache")
    assert printed.startswith("none (")
    assert "Not a directory" in printed
    assert printed.endswith("0.5")
    printed = run_python(SIGMOID, package=package, HOME=blocked, XDG_CACHE_HOME=blocked, FASTBP_CACHE="")
    assert printed.startswith("none (")
    assert printed.endswith("0.5")


def test_a_full_folder_that_cannot_be_written_is_read(package, tmp_path):
    cache = tmp_path / "cache"
    run_python(SIGMOID, package=package, FASTBP_CACHE=cache)
    # The permission is taken away in words only, which a run as root would not heed otherwise.
    read_only = """
import os
may = os.access
os.access = lambda path, mode: mode != os.W_OK and may(path, mode)
"""
    printed = run_python(
        read_only + COMPILATIONS + SIGMOID + "print('compiled', len(compiled))", package=package, FASTBP_CACHE=cache
    )
    assert printed.startswith(str(cache))
    assert "(read-only)" in printed
    assert printed.endswith("compiled 0")


LOADED = COMPILATIONS + SIGMOID + "print('compiled', len(compiled))"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled") / "cache"
    run_python(SIGMOID, FASTBP_CACHE=cache)
    assert run_python(LOADED, FASTBP_CACHE=cache).endswith("0.5\ncompiled 0")
    return cache


@pytest.fixture
def filled(compiled, tmp_path):
    return shutil.copytree(compiled, tmp_path / "cache")


def digest_folder(cache):
    (folder,) = cache.iterdir()
    return folder


@posix
def test_a_folder_that_others_may_write_is_refused(filled):
    digest_folder(filled).chmod(0o770)
    printed = run_python(LOADED, FASTBP_CACHE=filled)
    assert printed.startswith("none (")
    assert "got one that others may write, mode 770; remove it, or name another folder" in printed
    assert "\n0.5\n" in printed
    assert not printed.endswith("compiled 0")


@posix
def test_a_file_that_others_may_write_is_refused_and_mended(filled):
    files = sorted(entries(filled))
    for path in files:
        path.chmod(0o620)
    printed = run_python(LOADED, FASTBP_CACHE=filled)
    assert f"({len(files)} files refused, the first: " in printed
    assert "got one that others may write, mode 620" in printed
    assert "\n0.5\n" in printed
    assert not printed.endswith("compiled 0")
    printed = run_python(LOADED, FASTBP_CACHE=filled)
    assert "refused" not in printed
    assert printed.endswith("compiled 0")


@pytest.fixture
def stored(tmp_path):
    folder = tmp_path / "digest"
    folder.mkdir(mode=0o700)
    path = folder / "kernel.bin"
    path.write_bytes(b"code")
    path.chmod(0o600)
    return path


@posix
@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602, 0o620])
def test_neither_file_nor_folder_is_read_that_others_may_write(stored, mode):
    assert kernel_cache._read_trusted(stored) == b"code"
    for path in (stored, stored.parent):
        good = path.stat().st_mode
        path.chmod(mode | 0o100)
        with pytest.raises(PermissionError, match=f"got one that others may write, mode {mode | 0o100:o}"):
            kernel_cache._read_trusted(stored)
        path.chmod(good)
    assert kernel_cache._read_trusted(stored) == b"code"


def seems_to_belong_to(user, is_kind, monkeypatch):
    """Has files or folders seem to be of another user, whoever runs the tests."""
    true = os.fstat

    def fstat(descriptor):
        status = true(descriptor)
        return os.stat_result((*status[:4], user, *status[5:])) if is_kind(status.st_mode) else status

    monkeypatch.setattr(os, "fstat", fstat)


@posix
@pytest.mark.parametrize("is_kind", [stat.S_ISREG, stat.S_ISDIR])
def test_neither_file_nor_folder_of_another_user_is_read(stored, is_kind, monkeypatch):
    seems_to_belong_to(4711, is_kind, monkeypatch)
    with pytest.raises(PermissionError, match="got one of user 4711"):
        kernel_cache._read_trusted(stored)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert kernel_cache._read_trusted(stored) == b"code"


@posix
def test_what_belongs_to_root_is_read_by_others(stored, monkeypatch):
    seems_to_belong_to(0, lambda mode: True, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert kernel_cache._read_trusted(stored) == b"code"


@posix
def test_a_folder_that_is_a_link_and_a_file_that_is_a_pipe_give_nothing(stored, tmp_path):
    (tmp_path / "link").symlink_to(stored.parent)
    with pytest.raises(OSError, match="link"):
        kernel_cache._read_trusted(tmp_path / "link" / stored.name)
    stored.unlink()
    os.mkfifo(stored, 0o600)
    assert kernel_cache._read_trusted(stored) == b""


@posix
def test_a_refusal_leaves_no_file_open(stored):
    stored.chmod(0o666)
    before = os.dup(0)
    os.close(before)
    for _ in range(3):
        with pytest.raises(PermissionError):
            kernel_cache._read_trusted(stored)
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_where_there_are_no_owners_nothing_is_asked(stored, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_HAS_OWNERS", False)
    stored.chmod(0o666)
    assert kernel_cache._read_trusted(stored) == b"code"


def test_files_that_are_exchanged_are_not_loaded(package, tmp_path):
    cache = tmp_path / "cache"
    both = SIGMOID + "from fastbp.functions import relu; print(relu([-1.0, 3.0]))"
    good = run_python(both, package=package, FASTBP_CACHE=cache)
    files = sorted(entries(cache))
    contents = [path.read_bytes() for path in files]
    assert len(set(contents)) == len(files) > 2
    for path, content in zip(files, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    assert run_python(both, package=package, FASTBP_CACHE=cache) == good
    assert [path.read_bytes() for path in files] != [*contents[1:], contents[0]]


def test_files_of_other_sources_are_not_loaded(package, filled):
    source = package / "fastbp" / "runtime" / "elementary.py"
    edited = source.read_text().replace("return y + (multiply_add", "return _HALF(x) * y + (multiply_add")
    assert edited != source.read_text()
    source.write_text(edited)
    old = digest_folder(filled)
    folder = run_python(
        "from fastbp import kernels; print(kernels.cache_status())", package=package, FASTBP_CACHE=filled
    )
    assert folder != str(old)
    shutil.copytree(old, folder, dirs_exist_ok=True)
    assert run_python(SIGMOID, package=package, FASTBP_CACHE=filled).endswith("0.25")


def test_a_folder_that_goes_away_does_no_harm(package, tmp_path):
    cache = tmp_path / "cache"
    vanishing = f"import shutil, fastbp; shutil.rmtree({str(cache)!r}); open({str(cache)!r}, 'w').close()\n"
    assert run_python(vanishing + SIGMOID, package=package, FASTBP_CACHE=cache).endswith("0.5")


def test_a_folder_in_the_home_folder_is_found(package, tmp_path):
    printed = run_python(SIGMOID, package=package, HOME=tmp_path, USERPROFILE=tmp_path, FASTBP_CACHE="~/kept")
    assert printed.startswith(str(tmp_path / "kept"))
    assert entries(tmp_path / "kept")


@pytest.mark.parametrize("off", ["off", "OFF"])
def test_it_can_be_switched_off(package, tmp_path, off):
    printed = run_python(SIGMOID, package=package, FASTBP_CACHE=off, XDG_CACHE_HOME=tmp_path)
    assert printed.startswith("none (FASTBP_CACHE=off)")
    assert entries(tmp_path) == {}


def test_importing_compiles_nothing_and_needs_no_extra(package, tmp_path):
    code = """
import sys
import fastbp, fastbp.cli, fastbp.data
assert not compiled, compiled
optional = {"sklearn", "matplotlib", "tqdm", "pooch", "fastbp.graph"}
print(sorted(optional & set(sys.modules)))
"""
    assert run_python(COMPILATIONS + code, package=package, FASTBP_CACHE=tmp_path) == "[]"
    assert entries(tmp_path) == {}


def test_without_compilation_the_import_says_what_to_do(package):
    code = "try: import fastbp\nexcept RuntimeError as error: print(error)"
    printed = run_python(code, package=package, NUMBA_DISABLE_JIT=1)
    assert printed.startswith("NUMBA_DISABLE_JIT: expected unset or 0, got 1")
    assert "use_reference()" in printed


def test_a_ctrl_c_while_a_kernel_is_handed_over_is_a_ctrl_c(package, tmp_path):
    code = """
from fastbp.functions import sigmoid
from fastbp.runtime import cache as kernel_cache
from fastbp.runtime.groups import groups_of
def interrupted(parts): raise RuntimeError("no compiled object yet")
kernel_cache.dumps = interrupted
try: sigmoid([0.0])
except KeyboardInterrupt: print("stopped")
"""
    assert run_python(code, package=package, FASTBP_CACHE=tmp_path) == "stopped"
    assert entries(tmp_path) == {}


def compiled_signatures():
    """How many there are of all compiled functions in this process, loaded ones among them."""
    gc.collect()  # functions of earlier tests
    # By the type: `isinstance` would look through weak references, also those to what is gone.
    return sum(len(thing.overloads) for thing in gc.get_objects() if issubclass(type(thing), Dispatcher))


def test_a_second_architecture_compiles_and_loads_nothing():
    def network(*layers):
        return Sequential(layers, SoftmaxWithLoss())

    def affine(D, M):
        return Affine(rng.standard_normal((D, M)), np.zeros(M))

    rng = np.random.default_rng(0)
    x, t = rng.random((90, 20)), rng.integers(0, 5, 90)
    # A kernel compiles on its first use, in whatever network.
    first = network(affine(20, 8), Tanh(), Dropout(0.5, seed=0), ReLU(), Sigmoid(), affine(8, 5))
    first.fit(x, t, optimizer="adam", seed=0)
    before = compiled_signatures()
    assert before
    deep = network(
        Tanh(), affine(20, 30), ReLU(), Dropout(0.3, seed=0), affine(30, 8), Sigmoid(), affine(8, 5), Identity()
    )  # fmt: skip
    deep.fit(x, t, epochs=2, batch_size=40, optimizer=Adam(0.01, weight_decay=0.1), seed=0)
    network(affine(20, 500), ReLU(), affine(500, 5)).fit(x, t, optimizer="adam", sample_weight=rng.random(90))
    assert compiled_signatures() == before
