"""Which sweep or run the user means: its folder, its name, or a beginning of it that no other has."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.record import ATTEMPTS, CONFIG
from hidden_subnet.sweep import manifest

DIGITS = 12
"""Of a run's id, which end the name of its folder."""


def output_folder(out: Path) -> Path:
    """`out` itself; raises ConfigError where there is no such folder."""
    if not out.is_dir():
        raise ConfigError(f"{out.absolute()} is no folder; name the one of the runs with --out")
    return out


def find_sweep(out: Path, name: str) -> Path:
    """The sweep's folder; raises ConfigError for none and for more than one."""
    if (Path(name) / manifest.MANIFEST).is_file():
        return Path(name).absolute()
    folders = {folder.name: folder for folder in manifest.find(output_folder(out))}
    return folders[_choose(name, list(folders), "sweep", out)].absolute()


def find_run(out: Path, name: str) -> Path:
    """The run's folder; the last 12 hex digits of its id name it too. Raises as `find_sweep` does."""
    if is_run(Path(name)):
        return Path(name).absolute()
    return (out / _choose(name, [folder.name for folder in run_folders(out)], "run", out)).absolute()


def find_run_or_sweep(out: Path, name: str) -> tuple[Path | None, Path | None]:
    """The run or the sweep of that name; raises ConfigError where it is neither, or may be both."""
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
        raise ConfigError(f"{name!r} may be the run {run.name} or the sweep {sweep.name}; say more of the name")
    return run, sweep


def is_run(folder: Path) -> bool:
    return os.path.isfile(folder / CONFIG) or os.path.isdir(folder / ATTEMPTS)  # unlike Path's, false where unreadable


def run_folders(out: Path) -> list[Path]:
    return sorted(folder for folder in output_folder(out).iterdir() if is_run(folder))


def _choose(name: str, known: list[str], what: str, out: Path) -> str:
    """`known` begins with the newest sweep."""
    where = out.absolute()
    if name in known:
        return name
    if not known:
        raise ConfigError(f"{where} holds no {what}s; name another folder with --out")
    ends = [each for each in known if len(name) == DIGITS and each.endswith(f"-{name}")] if what == "run" else []
    found = ends or [each for each in known if name and each.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{len(found)} {what}s begin with {name!r}: {_some(found)}; say more of the name")
    beginnings = {each[: len(name)]: each for each in reversed(known)}
    near = difflib.get_close_matches(name, beginnings, n=1) if name else []
    hint = f"the nearest is {beginnings[near[0]]}" if near else f"known: {_some(known)}"
    raise ConfigError(f"no {what} in {where} is called {name!r}; {hint}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
