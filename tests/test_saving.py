"""Files of networks and arrays: what goes in comes out, damage is refused, and a failed write changes nothing."""

import contextlib
import copy
import errno
import io
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from fastbp import (
    History,
    Sequential,
    TwoLayerNet,
    contents,
    files,
    layers,
    load,
    optimizers,
    save,
    saving,
    use_reference,
)
from fastbp.layers import Affine, CrossEntropyError, IdentityWithLoss, ReLU, Sigmoid, Softmax, SoftmaxWithLoss
from fastbp.saving import network_contents, network_from, read, write
from tests.subprocesses import ROOT, run_python

ARRAYS = {
    "float64": np.array([[1.5, -0.0], [np.nan, np.inf], [5e-324, -np.inf]]),
    "float32": np.array([0.1, np.nan, -np.inf], np.float32),
    "float16": np.array([0.1], np.float16),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "uint8": np.arange(256, dtype=np.uint8),
    "bool": np.array([True, False]),
    "big-endian": np.array([1.5, 2.5], ">f8"),
    "0-d": np.array(3.5),
    "empty": np.empty((0, 3), np.float32),
    "strided": np.arange(24.0).reshape(4, 6)[::-2, 1::3],
    "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "layer 1/W": np.ones(1),
    "file": np.ones(2),
    "a.npy": np.ones(3),
}
NAN_WITH_PAYLOAD = np.array([0x7FF8DEADBEEF0001], np.uint64).view(np.float64)


def assert_bitwise(got, expected):
    assert type(got) is type(expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


@pytest.fixture
def path(tmp_path):
    """Where a file named old, with one array, is already."""
    write(tmp_path / "network.npz", {"x": np.arange(5.0)}, {"name": "old"})
    return tmp_path / "network.npz"


def assert_old_and_alone(path):
    arrays, meta = read(path)
    assert_bitwise(arrays["x"], np.arange(5.0))
    assert meta == {"name": "old"}
    assert os.listdir(path.parent) == [path.name]


def stack(dtype=np.float64):
    """Every kind of layer that a stack can have, under names of its own, with weights in two layouts."""
    rng = np.random.default_rng(7)
    W1, W2 = rng.standard_normal((4, 6)).astype(dtype), rng.standard_normal((5, 6)).astype(dtype).T
    return Sequential(
        {
            "first": Affine(W1, rng.standard_normal(6).astype(dtype)),
            "bend": ReLU(),
            "": Sigmoid(),
            "層 2": Affine(W2, rng.standard_normal(5).astype(dtype)),
            "out": Softmax(),
        },
        CrossEntropyError(),
    )


# Arrays and meta


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_bitwise(tmp_path, name):
    write(tmp_path / "a", {name: ARRAYS[name]}, {})
    arrays, meta = read(tmp_path / "a")
    assert (list(arrays), meta) == ([name], {})
    assert_bitwise(arrays[name], ARRAYS[name])
    assert arrays[name].flags.writeable


def test_the_bits_of_a_nan_come_back(tmp_path):
    write(tmp_path / "a", {"x": NAN_WITH_PAYLOAD}, {"x": NAN_WITH_PAYLOAD})
    arrays, meta = read(tmp_path / "a")
    assert_bitwise(arrays["x"], NAN_WITH_PAYLOAD)
    assert_bitwise(meta["x"], NAN_WITH_PAYLOAD)


def test_many_arrays_keep_their_order_and_no_suffix_is_added(tmp_path):
    write(tmp_path / "model", ARRAYS, {})
    assert os.listdir(tmp_path) == ["model"]
    assert list(read(str(tmp_path / "model"))[0]) == list(ARRAYS)


def test_meta_comes_back(tmp_path):
    meta = {
        "none": None, "yes": True, "text": "層 \ud800 \0", "list": [1, [2.5, "x"], {}], "big": 2**128 - 1,
        "floats": [0.1, 5e-324, -0.0, math.inf], "": {"deep": {"er": []}},
    }  # fmt: skip
    write(tmp_path / "a", {}, meta)
    again = read(tmp_path / "a")[1]
    assert again == meta
    assert repr(again) == repr(meta)


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64(np.nan), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True), np.float16(2)],
    ids=repr,
)
def test_numbers_of_numpy_in_meta_come_back_bitwise(tmp_path, value):
    write(tmp_path / "a", {}, {"value": value})
    assert_bitwise(read(tmp_path / "a")[1]["value"], value)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_in_meta_come_back_bitwise(tmp_path, name):
    write(tmp_path / "a", {}, {"value": [ARRAYS[name]]})
    assert_bitwise(read(tmp_path / "a")[1]["value"][0], ARRAYS[name])


