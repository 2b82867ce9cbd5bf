"""Kernel locks of files, and processes that are forked: Windows has neither."""

import errno
import multiprocessing
import sys
from multiprocessing.context import ForkServerContext

from hidden_subnet.errors import ConfigError


def lock(descriptor: int, *, wait: bool) -> None:
    """Lock an open file until it is closed, also by the end of this process.

    Raises BlockingIOError if another process has it and `wait` is false, and OSError where there are no locks: on
    Windows and on some file systems.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "Windows has no such locks")
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def fork_server_context() -> ForkServerContext:
    """Return the context whose processes are forked from a server. Raises ConfigError on Windows."""
    refuse_windows()
    return multiprocessing.get_context("forkserver")


def reader_start_method() -> str | None:
    """Return the start method of reader processes; None for the platform's default."""
    # A worker of a fork server would not be a child of this process, and so not notice its death.
    return "fork" if sys.platform == "linux" else None


def refuse_windows() -> None:
    """Raise ConfigError on Windows, before a run starts."""
    if sys.platform == "win32":
        raise ConfigError("runs need fork and signals, which Windows does not have; use WSL (type: wsl --install)")
