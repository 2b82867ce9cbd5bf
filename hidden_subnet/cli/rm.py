"""`python -m hidden_subnet rm`: delete runs and sweeps, after a question. Symbolic links are not followed."""

import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.parents import parent_of
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store import claims, files, folders, sweeps
from hidden_subnet.store.access import folders_written, refuse_unwritable
from hidden_subnet.store.find import being_removed, find_run_or_sweep, output_folder, run_folders
from hidden_subnet.store.liveness import LivenessProbe, settle
from hidden_subnet.store.read import dig
from hidden_subnet.store.sweeps import live_workers
from hidden_subnet.sweep.console import count
from hidden_subnet.sweep.slurm_array import folder_elsewhere
from hidden_subnet.sweep.status import status_reader, waiting_tasks


@dataclass
class Selection:
    """The folders to delete."""

    runs: list[Path]
    sweeps: list[Path]


def rm(out: Path, names: Sequence[str], *, yes: bool, failed: bool, runs: bool, parents: bool) -> None:
    """Delete the named runs and sweeps.

    yes: do not ask.
    failed: delete no sweep, and only runs that failed or were lost, among the named ones or, without names, all.
    runs: delete also the runs of the named sweeps that belong to no other sweep; otherwise only the sweep's own files.
    parents: delete also runs from whose mask or weights other runs in `out` start.

    Raises ConfigError, before anything is deleted, if one of them is being executed, is outside of `out`, or is such a
    parent of a run that stays.
    """
    if not names and not failed:
        raise ConfigError(f"name the runs or sweeps to delete, as in: {PROGRAM} rm digits-conv2")
    out = output_folder(out).absolute()
    _remove_left_behind(out)
    probe = status_reader(out)

    def select(probe: LivenessProbe) -> tuple[Selection, str]:
        selected = _failed(out, names, probe) if failed else _named(out, names, runs)
        return selected, _in_use(selected, probe)

    selected, in_use = settle(select, probe)
    if in_use:
        raise ConfigError(f"nothing is deleted: {in_use}")
    if not selected.runs and not selected.sweeps:
        print("nothing to delete")
        return
    if not parents:
        _refuse_parents(out, selected.runs)
    for run in selected.runs:
        refuse_unwritable(folders_written(run), out, "leave it out")
    refuse_unwritable(selected.sweeps, out, "leave it out")
    states = [_state(run, probe) for run in selected.runs]
    size = sum(folders.size(folder, root=out) for folder in selected.runs + selected.sweeps)
    for folder in selected.sweeps + selected.runs[:10]:
        print(folder)
    if len(selected.runs) > 10:
        print(f"... and {len(selected.runs) - 10} more runs")
    done = f"{count(len(selected.runs), 'run')} ({states.count('done')} done)"
    print(f"{done}, {count(len(selected.sweeps), 'sweep')}: {_readable(size)}")
    for sweep in [] if runs else selected.sweeps:
        print(f"of {sweep.name} the list of runs is deleted, and its runs are kept; to delete these too, instead:")
        print(f"  {PROGRAM} rm --runs {shlex.quote(str(sweep))}")
    if not yes:
        if not sys.stdin.isatty():
            flags = ["--yes", *["--failed"] * failed, *["--runs"] * runs, *["--parents"] * parents]
            words = shlex.join([*flags, *names])
            raise ConfigError(
                "nothing is deleted: there is no terminal to ask on; to delete without a question, type: "
                f"{PROGRAM} rm --out {shlex.quote(str(out))} {words}"
            )
        if input("delete them permanently? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return
    for sweep in selected.sweeps:
        elsewhere = folder_elsewhere(sweep)
        folders.remove_tree(sweep, root=out)
        with suppress(FileNotFoundError):
            folders.remove_tree(elsewhere, root=elsewhere.parent)
    for run in selected.runs:
        _delete(run, probe)
    print(f"deleted; {PROGRAM} results updates results.csv")


def _named(out: Path, names: Sequence[str], runs: bool) -> Selection:
    selected = Selection([], [])
    for name in names:
        run, sweep = find_run_or_sweep(out, name)
        if run is not None:
            selected.runs.append(_inside(run, out, out))
        if sweep is not None:
            selected.sweeps.append(_inside(sweep, out / sweeps.SWEEPS, out))
    if runs:
        going = {sweep.name for sweep in selected.sweeps}
        others = set().union(*(_mentioned(sweep) for sweep in sweeps.find(out) if sweep.name not in going))
        for sweep in selected.sweeps:
            own = {run.name for run in sweeps.read(sweep).runs} - others
            selected.runs += [_inside(out / name, out, out) for name in sorted(own) if os.path.lexists(out / name)]
    return Selection(_unique(selected.runs), _unique(selected.sweeps))


def _refuse_parents(out: Path, selected: Sequence[Path]) -> None:
    """Raise ConfigError where a run that is to be deleted is one from whose mask or weights a run that stays starts."""
    for other in run_folders(out):
        if other in selected:
            continue
        for how, path in _starts_from(other, selected):
            for run in selected:
                if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(run)):
                    words = [*PROGRAM.split(), "rm", "--parents", run.name]
                    rule = f"{other.name} starts from it ({how}), and needs it to be run again; to delete it too"
                    raise ConfigError(problem(f"nothing is deleted: {run.name}", rule, *words))


