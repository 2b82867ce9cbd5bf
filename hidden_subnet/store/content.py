"""Digests of what files hold, remembered in the user's cache folder, so that not every command reads large files."""

import errno
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

SETTLED = 2.0
"""Seconds: the content of a younger file may still change while its times do not, so nothing is remembered of it."""

# Flag of an open that does not wait for the other end of a pipe.
AT_ONCE = 0 if sys.platform == "win32" else os.O_NONBLOCK

_here: dict[str, tuple[str, str]] = {}
"""Memory of this process: by name of the cache file, a stamp and a text."""


def remembered(kind: str, paths: Sequence[str], compute: Callable[[list[int]], str]) -> str:
    """Return `compute(sizes)`, a text about the content of files, or what it was before if none of them has changed.

    A file is unchanged if its path, size, inode, and times of modification and change are. `kind` names the text.
    Raises OSError for a file that cannot be read; without a cache folder, a process remembers for itself only.
    """
    stamp, sizes, newest = _stamp(paths)
    name = hashlib.sha256(os.fsencode(f"{kind}\0{paths[0]}")).hexdigest()[:32]
    folder = _cache_folder()
    known = _here.get(name) or (folder and _read(folder / name))
    if known and known[0] == stamp:
        return known[1]
    text = compute(sizes)
    if newest + SETTLED < time.time() and _stamp(paths)[0] == stamp:
        _here[name] = (stamp, text)
        if folder:
            with suppress(OSError):
                _write(folder / name, json.dumps({"file": paths[0], "stamp": stamp, "text": text}))
    return text


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file that the user names, to read it; it may be a link. Raises OSError, at once, for a pipe or a device.

    To open a pipe to which nobody writes would wait without end, and a signal would not end it.
    """
    return open(path, "rb", opener=_regular)


def _regular(path: str, flags: int) -> int:
    file = os.open(path, flags | AT_ONCE)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    return file


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file, 64 hex digits. Raises OSError."""

    def compute(sizes: list[int]) -> str:
        state = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                state.update(block)
        return state.hexdigest()

    return remembered("sha256", [os.path.realpath(path)], compute)


def _stamp(paths: Sequence[str]) -> tuple[str, list[int], float]:
    """Return a digest of what shows that the files are unchanged, their sizes, and the time of the last change."""
    state, sizes, newest = hashlib.sha256(), [], 0
    for path in paths:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to read a pipe or a terminal might never end
            raise OSError(errno.EINVAL, "is not a regular file", path)
        sizes.append(status.st_size)
        # A copy may keep the time of modification (cp -p, rsync -t), but not that of the change.
        modified, changed = status.st_mtime_ns, status.st_ctime_ns
        newest = max(newest, modified, changed)
        state.update(os.fsencode(f"{path}\0{status.st_size} {modified} {changed} {status.st_ino}\n"))
    return state.hexdigest(), sizes, newest / 1e9


def _cache_folder() -> Path | None:
    """Return the folder, made where it is missing; None where there is none in which only the user can write."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # no home
        return None
    folder = Path(base) / "hidden_subnet"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    return folder if status.st_uid == os.getuid() and not status.st_mode & 0o022 else None


def _read(path: Path) -> tuple[str, str] | None:
    try:
        content = json.loads(path.read_text())
        return str(content["stamp"]), str(content["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
