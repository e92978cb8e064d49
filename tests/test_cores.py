"""How many cores a process counts: its affinity mask, and the share of its container."""

import os

import pytest

from fastbp.runtime import cores as counting
from tests.subprocesses import run_python


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """A process with 8 cores whose control groups a test describes: lines of membership, and files with limits."""

    def describe(membership, **files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = (
                tmp_path
                / "groups"
                / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(counting, "_CGROUPS", tmp_path / "groups")
        monkeypatch.setattr(counting, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    return describe


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("50000 100000", 1), ("150000 100000", 2), ("1600000 100000", 8), ("?", 8)]
)
def test_a_share_of_version_2(groups, limit, cores):
    groups("0::/\n", cpu_max=limit)
    assert counting.available_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("50000", 1), ("300000", 3)])
def test_a_share_of_version_1(groups, quota, cores):
    groups("3:cpu,cpuacct:/\n0::/\n", cpu__cpu_cfs_quota_us=quota, cpu__cpu_cfs_period_us="100000")
    assert counting.available_cores() == cores


def test_the_least_share_of_a_group_and_of_those_around_it(groups):
    groups("0::/outer/inner\n", outer__cpu_max="200000 100000", outer__inner__cpu_max="500000 100000")
    assert counting.available_cores() == 2


def test_the_affinity_mask(groups, monkeypatch):
    groups("0::/\n", cpu_max="500000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    assert counting.available_cores() == 3


def test_a_system_without_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(counting, "_MEMBERSHIP", tmp_path / "none")
    assert counting.available_cores() >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system with affinity masks")
def test_a_process_on_one_core_starts_with_one_thread():
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); import fastbp; print(fastbp.get_num_threads())"
    assert run_python(code, FASTBP_NUM_THREADS="") == "1"
