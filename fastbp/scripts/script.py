"""One script in this process, as if it were run by Python in its own folder."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from fastbp.book.mnist import FOLDER_VARIABLE
from fastbp.scripts.answers import answered, answers_for, is_answered
from fastbp.scripts.pictures import Album, collected

__all__ = ["check_data", "check_script", "run"]


def run(
    script: Path,
    arguments: Sequence[str],
    pictures: Album,
    *,
    is_numpy: bool = False,
    data: Path | None = None,
    seed: int | None = None,
) -> tuple[int, float]:
    """Run a script with its folder for the working directory, and put everything back.

    Parameters
    ----------
    script : Path
    arguments : sequence of str
        What it finds in `sys.argv`.
    pictures : Album
        Takes what it shows.
    is_numpy : bool
        Leave the modules of the book to the book's own files.
    data : Path, optional
        The folder of MNIST's files.
    seed : int, optional
        Of NumPy's global generator.

    Returns
    -------
    status : int
        What it exits with; 1 after an exception, whose traceback goes to stderr.
    seconds : float
        From its first line to its last.

    Raises
    ------
    FileNotFoundError
        If there is no such script or folder.
    """
    check_script(script)
    check_data(data)
    path = script.resolve()
    source = path.read_bytes()
    with _in_folder(path, arguments, data), collected(pictures), answered(answers_for(path.parent, is_numpy)):
        if seed is not None:
            np.random.seed(seed)
        start = time.perf_counter()
        status = _execute(path, source)
        return status, time.perf_counter() - start


def check_script(script: Path) -> None:
    """Raise FileNotFoundError if there is no such script."""
    if not script.is_file():
        raise FileNotFoundError(f"SCRIPT: expected a file, got {script}, which is none; check the path")


def check_data(data: Path | None) -> None:
    """Raise FileNotFoundError if there is no such folder."""
    if data is not None and not data.is_dir():
        raise FileNotFoundError(f"--data: expected a folder with the MNIST files, got {data}, which is none")


def _execute(path: Path, source: bytes) -> int:
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(main))
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except SystemExit as end:
        return _status(end.code)
    except BaseException as error:
        sys.stdout.flush()
        frames = error.__traceback__
        traceback.print_exception(error.with_traceback(frames.tb_next if frames is not None else None))
        return 1
    return 0


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


@contextmanager
def _in_folder(path: Path, arguments: Sequence[str], data: Path | None) -> Iterator[None]:
    """What Python sets up for a script that is started in its own folder."""
    folder, environment = Path.cwd(), os.environ.get(FOLDER_VARIABLE)
    kept = sys.argv, list(sys.path), sys.modules["__main__"], set(sys.modules)
    if data is not None:
        os.environ[FOLDER_VARIABLE] = str(data.resolve())
    sys.argv = [path.name, *arguments]
    sys.path.insert(0, str(path.parent))
    os.chdir(path.parent)
    importlib.invalidate_caches()  # what ".." was before is another folder now
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv, sys.path[:], sys.modules["__main__"], before = kept
        if environment is not None:
            os.environ[FOLDER_VARIABLE] = environment
        else:
            os.environ.pop(FOLDER_VARIABLE, None)
        for name in set(sys.modules) - before:
            if _is_of_script(sys.modules[name], path.parent):
                del sys.modules[name]


def _is_of_script(module: ModuleType, folder: Path) -> bool:
    """Whether a module is one that the next script has to import anew."""
    if is_answered(module):
        return True
    places = [module.__file__] if getattr(module, "__file__", None) else getattr(module, "__path__", [])
    return any(Path(str(place)).resolve().is_relative_to(folder.parent) for place in places)
