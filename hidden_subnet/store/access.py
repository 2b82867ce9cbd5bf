"""Folders that another user made: whose they are, and what to do where this user may not write to them."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from hidden_subnet.errors import ConfigError
from hidden_subnet.store.files import ATTEMPTS

ADVICE = (
    "to share it, be in one group and let its owner type `chmod -R g+rwX {out}`, `find {out} -type d -exec chmod g+s "
    "{{}} +`, and all of you `umask 002` (docs/reliability.md)"
)


def refuse_unwritable(folders: Iterable[Path], out: Path, instead: str = "choose another out=<folder>") -> None:
    """Raise ConfigError for the first folder that exists and in which this user may not make files.

    out: the folder of all runs, which is to be shared. instead: what else can be done, for the message.
    """
    for folder in folders:
        if why := why_unwritable(folder):
            raise ConfigError(f"{why}; {ADVICE.format(out=out)}, or {instead}")


def why_unwritable(folder: Path) -> str:
    """Return why this user may not make files in `folder`; "" if it may, or if there is no such folder."""
    effective = os.access in os.supports_effective_ids  # with the rights of this process, capabilities among them
    if not os.path.isdir(folder) or os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        return ""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is on a read-only file system"
    return f"{folder} belongs to {owner(folder)}, and {user(os.geteuid())} may not write there"


def folders_written(run: Path) -> Iterator[Path]:
    """Yield the folders of a run in which an execution of it makes or removes files; not all exist."""
    yield from (run, run / "checkpoints", run / "tensorboard", run / ATTEMPTS)
    try:
        attempts = sorted((run / ATTEMPTS).iterdir())
    except OSError:  # none, or it may not be read: then it was refused before
        return
    for attempt in attempts:
        yield from (attempt, attempt / "checkpoints")


def why_exchangeable(path: Path) -> str:
    """Return why another user may put something else in the place of `path`, or of what is in it; "" if nobody may.

    Root is trusted. All folders and links on the way are looked at; access control lists show as the group's rights.
    """
    path, trusted = Path(os.path.abspath(path)), (0, os.geteuid())
    for each in (*reversed(path.parents), path):
        found = each.lstat()
        if found.st_uid not in trusted:
            return f"{each} belongs to {user(found.st_uid)}"
        if stat.S_ISLNK(found.st_mode):
            return why_exchangeable(each.parent / os.readlink(each) / path.relative_to(each))
        # In a folder with the sticky bit, as /tmp, others may make files, but not replace those of whom is trusted.
        if found.st_mode & 0o022 and (each == path or not found.st_mode & stat.S_ISVTX):
            return f"others may write to {each}"
    return ""


def may_not_replace(file: Path) -> bool:
    """Whether `file` is another user's, in a folder such as /tmp where only its owner may replace it (sticky bit)."""
    try:
        folder, found = file.parent.stat(), file.stat()
    except OSError:
        return False
    me = os.geteuid()
    return bool(folder.st_mode & stat.S_ISVTX) and me not in (0, folder.st_uid, found.st_uid)


def explained(error: OSError) -> str:
    """Return an error in one line; where a right is missing, with whose folder it is."""
    line = " ".join(str(error).split())
    if not isinstance(error, PermissionError) or not isinstance(error.filename, str | os.PathLike):
        return line
    path = Path(error.filename).absolute()
    there = next((each for each in (path, *path.parents) if os.path.exists(each)), path)
    return f"{line}: {there} belongs to {owner(there)}, and you are {user(os.geteuid())}"


def owner(path: Path) -> str:
    """Return the name of the user that `path` belongs to."""
    return user(path.stat().st_uid)


def user(number: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    from pwd import getpwuid  # not on Windows, where finished runs are loaded

    try:
        return getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
