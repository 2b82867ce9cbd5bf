"""Files in the folder of the runs, reached by directory descriptors, so that no symbolic link in it is followed.

Several people may write to that folder. The folder itself, and what is above it, may be links: the user chose them.
In it, a link, a pipe or a device where we keep a file or a folder is refused, and what is replaced or removed is the
name in our folder, never what it points to. All of the package reads and writes run folders through this module
(tests/test_architecture.py lists the exceptions).
"""

import errno
import hashlib
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from hidden_subnet.config.parsing import parse_json
from hidden_subnet.store.machine import is_dead, process_start, this_machine

SWEEPS, ATTEMPTS = ".sweeps", "attempts"
FOLDERS = {SWEEPS, ATTEMPTS, "checkpoints", "failures", "slurm", "tensorboard", "wandb", "workers"}
"""Names of the folders inside the folder of a run or of a sweep, and the one that holds the sweeps."""
PARENTS = {SWEEPS, ATTEMPTS, "wandb"}
"""Those whose folders have any name: a sweep's, an attempt's number, a part of W&B's."""

# A pipe or a device must not block the open; O_NONBLOCK has no effect on a regular file.
if sys.platform == "win32":  # has no directory descriptors; only `load` is supported there
    SAFELY, FOLDER, SEARCH = os.O_BINARY, 0, 0
else:
    SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # A folder on the way need not be listed, so Linux asks for no permission to do so.
    SEARCH = os.O_DIRECTORY | os.O_CLOEXEC | (os.O_PATH if sys.platform == "linux" else os.O_RDONLY)
HAS_DESCRIPTORS = os.open in os.supports_dir_fd

TEXT_BYTES = 4 << 20
"""Largest text file that is read at once, far above any that we write; metrics and manifests may be larger."""
STALE_SECONDS = 3600.0
"""Age at which a temporary file whose writer cannot be seen from this machine counts as left behind."""
_TEMPORARY = re.compile(r".+\.([0-9a-f]{8})-(\d+)-(\d*)-[0-9a-f]{8}\.tmp")
_OLD_TEMPORARY = re.compile(r"((config|experiment)\.yaml|(metrics\.jsonl|[a-z_]+\.json|[a-z_0-9]+\.ckpt))\.\d+\.tmp")
"""Names of temporary files; of those of 0.1.0 in the folders of runs and sweeps."""


class UnsafeError(OSError):
    """Something else than our file or folder has its name; str() says which, and what to do."""

    def __init__(self, path: Path | str, kind: str) -> None:
        super().__init__(errno.ELOOP, f"is {kind}, which is neither read nor written here; remove it", str(path))

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


def _split(path: Path, root: Path | None) -> tuple[str, list[str]]:
    """The folder of the runs, and the names that lead from it to `path`."""
    if root is not None:
        return os.fspath(root), list(path.relative_to(root).parts)
    words = os.fspath(path).split(os.sep)
    at = len(words) - 2
    while at > 0 and (words[at] in FOLDERS or words[at - 1] in PARENTS):
        at -= 1
    # Now the folder of the run; or already that of the runs, where the path leads to a sweep.
    start = max(0, at + (words[at + 1] == SWEEPS))
    return os.sep.join(words[:start]) or (os.sep if start else "."), words[start:]


@contextmanager
def inside(path: Path, root: Path | None = None) -> Iterator[tuple[int | None, str]]:
    """Open the folder that holds `path`: gives its descriptor, for a dir_fd argument, and the name of `path` in it.

    No name from the folder of the runs on may be a link. That folder is `root`, or by default the one that holds the
    run or sweep which `path` belongs to. Raises UnsafeError; any other OSError in the block names the whole path.
    """
    if not HAS_DESCRIPTORS:
        yield None, os.fspath(path)
        return
    at, names = _split(path, root)
    if not {"", ".."}.isdisjoint(names):
        raise UnsafeError(path, "a path that leads elsewhere")
    folder, name = os.open(at, SEARCH), names[0]
    try:
        for inner in names[1:]:
            at, outer = os.path.join(at, name), folder
            folder = os.open(name, SEARCH | os.O_NOFOLLOW, dir_fd=outer)
            name = inner
            os.close(outer)
        at = os.fspath(path)
        yield folder, name
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and error.filename == name and _is_link(name, folder):
            raise UnsafeError(at, "a symbolic link") from None
        if isinstance(error.filename, str) and os.sep not in error.filename:
            error.filename = at
        raise
    finally:
        os.close(folder)


def _is_link(name: str, folder: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _open(path: Path, flags: int, root: Path | None = None, mode: int = 0o666) -> int:
    """Open a regular file in the folder of the runs; raises UnsafeError if it is anything else."""
    with inside(path, root) as (folder, name):
        try:
            file = os.open(name, flags | SAFELY, mode, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EISDIR):  # a pipe that nobody reads, a socket; a folder
                raise UnsafeError(path, "not a regular file") from None
            raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UnsafeError(path, "not a regular file")
    return file


def open_file(path: Path, root: Path | None = None) -> BinaryIO:
    """Open a file to read it."""
    return os.fdopen(_open(path, os.O_RDONLY, root), "rb")


def read_bytes(path: Path, root: Path | None = None, limit: int | None = None) -> bytes:
    """Read a file. Raises ValueError if it has more than `limit` bytes."""
    with open_file(path, root) as file:
        if limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"{path} is damaged: it has more than {limit >> 20} MB")
        return file.read()


