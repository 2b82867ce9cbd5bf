"""Errors that say nothing about a file: its server restarts, fails over, or does not answer for a while."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
PATIENCE = 30.0
"""Seconds for which a write is repeated before its error counts."""
PAUSE = 1.0
"""Seconds between two tries."""
# What a network file system reports while its server is away. A full disk, a missing permission, a wrong name do not
# pass by themselves.
UNANSWERED = {
    "EBUSY", "ECOMM", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EIO", "EKEYEXPIRED",
    "ENETDOWN", "ENETUNREACH", "ENOLCK", "ENOLINK", "ENOTCONN", "EREMOTEIO", "ESHUTDOWN", "ESTALE", "ETIME",
    "ETIMEDOUT",
}  # fmt: skip
EXHAUSTED = {"EAGAIN", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"}
"""Errors that this machine reports while it lacks resources, of whatever file."""


def is_unanswered(error: BaseException) -> bool:
    """Whether a file server did not answer, so that the same call may succeed soon."""
    if not isinstance(error, OSError):
        return False
    return isinstance(error, TimeoutError | ConnectionError) or errno.errorcode.get(error.errno or 0) in UNANSWERED


def is_passing(error: BaseException) -> bool:
    """Whether the error says nothing about the file: a server did not answer, or this machine lacks resources."""
    exhausted = isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in EXHAUSTED
    return exhausted or is_unanswered(error)


def patiently(do: Callable[[], Answer], seconds: float = PATIENCE) -> Answer:
    """Call `do`, again while a file server does not answer, for at most `seconds`; then its error is raised."""
    end = time.monotonic() + seconds
    while True:
        try:
            return do()
        except OSError as error:
            if not is_unanswered(error) or time.monotonic() > end:
                raise
        time.sleep(PAUSE)
