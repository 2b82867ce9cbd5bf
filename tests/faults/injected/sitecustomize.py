"""Python loads this at its start where its folder is on PYTHONPATH: a fault, where HIDDEN_SUBNET_FAULT says.

{"do": what, "event": an audit event of Python, "path": a pattern, "once": a file}: at the first event whose paths (for
open: path and mode) match the pattern (at every one, without "once") the process does `what`: so faults strike between
any two things that a process does to its files, wherever that process came from.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import sys
import time
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


def _do(fault: dict[str, Any]) -> None:
    match fault["do"]:
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
        case name:
            os.kill(os.getpid(), signal.Signals[name])


def _watch(fault: dict[str, Any]) -> None:
    pattern = re.compile(fault["path"])

    def at(event: str, arguments: tuple[Any, ...]) -> None:
        if event != fault["event"]:
            return
        paths = [os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | bytes | os.PathLike)]
        if not pattern.search(" ".join(paths)):
            return
        if "once" in fault:
            try:
                os.close(os.open(fault["once"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        _do(fault)

    sys.addaudithook(at)


with contextlib.suppress(KeyError):
    _watch(json.loads(os.environ["HIDDEN_SUBNET_FAULT"]))
