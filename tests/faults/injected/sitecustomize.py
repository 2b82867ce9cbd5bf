"""Python loads this at its start where its folder is on PYTHONPATH: a fault, where HIDDEN_SUBNET_FAULT says.

{"do": what, "event": an audit event of Python, "path": a pattern, "once": a file}: at the first event whose paths (for
open: path and mode) match the pattern (at every one, without "once") the process does `what`: so faults strike between
any two things that a process does to its files, wherever that process came from. With "during": a file and "seconds",
only for so long from the time of that file on. The name of an error (EIO) is a file server that answers with it,
"silence" one that does not answer at all.
"""

import contextlib
import ctypes
import errno
import json
import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class UnpicklableError(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = lambda: why


def _memory() -> None:
    """The kernel refuses what is asked for."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    bytearray(2**33)


def _together(folder: str, count: int) -> None:
    """Wait until so many processes are here."""
    (Path(folder) / str(os.getpid())).touch()
    end = time.monotonic() + 120
    while len(os.listdir(folder)) < count and time.monotonic() < end:
        time.sleep(0.002)


def _coarsen(stat: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    """Give times of files in whole seconds, as FAT and old file servers do."""

    def coarse(*arguments: Any, **options: Any) -> os.stat_result:
        fine = stat(*arguments, **options)
        times = {name: int(fine[at]) for at, name in enumerate(("st_atime", "st_mtime", "st_ctime"), start=7)}
        exact = {f"{name}_ns": seconds * 10**9 for name, seconds in times.items()}
        return os.stat_result(fine[:10], {**times, **exact})

    return coarse


def _jump(clock: Callable[[], float]) -> Callable[[], float]:
    """Set the clock forth and back by up to a day, every tenth of a second."""
    return lambda: clock() + 86_400 * math.sin(1e4 * round(10 * time.monotonic()))


def _do(fault: dict[str, Any], paths: list[str]) -> None:
    match fault["do"]:
        case "EEXIST where it exists":
            if os.path.exists(paths[1]):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), paths[1])
        case name if name in errno.errorcode.values():
            number = next(number for number, each in errno.errorcode.items() if each == name)
            raise OSError(number, os.strerror(number), *paths[:1])
        case "silence":
            time.sleep(1e6)
        case "exception":
            raise RuntimeError("injected")
        case "unpicklable":
            raise UnpicklableError("injected")
        case "sys.exit":
            sys.exit("injected")
        case "_exit":
            os._exit(0)
        case "memory":
            _memory()
        case "segfault":
            ctypes.string_at(0)
        case "together":
            _together(fault["folder"], fault["count"])
        case name if name in vars(errno):
            raise OSError(vars(errno)[name], os.strerror(vars(errno)[name]))
        case name:
            os.kill(os.getpid(), signal.Signals[name])


def _watch(fault: dict[str, Any]) -> None:
    pattern = re.compile(fault["path"])

    def at(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in fault["event"].split():
            return
        paths = [os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | bytes | os.PathLike)]
        if event == "os.listdir" and isinstance(arguments[0], int):
            paths = [os.readlink(f"/proc/self/fd/{arguments[0]}")]
        elif event.startswith("os."):  # the last arguments are descriptors of the folders that the names are in
            paths = [whole(path, folder) for path, folder in zip(paths, arguments[-len(paths) :], strict=True)]
        strike(paths)

    def strike(paths: list[str]) -> None:
        if not pattern.search(" ".join(paths)):
            return
        if "during" in fault:
            try:
                age = time.time() - os.stat(fault["during"]).st_mtime
            except FileNotFoundError:
                return
            if age > fault["seconds"]:
                return
        if "once" in fault:
            try:
                os.close(os.open(fault["once"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        _do(fault, paths)

    def whole(name: str, folder: Any) -> str:
        by_descriptor = isinstance(folder, int) and folder >= 0 and not os.path.isabs(name)
        return f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}" if by_descriptor else name

    def open_in_folder(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open, and first say which file it is: Python's audit event does not name the folder."""
        if dir_fd is not None and "open" in fault["event"].split() and not flags & os.O_PATH:
            kind = "a" if flags & os.O_APPEND else "w" if flags & os.O_WRONLY else "r"
            strike([whole(os.fsdecode(path), dir_fd), kind])
        return opened(path, flags, mode, dir_fd=dir_fd)

    match fault["do"]:
        case "coarse mtime":
            os.stat, os.fstat, os.lstat = _coarsen(os.stat), _coarsen(os.fstat), _coarsen(os.lstat)
        case "jumping clock":
            time.time = _jump(time.time)
        case _:
            opened, os.open = os.open, open_in_folder
            os.supports_dir_fd.add(open_in_folder)  # or folders.py would do without descriptors
            sys.addaudithook(at)


with contextlib.suppress(KeyError):
    _watch(json.loads(os.environ["HIDDEN_SUBNET_FAULT"]))