def test_a_history_comes_back(tmp_path):
    history = History()
    history.append(epoch=1, loss=0.1, val_loss=math.inf)
    history.extend_steps([0.3, 0.2])
    write(tmp_path / "a", {}, {"history": history.to_dict()})
    assert History.from_dict(read(tmp_path / "a")[1]["history"]).to_dict() == history.to_dict()


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_a_random_generator_goes_on_where_it_was(tmp_path, kind):
    rng = np.random.Generator(getattr(np.random, kind)(3))
    rng.standard_normal(7, np.float32)
    write(tmp_path / "a", {}, {"rng": rng.bit_generator.state})
    again = np.random.Generator(getattr(np.random, kind)(4))
    again.bit_generator.state = read(tmp_path / "a")[1]["rng"]
    np.testing.assert_array_equal(again.random(100), rng.random(100))


def test_numpy_reads_the_file_without_pickle(tmp_path):
    write(tmp_path / "a.npz", {"W1": ARRAYS["float64"]}, {"epochs": 3})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file.files == ["fastbp", "W1"]
        assert_bitwise(file["W1"], ARRAYS["float64"])
        assert json.loads(file["fastbp"].item()) == {"format": "fastbp", "version": 1, "meta": {"epochs": 3}}


def test_the_same_contents_give_the_same_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, ARRAYS, {"name": "same"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Odd:
    pass


@pytest.mark.parametrize(
    ("arrays", "meta", "says"),
    [
        ([], {}, "arrays: expected a dict by name, got list"),
        ({}, [], "meta: expected a dict by name, got list"),
        ({1: np.ones(1)}, {}, "arrays: expected names as keys, got 1"),
        ({"x": [1.0]}, {}, r"arrays\['x'\]: expected a NumPy array, got list"),
        ({"x": np.array([Odd()])}, {}, r"arrays\['x'\]: expected real numbers .* object"),
        ({"x": np.array(["text"])}, {}, r"arrays\['x'\]: expected real numbers .* <U4"),
        ({"x": np.ma.masked_equal([1, 2], 1)}, {}, r"arrays\['x'\]: expected a plain array, got a masked"),
        ({}, {"a": [{1, 2}]}, r"meta\['a'\]\[0\]: expected None, a boolean, .* got set"),
        ({}, {"a": Odd()}, r"meta\['a'\]: expected None, a boolean, .* got Odd"),
        ({}, {"a": {1: 2}}, r"meta\['a'\]: expected strings as keys, .* got 1"),
        ({}, {"a": np.array([Odd()])}, r"meta\['a'\]: expected real numbers .* object"),
    ],
)
def test_what_a_file_cannot_hold_is_a_type_error(path, arrays, meta, says):
    with pytest.raises(TypeError, match=says):
        write(path, arrays, meta)
    assert_old_and_alone(path)


@pytest.mark.parametrize("name", ["", "fastbp", "a\0b", "\ud800"])
def test_a_name_that_no_member_can_have_is_refused(path, name):
    with pytest.raises(ValueError, match="arrays: expected a printable name other than 'fastbp', got"):
        write(path, {name: np.ones(1)}, {})
    assert_old_and_alone(path)


def test_a_key_that_stands_for_numpy_values_is_refused(path):
    with pytest.raises(ValueError, match="meta: expected strings as keys, 'numpy dtype' not among them"):
        write(path, {}, {"numpy dtype": "f8"})


# Damage


def test_a_flipped_bit_anywhere_is_refused(path, rng):
    content = path.read_bytes()
    spots = {*rng.integers(0, len(content), 60), *range(40), *range(len(content) - 100, len(content))}
    for spot in spots:
        damaged = bytearray(content)
        damaged[spot] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"network.npz: expected a .*, got .*; "):
            read(path)


