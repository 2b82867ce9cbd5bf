"""Delete runs and sweeps: it shows what, asks first, and follows no link out of the output folder."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet import claims
from hidden_subnet.check import ConfigError
from hidden_subnet.commands.names import find_run_or_sweep, output_folder, run_folders
from hidden_subnet.commands.survey import Onlooker, onlooker, waiting_tasks
from hidden_subnet.report.console import count
from hidden_subnet.sweep import manifest
from hidden_subnet.sweep.presence import workers


@dataclass
class Doomed:
    runs: list[Path]
    sweeps: list[Path]


def rm(out: Path, names: Sequence[str], *, yes: bool, failed: bool, runs: bool) -> None:
    """Delete the named runs and sweeps; of a sweep only its manifest, unless `runs`: then also its runs that no other
    sweep has. With `failed`, of the named (all, if none is) the runs that failed or were lost, and no sweep.

    Raises ConfigError, before anything is deleted, where one of them is being executed or lies outside of `out`.
    """
    if not names and not failed:
        raise ConfigError("name the runs or sweeps to delete")
    by = onlooker(output_folder(out))
    doomed = _failed(out, names, by) if failed else _named(out, names, runs)
    _refuse_what_lives(doomed, by)
    if not doomed.runs and not doomed.sweeps:
        print("nothing to delete")
        return
    states = [_state(run, by) for run in doomed.runs]
    size = sum(_size(folder) for folder in doomed.runs + doomed.sweeps)
    for folder in doomed.sweeps + doomed.runs[:10]:
        print(folder)
    if len(doomed.runs) > 10:
        print(f"... and {len(doomed.runs) - 10} more runs")
    done = f"{count(len(doomed.runs), 'run')} ({states.count('done')} done)"
    print(f"{done}, {count(len(doomed.sweeps), 'sweep')}: {_readable(size)}")
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nothing is deleted: there is no terminal to ask on; say --yes")
        if input("delete them for good? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return
    for sweep in doomed.sweeps:
        shutil.rmtree(sweep)
    for run in doomed.runs:
        _delete(run, by)
    print("deleted; python -m hidden_subnet results makes results.csv anew")


def _named(out: Path, names: Sequence[str], runs: bool) -> Doomed:
    doomed = Doomed([], [])
    for name in names:
        run, sweep = find_run_or_sweep(out, name)
        if run is not None:
            doomed.runs.append(_inside(run, out, out))
        if sweep is not None:
            doomed.sweeps.append(_inside(sweep, out / manifest.SWEEPS, out))
    if runs:
        names_of = {sweep.name: {run.name for run in manifest.read(sweep).runs} for sweep in manifest.find(out)}
        kept = set(names_of) - {sweep.name for sweep in doomed.sweeps}
        others = set().union(*(names_of[name] for name in kept))
        for sweep in doomed.sweeps:
            own = names_of[sweep.name] - others
            doomed.runs += [_inside(out / name, out, out) for name in sorted(own) if (out / name).exists()]
    return Doomed(_once(doomed.runs), _once(doomed.sweeps))


def _failed(out: Path, names: Sequence[str], by: Onlooker) -> Doomed:
    found = [] if names else run_folders(out)
    for name in names:
        run, sweep = find_run_or_sweep(out, name)
        found += [] if run is None else [run]
        found += [] if sweep is None else [out / each.name for each in manifest.read(sweep).runs]
    runs = [folder for folder in found if folder.exists() and _state(folder, by) in ("failed", "lost")]
    return Doomed(_once([_inside(run, out, out) for run in runs]), [])


def _inside(folder: Path, parent: Path, out: Path) -> Path:
    """`folder`, which must lie directly in `parent` and be no link."""
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a symbolic link; remove it, or what it leads to, by hand")
    if folder.parent.resolve() != parent.resolve() or not parent.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"{folder} lies outside of {out.absolute()}; name its folder with --out")
    return parent.absolute() / folder.name


def _refuse_what_lives(doomed: Doomed, by: Onlooker) -> None:
    for run in doomed.runs:
        standing = claims.standing(run, by.observer)
        if standing.state == "running":
            raise ConfigError(f"{run.name} is being executed ({standing.owner}); stop it first. Nothing is deleted")
    for sweep in doomed.sweeps:
        if workers(sweep, by.observer) or waiting_tasks(sweep, by):
            raise ConfigError(
                f"{sweep.name} has workers; end them first: python -m hidden_subnet stop {sweep}. Nothing is deleted"
            )


def _delete(run: Path, by: Onlooker) -> None:
    """Out of the way by one rename, so that no worker ever finds half a run; and back, if one has just begun it."""
    aside = run.with_name(f".rm-{os.getpid()}-{run.name}")
    run.rename(aside)
    if _state(aside, by) == "running":
        if not run.exists():
            aside.rename(run)
        raise ConfigError(f"{run.name} has just been begun by another process; it and what follows it is kept")
    shutil.rmtree(aside)


def _state(run: Path, by: Onlooker) -> str:
    return claims.standing(run, by.observer).state


def _once(folders: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys(folders))


def _size(folder: Path) -> int:
    """Bytes of the files in it; a link counts as itself."""
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)


def _readable(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
