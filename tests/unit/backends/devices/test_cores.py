"""Cores are limited by the affinity of the process and by the CPU quota of its container."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from semel.backends.devices import cores
from semel.backends.devices.cores import usable_cores, why_fewer
from tests.support.model_files import write_files


@pytest.fixture(autouse=True)
def on_8_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_OWN", tmp_path / "own")


@pytest.fixture
def groups(tmp_path: Path) -> Callable[..., None]:
    """Write the control groups of a machine: the process's own lines, and path → content of files."""

    def write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        write_files(tmp_path / "cgroup", {name.replace("__", "/"): text.encode() for name, text in files.items()})

    return write


def test_without_control_groups_the_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert (usable_cores(), why_fewer()) == (2, "")


def test_a_system_without_affinity_counts_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("400000 100000", 4), ("250000 100000", 3), ("50000 100000", 1), ("max 100000", 8), ("1600000 100000", 8)],
)
def test_a_quota_of_version_2_is_rounded_up(groups: Callable[..., None], limit: str, expected: int) -> None:
    groups("0::/\n", **{"cpu.max": limit})
    assert usable_cores() == expected
    assert why_fewer() == (f"the container's CPU quota allows {expected} of 8 cores" if expected < 8 else "")


def test_the_quota_of_a_group_above_holds_too(groups: Callable[..., None]) -> None:
    groups("0::/pod/worker\n", **{"pod__cpu.max": "200000 100000", "pod__worker__cpu.max": "300000 100000"})
    assert usable_cores() == 2


def test_a_path_that_the_container_does_not_see_leads_to_its_own_root(groups: Callable[..., None]) -> None:
    groups("0::/docker/abc\n", **{"cpu.max": "100000 100000"})
    assert usable_cores() == 1


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8), ("", 8)])
def test_a_quota_of_version_1(groups: Callable[..., None], quota: str, expected: int) -> None:
    files = {"cpu__x__cpu.cfs_quota_us": quota, "cpu__x__cpu.cfs_period_us": "100000\n"}
    groups("3:memory:/y\n2:cpuacct,cpu:/x\n", **files)
    assert usable_cores() == expected
