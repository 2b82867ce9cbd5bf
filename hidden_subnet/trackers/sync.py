"""Give W&B what it missed of runs and sweeps, out of their own files: tracker off, faults, kills, offline."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path

from hidden_subnet import claims, owners, record
from hidden_subnet.check import ConfigError
from hidden_subnet.config import load_config
from hidden_subnet.report.console import count
from hidden_subnet.report.runs import read_run
from hidden_subnet.settings import TrackerMode, TrackerName
from hidden_subnet.trackers import sent, summary
from hidden_subnet.trackers.background import InBackground
from hidden_subnet.trackers.wandb_tracker import (
    WandbTracker,
    abandon,
    has_key,
    is_disabled,
    prepare,
    stays_offline,
)

MANIFEST = "manifest.json"


@dataclass
class Missing:
    runs: list[Path] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    complete: int = 0
    going_on: int = 0


def sync(folders: Sequence[Path], say: Callable[[str], None]) -> int:
    """Send each run of `folders` (run folders, and sweeps' folders with their summaries) that W&B misses, once.

    What is sent is sent whole, under the run's id, and takes the place of what W&B has of it; runs tracked nowhere are
    sent too. The first fault ends it: a client that was given up leaves nothing to build on in this process. The exit
    code: 1 if something is left. Raises ConfigError without a key, unless tracker.mode=offline.
    """
    folders = [folder.absolute() for folder in folders]
    members = _members(folders)
    missing = _missing(folders, members)
    running = f"; {count(missing.going_on, 'run')} going on: sync again at the end" if missing.going_on else ""
    if not missing.runs and not missing.sweeps:
        say(f"nothing is missing on W&B: {count(missing.complete, 'run')} complete{running}")
        return 0
    _check_key([*missing.runs, *(_first_run(sweep) for sweep in missing.sweeps)])
    done = len(list(takewhile(lambda run: _replay(run, members[run], say), missing.runs)))
    summaries = 0
    if done == len(missing.runs):
        summaries = len(list(takewhile(lambda sweep: _summarise(sweep, say), missing.sweeps)))
    left = len(missing.runs) - done + len(missing.sweeps) - summaries
    told = f"sent {count(done, 'run')}" + (
        f" and {summaries} summar{'y' if summaries == 1 else 'ies'}" if summaries else ""
    )
    say(told + (f", {left} left: the same command goes on" if left else "") + running)
    return 1 if left else 0


def _members(folders: Sequence[Path]) -> dict[Path, list[str]]:
    """The runs that are meant, each with the names of the sweeps that it belongs to, the one launched last first."""
    meant: dict[Path, list[str]] = {}
    for out in dict.fromkeys(_out(folder) for folder in folders):
        manifests = sorted(out.glob(f".sweeps/*/{MANIFEST}"), key=lambda path: -path.stat().st_mtime)
        sweeps = {path.parent: [out / name for name in _names(path)] for path in manifests}
        belongs: dict[Path, list[str]] = {}
        for sweep, runs in sweeps.items():
            for run in runs:
                belongs.setdefault(run, []).append(sweep.name)
        for folder in folders:
            for run in sweeps.get(folder, [folder]) if _out(folder) == out else []:
                if (run / record.CONFIG).exists():
                    meant[run] = belongs.get(run, [])
    return meant


def _out(folder: Path) -> Path:
    return folder.parents[1] if (folder / MANIFEST).exists() else folder.parent


def _names(manifest: Path) -> list[str]:
    try:
        return [str(run["name"]) for run in json.loads(manifest.read_text())["runs"]]
    except (ValueError, KeyError, TypeError):
        return []


def _first_run(sweep: Path) -> Path:
    return sweep.parents[1] / _names(sweep / MANIFEST)[0]


def _missing(folders: Sequence[Path], members: dict[Path, list[str]]) -> Missing:
    missing, observers = Missing(), dict[Path, owners.Observer]()
    for run in members:
        observer = observers.setdefault(run.parent, owners.Observer(run.parent))
        if claims.standing(run, observer).state == "running":
            missing.going_on += 1
        elif sent.is_complete(run, on_server=not stays_offline(load_config(run / record.CONFIG))):
            missing.complete += 1
        else:
            missing.runs.append(run)
    for sweep in folders:
        runs = [sweep.parents[1] / name for name in _names(sweep / MANIFEST)] if (sweep / MANIFEST).exists() else []
        observers.setdefault(sweep.parents[1], owners.Observer(sweep.parents[1]))
        ended = [claims.standing(run, observers[sweep.parents[1]]).state in summary.ENDED for run in runs]
        if runs and all(ended):
            on_server = not stays_offline(load_config(runs[0] / record.CONFIG))
            if not summary.read_state(sweep).get("sent") or (on_server and sent.unsent(sweep)):
                missing.sweeps.append(sweep)
    return missing


def _check_key(runs: Sequence[Path]) -> None:
    if is_disabled(TrackerMode.auto):
        raise ConfigError("WANDB_MODE=disabled: sync sends to W&B; unset it")
    if not all(stays_offline(load_config(run / record.CONFIG)) for run in runs) and not has_key():
        raise ConfigError("sync needs a key for W&B: set WANDB_API_KEY or run `wandb login`")


def _replay(folder: Path, sweeps: list[str], say: Callable[[str], None]) -> bool:
    config, before = load_config(folder / record.CONFIG), sent.read(folder)
    group = before.group if before else sweeps[-1] if sweeps else None
    rows, result = record.read_rows(record.working(folder)), record.read_result(folder)
    faults: list[str] = []
    prepare(folder)
    start = partial(WandbTracker, config, folder, group, labels=sweeps, anew=True)
    tracker = InBackground("W&B", start, faults.append, abandon)
    for row in rows:
        tracker.log(row)
    if result is None:
        tracker.fail(read_run(folder).error)
    else:
        tracker.finish(result)
    if faults:
        say(f"{folder.name}: {faults[0]}")
    elif not stays_offline(config):
        sent.mark_sent(folder)
    return not faults


def _summarise(sweep: Path, say: Callable[[str], None]) -> bool:
    out = sweep.parents[1]
    config = load_config(_first_run(sweep) / record.CONFIG)
    config.tracker.name = TrackerName.wandb
    runs = [read_run(out / name) for name in _names(sweep / MANIFEST)]
    figure = out / "figures" / f"{sweep.name}.png"
    figures = [figure] if figure.exists() else []
    fine = summary.report_sweep(config, sweep.name, sweep, runs, figures, say, again=True)
    if fine and not stays_offline(config):
        sent.mark_sent(sweep)
    return fine
