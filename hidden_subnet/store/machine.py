"""Processes and cores of this machine, as the kernel shows them."""

import hashlib
import os
import socket
import sys
import time
from pathlib import Path


def this_machine() -> str:
    """Boot id and process namespace: within one value, a pid means one process, but in clones of a virtual machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def usable_cores() -> tuple[list[int], str | None]:
    """Return as many numbers of cores as this process may use, by its affinity and a container's limit.

    The text is None where these are the cores themselves; under a limit it names the control groups that have it.
    """
    there = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [*range(os.cpu_count() or 1)]
    limit = max(1, int(cpu_quota() or len(there)))
    if limit >= len(there):
        return there, None
    return there[:limit], hashlib.sha256(Path("/proc/self/cgroup").read_bytes()).hexdigest()[:8]


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the control groups (1 or 2) of this process have; None without a limit.

    A container's limit is one: Docker's --cpus, Kubernetes' limits.cpu. root: where proc/ and sys/ are.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = []
    for _, controllers, path in (line.split(":", 2) for line in groups if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        inner = top / path.lstrip("/")
        folders = [each for each in (inner, *inner.parents) if each.is_relative_to(top)]
        found += [quota for each in folders if (quota := _quota(each)) is not None]
    return min(found, default=None)


def _quota(group: Path) -> float | None:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # of version 2, and of 1
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if int(quota) > 0 and int(period) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError):  # no such file, or max, which is no limit
            continue
    return None


def busy_cores(seconds: float) -> float | None:
    """Return how many of the cores that this process may use others kept busy for `seconds`, in which it sleeps.

    None where the kernel does not tell.
    """
    before = _core_ticks()
    time.sleep(seconds)
    found = [(now, before[core]) for core, now in _core_ticks().items() if core in before]
    passed = [(busy - busy_before, total - total_before) for (busy, total), (busy_before, total_before) in found]
    return sum(busy / total for busy, total in passed if total > 0) if any(total > 0 for _, total in passed) else None


def _core_ticks() -> dict[int, tuple[int, int]]:
    """Return the busy ticks and all ticks since boot of each core that this process may use."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        mine = os.sched_getaffinity(0)
    except (OSError, AttributeError):  # not Linux
        return {}
    found: dict[int, tuple[int, int]] = {}
    for name, *ticks in (line.split() for line in lines if line.startswith("cpu")):
        if name[3:].isdecimal() and int(name[3:]) in mine and len(ticks) >= 8:
            # user nice system idle iowait irq softirq steal; guests are among user
            numbers = [int(each) for each in ticks[:8]]
            found[int(name[3:])] = sum(numbers) - numbers[3] - numbers[4], sum(numbers)
    return found


def process_start(pid: int) -> str:
    """Start time of a process in ticks since boot; "" if it does not exist or cannot be seen."""
    stat = _stat(pid)
    return "" if stat is None or stat[0] in "ZX" else stat[19]


def is_stopped(pid: int) -> bool:
    """Whether the process is suspended (SIGSTOP, a debugger)."""
    stat = _stat(pid)
    return stat is not None and stat[0] in "Tt"


def _stat(pid: int) -> list[str] | None:
    """/proc/<pid>/stat from its third field, the state, on; None if it cannot be read.

    That does not mean that there is no such process: /proc may hide those of other users (hidepid), or this process
    may have no descriptor left.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() or None
    except OSError:
        return None


def lives(pid: int, started: str) -> bool | None:
    """Whether the process with this pid and start time exists; None if one with this pid does and no more is known."""
    stat = _stat(pid)
    if stat is not None and (started or stat[0] in "ZX"):
        return stat[0] not in "ZX" and stat[19] == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return None


def is_dead(pid: int, started: str) -> bool:
    """Whether the process with this pid and start time is known to have ended."""
    return lives(pid, started) is False
