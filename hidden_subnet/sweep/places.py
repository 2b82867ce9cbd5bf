"""GPUs and cores shared by all sweeps on a machine: a run holds kernel locks on its places until its process ends."""

import errno
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hidden_subnet.store.access import user
from hidden_subnet.store.machine import usable_cores
from hidden_subnet.store.posix import lock

FOLDER = "HIDDEN_SUBNET_LOCKS"
"""Environment variable with the folder of the locks; sweeps with another one share nothing."""
CORE = "core"
QUEUE = "queue-"
"""Beginnings of the names of cores and queues; all others are those of GPUs."""
POLL = 0.05
"""Seconds between two looks for a free place."""


def visible_cores() -> list[str]:
    """Return the names of the cores that this process may use.

    By their number; those of a container with a limit are whichever the kernel chooses, and have names of their own.
    """
    numbers, limited_to = usable_cores()
    if limited_to is None:
        return [f"{CORE}{number}" for number in numbers]
    return [f"{CORE}-{limited_to}-{number}" for number in range(len(numbers))]


def hold_in_turn(
    devices: list[str],
    count: int,
    places: int,
    *,
    seconds: float,
    stopped: Callable[[], bool],
    folder: Path | None = None,
) -> list[str] | None:
    """Hold as `hold` does, behind those that wait for the same devices; None if that takes longer than `seconds`.

    Without the queue, the sweep whose run ends would take the free place at once, and others would never find one. It
    is a lock too, which the first of those that wait holds. The wait ends early once `stopped()`.
    """
    queue = f"{QUEUE}{hashlib.sha256(' '.join(sorted(devices)).encode()).hexdigest()[:12]}"
    until = time.monotonic() + seconds
    turn: tuple[str, int] | None = None
    try:
        while True:
            turn = turn or hold_one([queue], 1, folder)
            held = hold(devices, count, places, folder) if turn is not None else None
            if held is not None or time.monotonic() >= until or stopped():
                return held
            time.sleep(POLL)
    finally:
        if turn is not None:
            os.close(turn[1])


def hold(devices: list[str], count: int, places: int = 1, folder: Path | None = None) -> list[str] | None:
    """Lock a place on `count` of `devices` until this process ends, and return them; None if too few are free.

    In that case no lock is kept: a process that held some while it waits for others could block another sweep, and
    that sweep this one.
    """
    held: list[tuple[str, int]] = []
    while len(held) < count:
        found = hold_one([each for each in devices if each not in dict(held)], places, folder)
        if found is None:
            for _, descriptor in held:
                os.close(descriptor)
            return None
        held.append(found)
    return [device for device, _ in held]


def hold_one(devices: list[str], places: int, folder: Path | None = None) -> tuple[str, int] | None:
    """Lock one of `places` places on one of `devices`, the least used one first; None if all are taken.

    Returns the device and a file descriptor; closing it, or the end of this process, releases the lock. The lock files
    are in `folder`, by default one in the machine's temporary folder that all users' sweeps share.
    """
    for place in range(places):
        for device in devices:
            path = _path(device, place, folder)
            try:
                descriptor = _open(path)
            except OSError as error:  # also another user's file or link there, which must stop nobody
                why = f"{path} is no lock that can be used ({error.strerror})"
                print(f"{why}: {_label(device)} is used without", file=sys.stderr)
                return device, os.open(os.devnull, os.O_RDONLY)
            try:
                lock(descriptor, wait=False)
                return device, descriptor
            except BlockingIOError:
                os.close(descriptor)
            except OSError:  # a file system without locks: it is used without one
                return device, descriptor
    return None


def holders(devices: list[str], places: int, folder: Path | None = None) -> str:
    """Name the user and process that hold each place on `devices`, as far as the kernel tells; "" if it does not.

    All holders are on this machine, since its locks are.
    """
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:  # not on Linux
        return ""
    pids = {words[5].rpartition(":")[2]: words[4] for words in locks if "FLOCK" in words and "->" not in words}
    found = []
    for device in devices:
        for path in [_path(device, place, folder) for place in range(places)]:
            with suppress(OSError):
                if (pid := pids.get(str(path.lstat().st_ino))) and int(pid) > 0:  # others' are hidden from a container
                    found.append(f"{_label(device)}: process {pid} of {_user_of(pid)}")
    return "; ".join(dict.fromkeys(found))


def _user_of(pid: str) -> str:
    try:
        return user(os.stat(f"/proc/{pid}").st_uid)
    except OSError:  # it has just ended, or /proc hides the processes of others
        return "another user"


def _path(device: str, place: int, folder: Path | None) -> Path:
    given = os.environ.get(FOLDER)
    shared = Path(given) if given else Path(tempfile.gettempdir()) / "hidden_subnet-gpus"
    return (folder or shared) / f"{device.replace('/', '_')}.{place}"


def _label(device: str) -> str:
    if device.startswith(QUEUE):
        return "the queue"
    return f"core {device.removeprefix(CORE)}" if device.startswith(CORE) else f"GPU {device}"


def _open(path: Path) -> int:
    """Open a lock file, which any user may have created: the kernel refuses O_CREAT on another user's file in /tmp.

    Raises OSError if the file or its folder is a link or something else, or is closed to this user.
    """
    with suppress(FileExistsError):
        path.parent.mkdir()
        path.parent.chmod(0o1777)  # this user's own, just made
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_NOFOLLOW)
    safely = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path.name, safely | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
            os.fchmod(descriptor, 0o644)  # whatever the umask, or others could not open it
        except FileExistsError:
            descriptor = os.open(path.name, safely, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor
