"""How many cores this process may use: those that it may run on, and its container's share of them."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores in the affinity mask of the process, or fewer where a control group limits their time; at least 1.

    A share of half a core counts as one core, one of a core and a half as two.
    """
    return max(1, math.ceil(min(len(cores_of_process()), _share_of_control_groups())))


def cores_of_process() -> set[int]:
    """The numbers of the cores that the process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {*range(os.cpu_count() or 1)}


def _share_of_control_groups() -> float:
    """The least share, in cores, that the control groups of the process grant it; inf without a limit."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return math.inf
    return min((_share_of_line(line) for line in lines), default=math.inf)


def _share_of_line(line: str) -> float:
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if not controllers:
        return min(_share_of_v2(folder) for folder in _with_parents(_CGROUPS, path))
    if "cpu" in controllers.split(","):
        return min(_share_of_v1(folder) for folder in _with_parents(_CGROUPS / "cpu", path))
    return math.inf


def _with_parents(root: Path, path: str) -> list[Path]:
    """The folder of a group and those of all that it lies in. Inside a container only `root` may be there."""
    folder = root / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root)), root]


def _share_of_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _share_of_v1(folder: Path) -> float:
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return math.inf
    return quota / period if quota > 0 else math.inf