def read_text(path: Path, errors: str = "strict", limit: int = TEXT_BYTES) -> str:
    """Read a text file. Raises ValueError if it is no text, or has more than `limit` bytes."""
    try:
        return read_bytes(path, limit=limit).decode(errors=errors)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is damaged: it is no text in UTF-8") from None


def read_json(path: Path, limit: int = TEXT_BYTES) -> Any:
    """Read a JSON file. Raises ValueError if it is damaged."""
    text = read_text(path, limit=limit)
    return parse_json(text) if limit <= TEXT_BYTES else parse_json(text, most=limit)


def read_end(path: Path, count: int) -> bytes:
    """Read the last `count` bytes of a file, or all if it has fewer."""
    with open_file(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read(count)


def append(path: Path, root: Path | None = None) -> int:
    """Open a file to append to it, made if it is missing; returns a descriptor."""
    return _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, root)


def create(path: Path, content: bytes = b"") -> None:
    """Make a file; raises FileExistsError if its name is taken, also by a link."""
    with os.fdopen(_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)


def status(path: Path, root: Path | None = None) -> os.stat_result:
    """Times and size of a file; raises UnsafeError if it is not a regular file."""
    with inside(path, root) as (folder, name):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeError(path, "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file")
    return found


def is_file(path: Path) -> bool:
    """Whether the file exists; raises UnsafeError if something else has its name."""
    try:
        status(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def touch(path: Path) -> None:
    """Set the times of a file to now."""
    file = _open(path, os.O_RDONLY)
    try:
        os.utime(file)
    finally:
        os.close(file)


def names(folder: Path) -> list[str]:
    """Names in a folder, in any order."""
    if not HAS_DESCRIPTORS:
        return os.listdir(folder)
    with _opened(folder) as descriptor:
        return os.listdir(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, so that new and renamed files survive a power failure."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(folder: Path, root: Path | None = None) -> Iterator[int]:
    """Open a folder to list or flush it, for which the descriptor of `inside` does not serve."""
    with inside(folder / "any name", root) as (found, _):
        descriptor = os.open(".", FOLDER, dir_fd=found)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: Path, root: Path | None = None, mode: int = 0o777) -> None:
    """Make a folder, unless it is there; raises UnsafeError if something else has its name."""
    with inside(path, root) as (folder, name):
        try:
            os.mkdir(name, mode, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise UnsafeError(path, "a symbolic link" if _is_link(name, folder) else "not a folder") from None


def make_parent(path: Path, root: Path | None) -> Path:
    """Make the folder of a file that is to be written, and return the root for its writing (`inside`).

    root: the folder of runs in which it is; None for a file that the user has named, whose folder may be a link.
    """
    if root is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.parent
    make_folder(path.parent, root=root)
    return root


def is_private(path: Path, root: Path | None = None) -> bool:
    """Whether a folder is this user's, and nobody else may change what is in it."""
    with inside(path, root) as (folder, name):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def make_tree(path: Path, content: dict[str, bytes], root: Path) -> None:
    """Make a folder with these files, by their paths in it; nobody else may change it."""
    inner = {parent for name in content for parent in (path / name).parents if parent.is_relative_to(path)}
    for each in sorted(inner):
        with inside(each, root) as (folder, name):
            os.mkdir(name, 0o755, dir_fd=folder)
    for name, data in content.items():
        with os.fdopen(_open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, root, 0o644), "wb") as file:
            file.write(data)


def read_tree(path: Path, root: Path) -> dict[str, bytes]:
    """All files in a folder, by their paths in it; raises UnsafeError unless nobody else may change them."""
    found: dict[str, bytes] = {}
    with _walked(path, root) as walk:
        for _, where, _, others in walk:
            if not is_private(path / where, root):
                raise UnsafeError(path / where, "writable by others")
            found |= {os.path.join(where, each): read_bytes(path / where / each, root) for each in others}
    return found


Walk = Iterator[tuple[int, str, list[str], list[str]]]


@contextmanager
def _walked(path: Path, root: Path | None) -> Iterator[Walk]:
    """Open a folder for `_walk`; raises UnsafeError if something else has its name."""
    with inside(path, root) as (parent, name):
        try:
            folder = os.open(name, FOLDER, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UnsafeError(path, "a symbolic link" if _is_link(name, parent) else "not a folder") from None
            raise
        try:
            yield _walk(folder)
        finally:
            os.close(folder)


def _walk(folder: int, where: str = "") -> Walk:
    """Yield all folders in an open one, and then that: its descriptor, its path, the names of folders and of the rest.

    os.fwalk opens what has the name of a folder, which may be a pipe by then, and waits for somebody to write to it.
    """
    inner: list[str] = []
    others: list[str] = []
    for name in os.listdir(folder):
        try:
            found = os.open(name, FOLDER, dir_fd=folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EACCES):
                raise
            (inner if error.errno == errno.EACCES else others).append(name)
            continue
        try:
            yield from _walk(found, os.path.join(where, name))
        finally:
            os.close(found)
        inner.append(name)
    yield folder, where, inner, others


def rename(source: Path, target: Path, root: Path | None = None) -> None:
    """Rename a file or folder, as os.rename does: a file replaces the target, a folder only an empty one."""
    with inside(source, root) as (there, old), inside(target, root) as (here, new):
        os.rename(old, new, src_dir_fd=there, dst_dir_fd=here)


def link(source: Path, target: Path) -> None:
    """Give a regular file a second name; raises FileExistsError if that is taken."""
    status(source)
    with inside(source) as (there, old), inside(target) as (here, new):
        os.link(old, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)


def remove(path: Path, root: Path | None = None) -> None:
    """Remove a file, or the link that has its name; nothing happens if there is none."""
    with suppress(FileNotFoundError), inside(path, root) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_empty(path: Path) -> None:
    """Remove a folder; raises OSError if it is not empty."""
    with inside(path) as (folder, name):
        os.rmdir(name, dir_fd=folder)


def remove_empty_folders(path: Path, root: Path | None = None) -> None:
    """Remove the folders in a folder that hold no file, and itself if it holds none; nothing happens if it is none."""
    with suppress(OSError):
        with _walked(path, root) as walk:
            for folder, _, inner, _ in walk:
                for name in inner:
                    with suppress(OSError):  # not empty
                        os.rmdir(name, dir_fd=folder)
        remove_empty(path)


def size(path: Path, root: Path) -> int:
    """Bytes in all files of a folder, links not followed."""
    with _walked(path, root) as walk:
        files = ((each, folder) for folder, _, _, others in walk for each in others)
        return sum(os.stat(each, dir_fd=folder, follow_symlinks=False).st_size for each, folder in files)


def is_left_behind(path: Path, root: Path) -> bool:
    """Whether a folder is this user's, and was renamed or changed for the last time more than an hour ago."""
    with inside(path, root) as (folder, name):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return mine and time.time() - found.st_ctime > STALE_SECONDS


def remove_tree(path: Path, root: Path | None = None) -> None:
    """Remove a folder and all in it, of links only the links; several processes may do so at the same time.

    Raises UnsafeError for anything but a folder, and the first OSError that kept something there.
    """
    with _walked(path, root) as walk:
        for folder, _, inner, others in walk:
            for remove_one, those in ((os.unlink, others), (os.rmdir, inner)):
                for each in those:
                    with suppress(FileNotFoundError):
                        remove_one(each, dir_fd=folder)
    with suppress(FileNotFoundError), inside(path, root) as (parent, name):
        os.rmdir(name, dir_fd=parent)


def write_atomically(path: Path, content: bytes, root: Path | None = None, mode: int = 0o666) -> None:
    """Replace the file so that a reader sees the old or the new content, never a part, even after a power failure.

    Also removes the temporary files that killed processes left in its folder.
    """
    with inside(path, root) as (folder, name):
        for last in (False, True):
            try:
                _replace(folder, name, content, mode)
                break
            except FileNotFoundError:  # this process was suspended, and its temporary file was taken for a dead one's
                if last:
                    raise
    with _opened(path.parent, root) as descriptor:
        os.fsync(descriptor)
        _remove_temporaries(descriptor)


def copy(source: Path, target: Path) -> None:
    """Write a copy of a file that nobody may read or write who may not do so with the file."""
    with open_file(source) as file:
        write_atomically(target, file.read(), mode=0o600 | os.fstat(file.fileno()).st_mode & 0o666)


def _replace(folder: int | None, name: str, content: bytes, mode: int) -> None:
    temporary = f"{name}.{_writer(os.getpid())}-{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY, mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        if isinstance(error, FileExistsError):  # a rename replaces a file, but on some network and FUSE file systems
            why = "exists, and this file system does not replace a file by renaming another"
            raise OSError(errno.EEXIST, f"{why}; choose another out=<folder>", name) from None
        raise


@cache
def _writer(pid: int) -> str:
    """Names this process in its temporary files: the machine, the process id, and when the process started."""
    return f"{_machine()}-{pid}-{process_start(pid)}"


@cache
def _machine() -> str:
    return hashlib.sha256(this_machine().encode()).hexdigest()[:8]


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, never those of a living writer."""
    with suppress(OSError), _opened(folder) as descriptor:
        _remove_temporaries(descriptor)


def _remove_temporaries(folder: int) -> None:
    for name in os.listdir(folder):
        if not name.endswith(".tmp"):
            continue
        found = _TEMPORARY.fullmatch(name)
        with suppress(OSError):
            if found and found[1] == _machine():
                left_behind = is_dead(int(found[2]), found[3])
            else:  # another machine's; by the file system's clock, which stamped the folder when it last changed
                age = os.fstat(folder).st_mtime - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                left_behind = age > STALE_SECONDS and bool(found or _OLD_TEMPORARY.fullmatch(name))
            if left_behind:
                os.unlink(name, dir_fd=folder)
