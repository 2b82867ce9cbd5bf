"""Send runs and sweeps to W&B from their files: those that were offline, not tracked, killed, or had an error."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from hidden_subnet.config.settings import Config, TrackerMode
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import claims, files, liveness, sweeps
from hidden_subnet.store.files import load_config
from hidden_subnet.store.read import read_run
from hidden_subnet.sweep.console import count
from hidden_subnet.trackers import artifacts, sent, summary
from hidden_subnet.trackers.background import PATIENCE, InBackground, Patience
from hidden_subnet.trackers.wandb_environment import asked_mode, check_variables, disabled_by, tidy_variables
from hidden_subnet.trackers.wandb_tracker import WandbTracker, has_key, open_run, prepare


@dataclass
class Missing:
    """Runs and sweeps that W&B does not have completely."""

    runs: list[Path] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    """Folders of sweeps whose summary is to be sent."""
    complete: int = 0
    """Number of runs that W&B has."""
    running: int = 0
    """Number of runs that are being executed; they are not sent."""


def sync(folders: Sequence[Path], say: Callable[[str], None], patience: Patience = PATIENCE) -> int:
    """Send each run that W&B does not have completely, and the summaries of sweeps. Returns the exit code.

    folders: run folders and sweep folders; for a sweep, its runs and its summary are sent.
    say: prints a line.

    A run is sent as a whole, under its id, and replaces what W&B has of it; runs without a tracker are sent too. The
    first error ends it: the next run would wait as long for the same server. The exit code is 1 if something is left.
    Raises ConfigError if there is no key, or if a variable keeps W&B off or offline.
    """
    folders = [folder.absolute() for folder in folders]
    members = _members(folders)
    out = _out(folders[0]) if folders else Path()
    missing = liveness.settle(partial(_missing, folders, members), liveness.LivenessProbe(out))
    running = f"; {count(missing.running, 'run')} still running: sync again when done" if missing.running else ""
    if not missing.runs and not missing.sweeps:
        say(f"W&B has everything: {count(missing.complete, 'run')} complete{running}")
        return 0
    check_key("sync")
    done = len(list(takewhile(lambda run: _send_run(run, members[run], say, patience), missing.runs)))
    summaries = 0
    if done == len(missing.runs):
        summaries = len(list(takewhile(lambda sweep: _send_summary(sweep, say, patience), missing.sweeps)))
    left = len(missing.runs) - done + len(missing.sweeps) - summaries
    message = f"sent {count(done, 'run')}" + (
        f" and {summaries} summar{'y' if summaries == 1 else 'ies'}" if summaries else ""
    )
    say(message + (f", {left} left: the same command continues" if left else "") + running)
    return 1 if left else 0


def replay(config: Config, folder: Path, warn: Callable[[str], None], patience: Patience = PATIENCE) -> None:
    """Send a run that was done before to the run of `wandb agent`, whose sweep would otherwise get no metric."""
    prepare(folder)
    start = partial(open_run, config, folder, None, overwrite=True)
    result = files.read_result(folder)
    assert result is not None
    InBackground("W&B", start, warn, patience, partial(artifacts.seconds, config, folder)).finish(result)


def _members(folders: Sequence[Path]) -> dict[Path, list[str]]:
    """Return the runs in `folders`, each with the names of its sweeps, the one launched last first."""
    selected: dict[Path, list[str]] = {}
    for out in dict.fromkeys(_out(folder) for folder in folders):
        known = {sweep: _runs(sweep) for sweep in sweeps.find(out)}
        belongs: dict[Path, list[str]] = {}
        for sweep, runs in known.items():
            for run in runs:
                belongs.setdefault(run, []).append(sweep.name)
        for folder in folders:
            for run in known.get(folder, [folder]) if _out(folder) == out else []:
                if os.path.lexists(run / files.CONFIG):
                    selected[run] = belongs.get(run, [])
    return selected


def _out(folder: Path) -> Path:
    return folder.parents[1] if _is_sweep(folder) else folder.parent


def _is_sweep(folder: Path) -> bool:
    return folder.parent.name == sweeps.SWEEPS


def _runs(sweep: Path) -> list[Path]:
    """The runs of a sweep; none if its manifest is damaged."""
    try:
        return sweeps.read(sweep).runs
    except ValueError:
        return []


def _missing(folders: Sequence[Path], members: dict[Path, list[str]], probe: liveness.LivenessProbe) -> Missing:
    missing = Missing()
    for run in members:
        if claims.run_status(run, probe).state == "running":
            missing.running += 1
        elif sent.is_complete(run) and not sent.unsent(run):
            missing.complete += 1
        else:
            missing.runs.append(run)
    for sweep in folders:
        runs = _runs(sweep) if _is_sweep(sweep) else []
        ended = [claims.run_status(run, probe).state in summary.ENDED for run in runs]
        if runs and all(ended) and (not summary.read_state(sweep).get("sent") or sent.unsent(sweep)):
            missing.sweeps.append(sweep)
    return missing


def check_key(command: str) -> None:
    """Raise ConfigError if W&B's client finds no key, or if a variable keeps W&B off or offline.

    command: that which needs the key.
    """
    check_variables()
    off = asked_mode(TrackerMode.auto) is TrackerMode.offline and f"WANDB_MODE={os.environ['WANDB_MODE']}"
    if variable := disabled_by(TrackerMode.auto) or off:
        raise ConfigError(
            f"{variable}: {command} sends to W&B; unset the variable, type: unset {variable.partition('=')[0]}"
        )
    tidy_variables()
    if not has_key():
        raise ConfigError(f"{command} needs a key for W&B: set WANDB_API_KEY, or type: wandb login")


def _send_run(folder: Path, sweeps: list[str], say: Callable[[str], None], patience: Patience) -> bool:
    config, result = load_config(folder / files.CONFIG), files.read_result(folder)
    errors: list[str] = []
    prepare(folder)
    first = sweeps[-1] if sweeps else None
    start = partial(WandbTracker, config, folder, first, labels=sweeps, mode=TrackerMode.online, overwrite=True)
    tracker = InBackground("W&B", start, errors.append, patience, partial(artifacts.seconds, config, folder))
    if result is None:
        tracker.fail(read_run(folder).error)
    else:
        tracker.finish(result)
    if errors:
        say(f"{folder.name}: {errors[0]}")
    else:
        sent.mark_sent(folder)
    return not errors


def _send_summary(sweep: Path, say: Callable[[str], None], patience: Patience) -> bool:
    out = sweep.parents[1]
    config = load_config(_runs(sweep)[0] / files.CONFIG)
    # Wherever its runs were tracked.
    config = replace(config, tracker=replace(config.tracker, to={"wandb": True}, mode=TrackerMode.online))
    runs = [read_run(run) for run in _runs(sweep)]
    figure = out / "figures" / f"{sweep.name}.png"
    figures = [figure] if os.path.lexists(figure) else []
    succeeded = summary.report_sweep(config, sweep.name, sweep, runs, figures, say, again=True, patience=patience)
    if succeeded:
        sent.mark_sent(sweep)
    return succeeded
