"""Fetching files once, however many jobs start at the same time."""

import fcntl
import http.client
import socket
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from hidden_subnet.data.info import DataError

TIMEOUT = 30.0
"""Seconds without an answer after which a server counts as unreachable."""

OFFLINE = "or choose data=digits or data=synthetic, which need no files"


def ensure(name: str, root: Path, wanting: Callable[[], str], download: Callable[[], None], by_hand: str) -> None:
    """Call `download` if `wanting()` names anything; of several processes one downloads and the others wait.

    Writes nothing where the files are there, so `root` may be read-only then.
    Raises DataError, in one line, when `root` cannot be written or the download fails.
    """
    if not wanting():
        return
    with _locked(name, root):
        if not (wanted := wanting()):
            return
        problem = f"data={name}: {root} lacks {wanted}"
        print(f"downloads {name} to {root}", file=sys.stderr)
        try:
            with _impatient():
                download()
        except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
            raise DataError(f"{problem}, and the download failed ({reason(error)}); {by_hand}, {OFFLINE}") from error
        if wanting():
            raise DataError(f"{problem}, even after the download; {by_hand}, {OFFLINE}")


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = str(error.reason if isinstance(error, URLError) else error)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def _locked(name: str, root: Path) -> Iterator[None]:
    # The lock's file stays: a process that waits on a removed one would not keep out the next.
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / f".{name}.lock").open("w")
    except OSError as error:
        raise DataError(
            f"data.root={root}: cannot be written ({error.strerror}), and data={name} is not there yet; "
            f"choose another data.root, {OFFLINE}"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _impatient() -> Iterator[None]:
    """torchvision sets no timeout: where packets are dropped it would wait for minutes at every mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