def test_a_flipped_byte_of_a_network_is_refused(tmp_path, rng):
    path = tmp_path / "network.npz"
    save(TwoLayerNet(20, 10, 3, seed=0), path)
    content = path.read_bytes()
    for spot in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[spot] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"network.npz: expected a .*, got .*; "):
            load(path)


def test_a_file_cut_anywhere_is_refused(path, rng):
    content = path.read_bytes()
    for length in {*rng.integers(0, len(content), 30), 1, 4, 30, 40, 80, len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"network.npz: expected a .*, got .*; "):
            read(path)


def test_a_longer_file_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="truncated or damaged"):
        read(path)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def run_from_a_file():
    pytest.fail("code in a file was run")


class Bomb:
    def __reduce__(self):
        return run_from_a_file, ()


FOREIGN = {
    "empty": (b"", "got an empty one"),
    "text": (b"W1 = 0.5\n", "got one that starts b'W1 = 0.5'"),
    "npy": (b"\x93NUMPY\x01\0", "got one that starts"),
    "npz": (npz(W1=np.ones(3)), "got another .npz or ZIP file"),
    "npz with our name": (npz(fastbp=np.ones(3)), "bytes that differ from their checksum"),
    "pickle": (pickle.dumps({"W1": Bomb()}), "got one that starts b'\\\\x80"),
    "pickle in an npz": (npz(fastbp=np.array([Bomb()])), "bytes that differ from their checksum"),
}


