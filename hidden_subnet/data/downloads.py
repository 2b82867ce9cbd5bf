"""Downloads of data sets, done once by one of the jobs that start at the same time."""

import http.client
import os
import socket
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError

from hidden_subnet.errors import DataError
from hidden_subnet.store import folders
from hidden_subnet.store.posix import lock

TIMEOUT = 30.0
"""Seconds without an answer after which a server counts as unreachable."""

OFFLINE = "or for images that need no files, type: data=digits"
"""End of the error messages."""


def ensure(name: str, root: Path, wanting: Callable[[], str], download: Callable[[], None], by_hand: str) -> None:
    """Call `download` if `wanting()` returns what is wrong ("lacks ..."); one process downloads and others wait for it.

    Where no file is missing, nothing is written, so `root` may be read-only. `by_hand`: advice for the error message.
    Raises DataError, in one line, where `root` cannot be written or the download fails.
    """
    if not wanting():
        return
    with _locked(name, root):
        if not (wanted := wanting()):
            return
        problem = f"data={name}: {root} {wanted}"
        print(f"downloads {name} to {root}", file=sys.stderr)
        try:
            with _impatient():
                download()
        except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
            raise DataError(f"{problem}, and the download failed ({reason(error)}); {by_hand}, {OFFLINE}") from error
        if wanting():
            raise DataError(f"{problem}, even after the download; {by_hand}, {OFFLINE}")


def reason(error: BaseException) -> str:
    """Return the text of an error in one line, or its type where it has none."""
    text = str(error.reason if isinstance(error, URLError) else error)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def _locked(name: str, root: Path) -> Iterator[None]:
    # The lock file is not removed: a process that waits for a removed file would not exclude later ones.
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(folders.append(root / f".{name}.lock", root), "ab")
    except folders.UnsafeError as error:  # in a shared folder, another user may have made it
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(
            f"data.root={root}: cannot be written ({error.strerror}), and data={name} is not there yet; "
            f"choose another data.root, {OFFLINE}"
        ) from error
    with file:
        with suppress(OSError):  # no locks here: jobs that start together may each download
            lock(file.fileno(), wait=True)
        yield


@contextmanager
def _impatient() -> Iterator[None]:
    """Set a timeout for sockets: torchvision sets none, and would wait for minutes at every unreachable mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
