"""Running Python code in a process of its own, with a time limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_python(
    code: str, *, package: Path = ROOT, folder: Path | None = None, timeout: float = 120, **environment: Any
) -> str:
    """What `code` prints; it must exit with 0 and without warnings. It runs in a folder, or in that of the package."""
    variables = os.environ | {"PYTHONPATH": str(package)} | {key: str(value) for key, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=variables,
        cwd=folder or package,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
