"""The cache of compiled kernels.

Numba's own on-disk cache looks only at the file that holds a function. A kernel that calls a function in
another file would go on running that function's old code after an edit, and one damaged file would fail
every call. So the kernels keep a cache of their own, through the same hooks:

- A digest of every kernel source names its folder, so that no edit can leave old code behind.
- Each compiled signature is one file with a checksum over its content and its name, written aside and renamed. A
  file that is damaged, missing, unreadable or in another's place only means compiling again.
- A folder or a file that belongs to another user than this one or root, or that others may write, is not read: it
  would be run.
- A full folder that cannot be written is read all the same.
- Where there is no folder the kernels compile without a cache, and `cache_status` says why.

`FASTBP_CACHE` places the cache (a folder) or turns it off (`off`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from fastbp.runtime.linking import are_met, needs_of


def cache_status() -> str:
    """Where compiled kernels are kept, or why they are not, and which of them are refused."""
    folder, reason = _CACHE
    if folder is not None:
        reason = "; ".join(filter(None, (reason, _refused_files(folder))))
    return f"{folder or 'none'} ({reason})" if reason else str(folder)


def cache_folder() -> Path:
    """The folder of compiled kernels, to which this process can write.

    Raises
    ------
    PermissionError
        If there is none, or it cannot be written.
    """
    folder, reason = _CACHE
    if folder is None or reason:
        raise PermissionError(
            f"FASTBP_CACHE: expected a folder for compiled kernels that can be written, got {folder or 'none'} "
            f"({reason}); name another one"
        )
    return folder


def check_all_saved() -> None:
    """Raise `OSError` if this process compiled kernels that it could not save."""
    if _lost:
        raise OSError(
            f"FASTBP_CACHE: expected room for the compiled kernels, got {_lost[0]} for the first of {len(_lost)}; "
            f"make room, or name another folder"
        )


def kernel_cache(name: str) -> Any:
    """The cache of the kernel of that name, in the form that a Numba dispatcher asks for; None where there is none."""
    folder, _ = _CACHE
    return None if folder is None else _KernelCache(name, folder)


class _KernelCache:
    """The compiled signatures of one kernel on disk, in the form that a Numba dispatcher asks for."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        target_context.refresh()
        path = self._path(signature, target_context.codegen())
        try:
            stored = _read_trusted(path)
        except OSError:
            return None
        checksum, payload = stored[:32], stored[32:]
        if _checksum(path, payload) != checksum:
            return None
        reduced, needs = pickle.loads(payload)
        return CompileResult._rebuild(target_context, *reduced) if are_met(*needs) else None

    def save_overload(self, signature: Any, result: Any) -> None:
        if result.library.has_dynamic_globals or any(not lifted.can_cache for lifted in result.lifted):
            return
        try:
            payload = dumps((result._reduce(), needs_of(result)))
        except RuntimeError:
            # LLVM hands the code over in a callback. A Ctrl-C that lands there is dropped, and the code with it.
            raise KeyboardInterrupt from None
        path = self._path(signature, result.codegen)
        try:
            _replace(path, _checksum(path, payload) + payload)
        except OSError as error:
            # A full disk, or a folder that became read-only: the compiled code is in memory all the same.
            _lost.append(error)

    def flush(self) -> None:
        for path in self._folder.glob(f"{self._name}-*.bin"):
            path.unlink(missing_ok=True)

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = hashlib.sha256(repr((signature, codegen.magic_tuple())).encode()).hexdigest()
        return self._folder / f"{self._name}-{key[:32]}.bin"


def _checksum(path: Path, payload: bytes) -> bytes:
    """The checksum of a file's content, its name and its folder's name, so that no other file can replace it."""
    checksum = hashlib.sha256(f"{path.parent.name}/{path.name}/".encode())
    checksum.update(payload)
    return checksum.digest()


def _read_trusted(path: Path) -> bytes:
    """The content of a file, if no other user can have written it, or put it into its folder meanwhile."""
    if not _HAS_OWNERS:
        return path.read_bytes()
    folder = _open_trusted(path.parent, os.O_RDONLY | _FOLDER)
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        opener = functools.partial(_open_trusted, folder=folder)
        with open(path.name, "rb", opener=lambda name, flags: opener(name, flags | os.O_NONBLOCK)) as file:
            return file.read()
    finally:
        os.close(folder)


def _open_trusted(path: Path | str, flags: int, folder: int | None = None) -> int:
    """A descriptor of a file or folder that belongs to this user or root, who may change Python itself.

    Raises
    ------
    PermissionError
        If it belongs to another, or others may write to it.
    """
    descriptor = os.open(path, flags, dir_fd=folder)
    status = os.fstat(descriptor)
    if status.st_uid not in (os.geteuid(), 0):
        found = f"one of user {status.st_uid}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        found = f"one that others may write, mode {stat.S_IMODE(status.st_mode):o}"
    else:
        return descriptor
    os.close(descriptor)
    raise PermissionError(
        f"{path}: expected a cache that only this user (or root) can write, as its code is run, got {found}; "
        f"remove it, or name another folder with FASTBP_CACHE"
    )


def _refused_files(folder: Path) -> str:
    """Which files of a cache are not read, and why the first is not."""
    refused = []
    for path in sorted(folder.glob("*.bin")) if _HAS_OWNERS else ():
        try:
            os.close(_open_trusted(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            refused.append(str(error))
    return f"{len(refused)} files refused, the first: {refused[0]}" if refused else ""


def _replace(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _source_digest() -> str:
    """Digest of every kernel source and of the versions that turn it into machine code."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {np.__version__} {sys.version}".encode())
    package = Path(__file__).parents[1]
    for source in sorted(path for folder in _WITH_KERNELS for path in (package / folder).rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()[:16]


# The folders of the package that hold kernels.
_WITH_KERNELS = ("engine", "ops", "runtime")


def _user_cache_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastbp" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastbp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastbp"


def _find_cache() -> tuple[Path | None, str]:
    """The folder for compiled kernels, or None; and what is wrong with it, if anything."""
    chosen = os.environ.get("FASTBP_CACHE", "")
    if chosen.lower() == "off":
        return None, "FASTBP_CACHE=off"
    if CompileResult is None:
        return None, f"numba {numba.__version__} has no hooks for it"
    try:
        folder = (Path(chosen).expanduser() if chosen else _user_cache_folder()).absolute() / _source_digest()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _HAS_OWNERS:
            os.close(_open_trusted(folder, os.O_RDONLY | _FOLDER))
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder can be determined
        return None, str(error)
    return folder, "" if os.access(folder, os.W_OK) else "read-only"


# Windows has no users by number, and keeps what is in a user's own folder from others.
_HAS_OWNERS = hasattr(os, "geteuid") and os.open in os.supports_dir_fd

# How a folder is opened: not through a link, which another owner of the folder above may have put there.
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)

try:
    from numba.core.compiler import CompileResult
    from numba.core.serialize import dumps
except ImportError:
    CompileResult = None

_CACHE = _find_cache()

# The errors with which compiled code could not be saved.
_lost: list[OSError] = []
