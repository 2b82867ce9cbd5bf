"""Find the sweep or run that a user names: by its folder, its name, or the first characters of its name."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from hidden_subnet.config.settings import Config, default_value
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import sweeps
from hidden_subnet.store.files import ATTEMPTS, CONFIG

DIGITS = 12
"""Hex digits of a run's id, at the end of its folder's name."""
OUT = str(default_value(next(field for field in fields(Config) if field.name == "out")))
"""Folder of the results where none is named."""


def output_folder(out: Path, option: str = "--out ") -> Path:
    """Return `out`; raises ConfigError if it is not a folder. option: by which the command that was typed names it."""
    if not out.is_dir():
        raise ConfigError(f"{out.absolute()} is not a folder; name that of the runs, as in: {option}runs")
    return out


def find_sweep(out: Path, name: str) -> Path:
    """The sweep's folder; raises ConfigError if none or more than one fits the name."""
    if os.path.isfile(Path(name) / sweeps.MANIFEST):
        return typed(name)
    folders = {folder.name: folder for folder in sweeps.find(output_folder(out))}
    return folders[_choose(name, list(folders), "sweep", out)].absolute()


def find_run(out: Path, name: str, option: str = "--out ") -> Path:
    """The run's folder; `name` may also be the 12 hex digits of its id. Raises ConfigError like `find_sweep`.

    option: by which the command that was typed names `out`, for the message.
    """
    if is_run(Path(name)):
        return typed(name)
    return (out / _choose(name, [folder.name for folder in run_folders(out, option)], "run", out, option)).absolute()


def run_folder(run: str | Path) -> Path:
    """Return the folder of a run that a Python function is given: its path, or what commands take for it.

    That is the beginning of its name, or its 12 digits: in the folder before it (runs/digits-conv2), or in runs/.
    Raises FileNotFoundError, with the nearest, where none or more than one fits, and ConfigError as `typed`.
    """
    path = Path(run).expanduser()
    if os.path.isdir(path):
        return typed(path)
    out = path.parent if len(path.parts) > 1 else Path(OUT)
    try:
        return find_run(out, path.name, "")
    except ConfigError as error:
        raise FileNotFoundError(str(error)) from None


def typed(name: str | Path) -> Path:
    """Absolute path of a folder that the user typed; if that is a link of this user or root, where it leads to.

    Raises ConfigError for another user's link: it may have been put in the place of a run, and lead anywhere.
    """
    folder = Path(name).absolute()
    if not folder.is_symlink():
        return folder
    if folder.lstat().st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{folder} is a link that another user made; if you mean the folder it leads to, type: {folder.resolve()}"
        )
    return folder.resolve()


def find_run_or_sweep(out: Path, name: str) -> tuple[Path | None, Path | None]:
    """The run or the sweep of that name; raises ConfigError if neither fits, or both."""
    run = sweep = None
    problems = []
    try:
        run = find_run(out, name)
    except ConfigError as error:
        problems.append(str(error))
    try:
        sweep = find_sweep(out, name)
    except ConfigError as error:
        problems.append(str(error))
    if run is None and sweep is None:
        raise ConfigError("; ".join(problems))
    if run is not None and sweep is not None:
        raise ConfigError(f"{name!r} may be the run {run.name} or the sweep {sweep.name}; as in: {run.name}")
    return run, sweep


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run; False if it is unreadable."""
    # os.path, which does not raise PermissionError; something else with the name of our file is named by read_run.
    return os.path.lexists(folder / CONFIG) or os.path.isdir(folder / ATTEMPTS)


def run_folders(out: Path, option: str = "--out ") -> list[Path]:
    """All run folders in `out`, by name; raises ConfigError, as `output_folder`, if `out` is not a folder."""
    # Hidden: those that `rm` was removing when it was killed.
    return sorted(folder for folder in output_folder(out, option).iterdir() if folder.name[0] != "." and is_run(folder))


def being_removed(out: Path) -> list[Path]:
    """Runs in `out` that `rm` has renamed and not yet deleted."""
    return [folder for folder in out.iterdir() if re.fullmatch(r"\.rm-[0-9a-f]{16}-.+", folder.name)]


def _choose(name: str, known: list[str], what: str, out: Path, option: str = "--out ") -> str:
    """Pick the one of the `known` names that `name` means; the newest of them stands first."""
    where = out.absolute()
    if name in known:
        return name
    if not known:
        raise ConfigError(f"{where} holds no {what}s; name another folder, as in: {option}other_runs")
    ends = [each for each in known if len(name) == DIGITS and each.endswith(f"-{name}")] if what == "run" else []
    found = ends or [each for each in known if name and each.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{len(found)} {what}s begin with {name!r} ({_some(found)}); as in: {found[0]}")
    beginnings = {each[: len(name)]: each for each in reversed(known)}
    near = difflib.get_close_matches(name, beginnings, n=1) if name else []
    hint = f"; did you mean: {beginnings[near[0]]}" if near else f" ({_some(known)}); as in: {known[0]}"
    raise ConfigError(f"no {what} in {where} is called {name!r}{hint}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