def _starts_from(run: Path, parents: Sequence[Path]) -> list[tuple[str, str]]:
    """Return how a run starts from others (mask=, pretrained=, a parent), and where these are; [] if it is unreadable.

    parents: the only runs that matter.
    """

    def names_one(path: Path) -> bool:  # to read all that is in the file takes longer
        text = folders.read_text(path)
        return any(parent.name in text for parent in parents)

    found: list[tuple[str, str | None]] = []
    with suppress(OSError, ValueError):
        if names_one(run / files.RESULT):
            name = dig(files.read_result(run), "parent.name")
            found += [("its parent", str(run.with_name(name)))] if isinstance(name, str) else []
    with suppress(OSError, ValueError):
        is_done = folders.is_file(run / files.RESULT)
        if not is_done or names_one(run / files.CONFIG):
            config = files.load_config(run / files.CONFIG)
            found += [("mask=", config.mask), ("pretrained=", config.pretrained), ("extend=", config.extend)]
            if not is_done and (parent := parent_of(config)):
                found.append(("its parent", str(run.with_name(folder_name(parent)))))
    return [(how, path) for how, path in found if path is not None]


def _mentioned(sweep: Path) -> set[str]:
    """Names of the runs of a sweep; if its manifest is damaged, every name of a run that still stands in it."""
    try:
        return {run.name for run in sweeps.read(sweep).runs}
    except folders.UnsafeError:
        return set()  # not a manifest of ours
    except ValueError:
        text = folders.read_text(sweep / sweeps.MANIFEST, errors="replace", limit=sweeps.MANIFEST_BYTES)
        print(f"{sweep / sweeps.MANIFEST} is damaged; the runs whose names can be read in it are kept")
        return set(sweeps.RUN_NAME.findall(text))


def _failed(out: Path, names: Sequence[str], probe: LivenessProbe) -> Selection:
    found = [] if names else run_folders(out)
    for name in names:
        run, sweep = find_run_or_sweep(out, name)
        found += [] if run is None else [run]
        found += [] if sweep is None else [out / each.name for each in sweeps.read(sweep).runs]
    runs = [folder for folder in found if os.path.lexists(folder) and _state(folder, probe) in ("failed", "lost")]
    return Selection(_unique([_inside(run, out, out) for run in runs]), [])


def _inside(folder: Path, parent: Path, out: Path) -> Path:
    """Return `folder`. Raises ConfigError if it is a symbolic link or not directly in `parent`."""
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a symbolic link; to remove the link, type: rm {shlex.quote(str(folder))}")
    if folder.parent.resolve() != parent.resolve() or not parent.resolve().is_relative_to(out.resolve()):
        other = shlex.quote(str(folder.parent.resolve()))
        raise ConfigError(f"{folder} is outside of {out.absolute()}; name its folder, as in: --out {other}")
    return parent.absolute() / folder.name


def _in_use(selected: Selection, probe: LivenessProbe) -> str:
    """Return which run or sweep is being executed, and what to do; "" if none is."""
    for run in selected.runs:
        status = claims.run_status(run, probe)
        if status.state == "running":
            how = status.holder.how_to_stop() if status.holder else f"{PROGRAM} logs {run}"
            return f"{run.name} is being executed ({status.holder}); to stop it first, type: {how}"
        if status.unreadable:
            return f"{run.name} may be being executed ({status.message}); give the same command later"
    for sweep in selected.sweeps:
        if live_workers(sweep, probe) or waiting_tasks(sweep, probe):
            return f"{sweep.name} has workers; to stop them first, type: {PROGRAM} stop {sweep}"
    return ""


def _delete(run: Path, probe: LivenessProbe) -> None:
    """Delete a run's folder. It is renamed first, so that no worker finds half a run.

    Raises ConfigError, and keeps the run, if a worker has started it meanwhile; also if that cannot be read now.
    """
    aside = run.with_name(f".rm-{secrets.token_hex(8)}-{run.name}")
    folders.rename(run, aside, root=run.parent)
    probe.note_renamed(run, aside)
    try:
        state = _state(aside, probe)
    except OSError as error:
        state = f"running, or not: {error}"
    if state.startswith("running"):
        if not os.path.lexists(run):
            folders.rename(aside, run, root=run.parent)
        why = "was just started by another process" if state == "running" else f"may be {state}"
        raise ConfigError(f"{run.name} {why}; it and the runs after it are kept; give the same command later")
    folders.remove_tree(aside, root=run.parent)


def _remove_left_behind(out: Path) -> None:
    """Remove what an `rm` of this user was removing when it was killed."""
    for aside in being_removed(out):
        with suppress(OSError):
            if folders.is_left_behind(aside, root=out):
                folders.remove_tree(aside, root=out)


def _state(run: Path, probe: LivenessProbe) -> str:
    return claims.run_status(run, probe).state


def _unique(folders: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys(folders))


def _readable(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
