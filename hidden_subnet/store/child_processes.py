"""Surroundings of the processes that this one starts: a folder for their sockets, and the modules that they import."""

import os
import site
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import util
from pathlib import Path

from hidden_subnet.store.waiting_threads import BOUNDS, bound_spinning

SOCKET_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where the sockets of multiprocessing are if the temporary folder (TMPDIR) cannot hold them."""


@cache
def place_sockets(others: tuple[str, ...] = SOCKET_FOLDERS) -> None:
    """Have multiprocessing make its sockets in a folder that can hold them; processes started later use the same.

    The path of a socket has at most 107 bytes, so a long TMPDIR cannot hold any, nor can some file systems. Raises
    OSError where no folder can.

    others: folders that are tried after the temporary one.
    """
    if sys.platform == "win32":  # there, named pipes are used
        return
    for folder in (tempfile.gettempdir(), *others):
        if _takes_sockets(folder):
            before, tempfile.tempdir = tempfile.tempdir, folder
            try:
                util.get_temp_dir()  # multiprocessing makes this folder once, and keeps it
            finally:
                tempfile.tempdir = before
            return
    raise OSError(
        f"TMPDIR={tempfile.gettempdir()}: no socket can be made there, nor in {' or '.join(others)}; set "
        "TMPDIR to a folder on a local disk with a path of at most 75 characters"
    )


def _takes_sockets(folder: str) -> bool:
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pymp-", dir=folder) as made,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            listener.bind(f"{made}/listener-12345678")  # a name as long as those of multiprocessing
    except OSError:
        return False
    return True


def cannot_start(error: OSError | EOFError | RuntimeError) -> OSError:
    """Return the error of a process or thread that was not started, with what limits them."""
    why = " ".join(str(error).split()) or "the server that starts them died"
    return OSError(
        f"no process can be started for a run ({why}); raise the limits of processes, open files and memory "
        "(ulimit -u, -n, -v), or end other processes"
    )


@contextmanager
def our_modules() -> Iterator[None]:
    """Make new Python processes import this package, which need not be the installed one, and Python's own modules.

    Without PYTHONSAFEPATH (Python 3.11) a random.py in the working directory would be imported in place of Python's.
    """
    ours = os.pathsep.join(filter(None, [_place_of_package(), os.environ.get("PYTHONPATH")]))
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH", *BOUNDS)}
    os.environ.update(PYTHONPATH=ours, PYTHONSAFEPATH="1")
    bound_spinning(os.environ)  # those of a command have it; a notebook has its own
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _place_of_package() -> str:
    """Return the folder that holds this package; "" for site-packages, some of which hold a dataclasses.py of old."""
    place = str(Path(__file__).parents[2])
    return "" if place in (*site.getsitepackages(), site.getusersitepackages()) else place
