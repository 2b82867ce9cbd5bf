"""Processes of this machine, as the kernel shows them."""

import os
import socket
from pathlib import Path


def this_machine() -> str:
    """Boot id and process namespace: within one value, a pid means one process, but in clones of a virtual machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


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