@pytest.mark.parametrize(("content", "says"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused(tmp_path, content, says):
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    for reader in (read, load):
        with pytest.raises(ValueError, match=f"foreign.npz: expected a .*{says}.*; "):
            reader(path)


def signed(members):
    """A file with a right checksum and whatever is in `members`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = bytes(files._CHECKSUM_LENGTH)
    content = bytearray(buffer.getvalue())
    content[-files._CHECKSUM_LENGTH :] = files._checksum(content)
    return content


def npy(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def header(**content):
    return npy(np.array(json.dumps(content).encode()))


CRAFTED = {
    "no header": {"fastbp.npy": b""},
    "header of numbers": {"fastbp.npy": npy(np.ones(1))},
    "header of other json": {"fastbp.npy": header(version=1)},
    "header with a pickle": {"fastbp.npy": npy(np.array([Bomb()]), allow_pickle=True)},
    "array with a pickle": {
        "fastbp.npy": header(version=1, meta={}),
        "W1.npy": npy(np.array([Bomb()]), allow_pickle=True),
    },
    "short array": {"fastbp.npy": header(version=1, meta={}), "W1.npy": npy(np.ones(9))[:-1]},
    "objects in meta": {"fastbp.npy": header(version=1, meta={"numpy dtype": "O", "shape": [1], "hex": "00" * 8})},
}


@pytest.mark.parametrize("members", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_file_is_refused_and_runs_nothing(tmp_path, members):
    path = tmp_path / "crafted.npz"
    path.write_bytes(signed(members))
    with pytest.raises(ValueError, match=r"crafted.npz: expected the members of a file that fastbp saved, got others"):
        read(path)


def test_a_file_of_a_later_version_says_so(path, monkeypatch):
    monkeypatch.setattr(files, "VERSION", 2)
    write(path, {}, {})
    assert read(path) == ({}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"network.npz: expected .* version 1 at most, got version 2; read it with a"):
        read(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for reader in (read, load):
        with pytest.raises(FileNotFoundError, match=r"nothing.npz: expected a file that fastbp saved, got none there"):
            reader(tmp_path / "nothing.npz")
        with pytest.raises(ValueError, match="expected a file, got a folder"):
            reader(tmp_path)
        with pytest.raises(TypeError, match="path: expected a str or Path, got int"):
            reader(3)


# Writing


def test_a_kill_at_any_time_leaves_a_whole_file(tmp_path):
    code = f"""
import os, random, signal, time
import numpy as np
from fastbp.saving import read, write

path, random = {str(tmp_path / "network.npz")!r}, random.Random(0)
contents = [np.full(500_000, value) for value in (1.0, 2.0)]
write(path, {{"x": contents[0]}}, {{}})
whole = 0
for kill in range(10):
    child = os.fork()
    if not child:
        while True:
            for x in contents:
                write(path, {{"x": x}}, {{}})
    time.sleep(random.uniform(0.005, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    x = read(path)[0]["x"]
    whole += any(np.array_equal(x, content) for content in contents)
print(whole)
"""
    assert run_python(code, OPENBLAS_NUM_THREADS=1) == "10"


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    code = f"""
import os, signal, sys, time
from fastbp import saving

def stop(_):
    print("writing", flush=True)
    time.sleep(60)

os.fsync = stop
saving.write({str(tmp_path / "network.npz")!r}, {{}}, {{"name": sys.argv[1]}})
"""
    writers = dead, alive = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=ROOT, stdout=subprocess.PIPE)
        for name in ("dead", "alive")
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"writing\n"
    other, foreign = tmp_path / "other.npz", tmp_path / ".fastbp-notes.tmp"
    write(other, {}, {})
    foreign.touch()
    dead.kill()
    dead.wait()
    assert len(list(tmp_path.glob(".fastbp-*.tmp"))) == 3
    write(other, {}, {})
    assert len(list(tmp_path.glob(".fastbp-*.tmp"))) == 3
    write(tmp_path / "network.npz", {}, {"name": "new"})
    left = set(tmp_path.glob(".fastbp-*.tmp")) - {foreign}
    assert len(left) == 1
    assert b"alive" in left.pop().read_bytes()
    alive.kill()
    alive.wait()
    for writer in writers:
        writer.stdout.close()
    write(tmp_path / "network.npz", {}, {"name": "newer"})
    assert set(tmp_path.iterdir()) == {other, foreign, tmp_path / "network.npz"}


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_is_written_again(path, monkeypatch):
    taken = []

    def open_and_lose(name, mode):
        opened = io.FileIO(name, mode.replace("b", ""))
        if not taken:
            taken.append(name)
            os.unlink(name)
        return opened

    monkeypatch.setattr(files, "open", open_and_lose, raising=False)
    write(path, {"x": np.ones(3)}, {"name": "new"})
    monkeypatch.undo()
    assert read(path)[1] == {"name": "new"}
    assert os.listdir(path.parent) == [path.name]
    assert len(taken) == 1


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullFile(io.FileIO):
    """Takes a thousand bytes and then no more."""

    def write(self, content):
        super().write(content[:1000])
        full_disk()


@pytest.mark.parametrize(
    ("target", "name", "failing"),
    [
        (os, "fsync", full_disk),
        (os, "replace", full_disk),
        (files, "open", lambda path, _: FullFile(path, "x")),
    ],
    ids=["fsync", "rename", "write"],
)
def test_a_full_disk_leaves_the_old_file(path, monkeypatch, target, name, failing):
    monkeypatch.setattr(target, name, failing, raising=target is os)
    with pytest.raises(OSError, match=r"network.npz: expected to write [\d,]+ bytes, got No space left") as error:
        write(path, {"x": np.ones(1000)}, {})
    assert error.value.errno == errno.ENOSPC
    assert_old_and_alone(path)


def test_ctrl_c_leaves_the_old_file(path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(path, {}, {})
    monkeypatch.undo()
    assert_old_and_alone(path)


def test_the_content_is_on_the_disk_before_it_has_the_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a)))
    write(path, {}, {})
    assert calls == ["fsync", "replace", "fsync"]


@pytest.fixture
def read_only_folder():
    """A folder that this process cannot write to; root takes the rights of another user meanwhile."""
    folder = Path(tempfile.mkdtemp())
    write(folder / "network.npz", {"x": np.arange(5.0)}, {"name": "old"})
    (folder / "network.npz").chmod(0o644)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder_is_refused(read_only_folder):
    path = read_only_folder / "network.npz"
    with pytest.raises(PermissionError, match=r"network.npz: expected to write .* its folder can be written to"):
        write(path, {}, {})
    assert_old_and_alone(path)


def test_a_missing_folder_and_what_is_no_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected a folder .*missing, got none there; make it first"):
        write(tmp_path / "missing" / "network.npz", {}, {})
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="expected a file or a new name, got a folder or a device"):
            write(other, {}, {})
    with pytest.raises(TypeError, match="path: expected a str or Path, got int"):
        write(1, {}, {})


def test_a_replaced_file_keeps_its_mode_and_a_link_stays_a_link(path):
    path.chmod(0o640)
    link = path.with_name("latest.npz")
    link.symlink_to(path.name)
    write(link, {}, {"name": "new"})
    assert link.is_symlink()
    assert read(path)[1] == {"name": "new"}
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_mode_that_open_gives(tmp_path):
    write(tmp_path / "network.npz", {}, {})
    (tmp_path / "other").touch()
    assert (tmp_path / "network.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_name_of_full_length_can_be_saved(tmp_path):
    write(tmp_path / ("n" * 251 + ".npz"), {}, {})
    assert len(os.listdir(tmp_path)) == 1


# Networks


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_stack_comes_back_equal(tmp_path, rng, dtype):
    network, x = stack(dtype), rng.standard_normal((9, 4)).astype(dtype)
    save(network, tmp_path / "stack.npz")
    again = load(tmp_path / "stack.npz")
    assert type(again) is Sequential
    assert type(again.last_layer) is CrossEntropyError
    assert type(again.layers) is OrderedDict
    assert [(name, type(layer)) for name, layer in again.layers.items()] == [
        (name, type(layer)) for name, layer in network.layers.items()
    ]
    assert list(again.params) == list(network.params)
    for key, value in network.params.items():
        assert_bitwise(again.params[key], value)
    assert_bitwise(again.predict(x), network.predict(x))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_books_network_comes_back_and_trains_on(tmp_path, rng, dtype):
    network = TwoLayerNet(6, 5, 3, dtype=dtype, seed=1)
    x, t = rng.standard_normal((8, 6)).astype(dtype), rng.integers(0, 3, 8)
    network.loss(x, t)
    save(network, tmp_path / "two")
    again = load(tmp_path / "two")
    assert type(again) is TwoLayerNet
    assert type(again.lastLayer) is SoftmaxWithLoss
    assert list(again.layers) == ["Affine1", "Relu1", "Affine2"]
    assert again.params["W1"] is again.layers["Affine1"].W
    assert again.params["W1"].flags.writeable
    assert_bitwise(again.predict(x), network.predict(x))
    for key, grad in network.gradient(x, t).items():
        assert_bitwise(again.gradient(x, t)[key], grad)


def test_loading_draws_no_random_numbers(tmp_path):
    save(TwoLayerNet(6, 5, 3, seed=1), tmp_path / "two")
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    load(tmp_path / "two")
    assert np.random.rand() == expected


def test_one_array_in_two_layers_is_one_array_again(tmp_path):
    W, b = np.ones((3, 3)), np.zeros(3)
    save(Sequential([Affine(W, b), Affine(W, b.copy())], IdentityWithLoss()), tmp_path / "tied")
    params = load(tmp_path / "tied").params
    assert params["W1"] is params["W2"]
    assert params["b1"] is not params["b2"]


def test_a_layer_put_in_place_of_another_is_what_is_saved(tmp_path):
    network = TwoLayerNet(3, 4, 2, seed=0)
    network.layers["Affine2"] = Affine(np.full((4, 2), 2.0), np.ones(2))
    save(network, tmp_path / "changed")
    assert_bitwise(load(tmp_path / "changed").predict(np.ones((1, 3))), network.predict(np.ones((1, 3))))


def test_numpy_finds_the_parameters_by_their_names(tmp_path):
    network = TwoLayerNet(3, 4, 2, seed=0)
    save(network, tmp_path / "two.npz")
    with np.load(tmp_path / "two.npz", allow_pickle=False) as file:
        assert set(file.files) == {"fastbp", *network.params}
        assert_bitwise(file["W2"], network.params["W2"])


def test_more_can_be_saved_beside_a_network(tmp_path):
    network = TwoLayerNet(3, 4, 2, seed=0)
    arrays, meta = network_contents(network)
    write(tmp_path / "more", arrays | {"optimizer.v.W1": np.ones((3, 4))}, meta | {"epoch": 7})
    assert_bitwise(load(tmp_path / "more").params["W1"], network.params["W1"])
    assert read(tmp_path / "more")[1]["epoch"] == 7


def test_every_layer_of_the_library_can_be_saved():
    assert {getattr(layers, name) for name in layers.__all__} == set(contents.LAYERS)


class Doubling(ReLU):
    pass


class OwnNetwork(Sequential):
    pass


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (Sequential({"twice": Doubling()}, SoftmaxWithLoss()), "twice: expected a layer of .*, got Doubling"),
        (Sequential([ReLU()], type("OwnLoss", (SoftmaxWithLoss,), {})()), "loss: expected a layer .*, got OwnLoss"),
        (
            OwnNetwork([ReLU()], SoftmaxWithLoss()),
            "network: expected one of Sequential, TwoLayerNet, .*, got OwnNetwork",
        ),
    ],
    ids=["layer", "loss", "network"],
)
def test_a_custom_class_is_refused_and_says_how_to_save(path, network, says):
    with pytest.raises(TypeError, match=rf"{says}.*np.savez\(path, \*\*dict\(network.params\)\)"):
        save(network, path)
    assert_old_and_alone(path)


def test_the_way_to_save_a_custom_network_that_the_error_names_works(tmp_path):
    network = Sequential([Affine(np.ones((2, 2)), np.zeros(2)), Doubling()], SoftmaxWithLoss())
    np.savez(tmp_path / "own.npz", **dict(network.params))
    with np.load(tmp_path / "own.npz") as file:
        network.params.update(file)
    assert_bitwise(network.params["W1"], np.ones((2, 2)))


def test_a_file_of_something_else_is_no_network(path):
    with pytest.raises(ValueError, match=r"network.npz: meta: expected the description of a network, got only \['name"):
        load(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda network: network.update({"class": "Popen"}), "expected the network to be .*, got 'Popen'"),
        (
            lambda network: network["loss"].update({"class": "Later"}),
            "expected the layer to be .*, got 'Later'; load it",
        ),
        (lambda network: network.pop("layers"), "one that does not fit .'layers'"),
        (lambda network: network["layers"][0].update(arrays={"W": "W9"}), "one that does not fit .'W9'"),
        (lambda network: network["layers"][0]["arrays"].update(b="W1"), "b: expected 1 dimension"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change, says):
    arrays, meta = network_contents(TwoLayerNet(3, 4, 2, seed=0))
    change(meta["network"])
    with pytest.raises(ValueError, match=says):
        network_from(arrays, meta)


# Training that goes on from a file


def trained(name="adam", lr=0.01):
    rng = np.random.default_rng(3)
    network = Sequential(
        [
            Affine(rng.standard_normal((6, 8)), np.zeros(8)), layers.Tanh(), layers.Dropout(0.4, seed=5),
            Affine(rng.standard_normal((8, 3)), np.zeros(3)),
        ],
        SoftmaxWithLoss(),
    )  # fmt: skip
    optimizer = optimizers.optimizer(name)
    optimizer.lr, optimizer.weight_decay = lr, 1e-3
    train_on(network, optimizer, seed=0)
    return network, optimizer


def train_on(network, optimizer, seed):
    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    network.fit(x, t, epochs=3, batch_size=16, optimizer=optimizer, seed=seed)


def assert_same_training(ours, theirs):
    (network, optimizer), (other, its_optimizer) = ours, theirs
    assert type(its_optimizer) is type(optimizer)
    assert its_optimizer.iter == optimizer.iter
    for key, value in network.params.items():
        assert_bitwise(other.params[key], value)
    for name in optimizer.state_names():
        state, its_state = getattr(optimizer, name), getattr(its_optimizer, name)
        assert list(its_state) == list(state)
        for key, value in state.items():
            assert_bitwise(its_state[key], value)


@pytest.mark.parametrize("on_reference", [False, True], ids=["engine", "layer by layer"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"])
def test_a_loaded_network_and_its_optimizer_train_on_as_if_never_saved(tmp_path, name, on_reference):
    with use_reference() if on_reference else contextlib.nullcontext():
        network, optimizer = trained(name, 0.01 / np.arange(1, 30))
        network.save(tmp_path / "run.npz", optimizer)
        again = load(tmp_path / "run.npz")
        assert_same_training((network, optimizer), (again, again.optimizer))
        for setting in optimizer.setting_names():
            np.testing.assert_array_equal(getattr(again.optimizer, setting), getattr(optimizer, setting))
        train_on(network, optimizer, seed=1)
        train_on(again, again.optimizer, seed=1)
    assert_same_training((network, optimizer), (again, again.optimizer))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_what_was_loaded_train_on_the_same_way(tmp_path, clone):
    network, optimizer = trained()
    network.save(tmp_path / "run.npz", optimizer)
    again = clone(load(tmp_path / "run.npz"))
    train_on(network, optimizer, seed=1)
    train_on(again, again.optimizer, seed=1)
    assert_same_training((network, optimizer), (again, again.optimizer))


def test_without_an_optimizer_the_masks_of_dropout_go_on_all_the_same(tmp_path):
    network, _ = trained()
    network.save(tmp_path / "network.npz")
    again = load(tmp_path / "network.npz")
    assert again.optimizer is None
    assert again.layers["Dropout1"].step == network.layers["Dropout1"].step == 12
    with np.load(tmp_path / "network.npz") as file:
        assert set(file.files) == {"fastbp", *network.params}


def test_an_optimizer_that_was_never_used_comes_back(tmp_path):
    TwoLayerNet(3, 4, 2, seed=0).save(tmp_path / "new.npz", optimizers.Momentum(0.5, 0.8))
    optimizer = load(tmp_path / "new.npz").optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.v, optimizer.iter) == (0.5, 0.8, None, 0)


class OwnSGD(optimizers.SGD):
    pass


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        ("adam", "optimizer: expected one of the classes SGD, .*, got str"),
        (OwnSGD(0.1), "optimizer: expected one of the classes SGD, .*, got OwnSGD; save the network alone"),
        (optimizers.SGD(lambda step: 0.1), "optimizer.lr: expected a number or an array, got function, which no file"),
    ],
    ids=["name", "class", "function"],
)
def test_an_optimizer_that_no_file_can_hold_is_refused(path, optimizer, says):
    with pytest.raises(TypeError, match=says):
        TwoLayerNet(3, 4, 2, seed=0).save(path, optimizer)
    assert_old_and_alone(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class": "Later"}, "expected the optimizer to be .*, got 'Later'; load it"),
        ({"iter": -1}, "iter: expected at least 0, got -1"),
        ({"iter": "7"}, "one that does not fit .iter: expected an integer"),
        ({"settings": {"lr": 0.1, "speed": 1}}, "one that does not fit .*speed"),
        ({"settings": {"lr": -0.1}}, "lr: expected a number that is at least 0"),
    ],
    ids=str,
)
def test_a_description_of_an_optimizer_that_does_not_fit_is_refused(path, change, says):
    network, optimizer = trained()
    arrays, meta = saving.optimizer_contents(optimizer)
    meta["optimizer"] |= change
    more_arrays, more_meta = network_contents(network)
    write(path, arrays | more_arrays, meta | more_meta)
    with pytest.raises(ValueError, match=rf"network.npz: .*{says}"):
        load(path)


def test_a_step_of_dropout_that_is_no_count_is_refused():
    arrays, meta = network_contents(trained()[0])
    meta["network"]["layers"][2]["settings"]["step"] = -1
    with pytest.raises(ValueError, match="step: expected at least 0, got -1"):
        network_from(arrays, meta)
