"""How many cores this process may use: by its affinity, and by the CPU quota of its container.

A container with a quota of 4 CPUs on a machine of 64 cores sees 64. With 64 threads it uses up its quota within a
fraction of each period, and stands still for the rest.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")

_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The number of cores that this process may use, at least 1."""
    return min(_cores(), _quota() or _cores())


def why_fewer() -> str:
    """Why `usable_cores` is less than what the process sees; "" if it is not."""
    cores, quota = _cores(), _quota()
    return "" if quota is None or quota >= cores else f"the container's CPU quota allows {quota} of {cores} cores"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> int | None:
    """The CPUs that the quota is worth, rounded up; None without a quota."""
    quotas = [quota for folder in _folders() if (quota := _quota_in(folder)) is not None]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _folders() -> Iterator[Path]:
    """The control groups of this process and those above them, of version 1 and 2; a quota of each of them holds."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _quota_in(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():  # version 2: "max 100000", or a quota and a period in microseconds
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        microseconds = int(quota)
    except (OSError, ValueError):  # no such file, or no quota
        return None
    return microseconds / int(period) if microseconds > 0 else None
