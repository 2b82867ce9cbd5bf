"""Copies of a run's metrics on W&B and TensorBoard. The run's own files, metrics.jsonl and result.json, are complete.

A new tracker is one file in this folder that registers a TrackerEntry, and one yaml file in conf/tracker.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hidden_subnet.config.registries import TRACKERS, import_files
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.trackers.background import PATIENCE, InBackground, Patience
from hidden_subnet.trackers.entry import TrackerEntry
from hidden_subnet.trackers.wandb_environment import check_variables, notices

if TYPE_CHECKING:
    from hidden_subnet.sweep.execute import Tracker

__all__ = ["TrackerEntry", "check_trackers", "first_lines", "last_lines", "open_trackers"]

import_files(__name__, __path__)


def check_trackers(config: Config) -> None:
    """Raise ConfigError for a name in `tracker.to` that no file of this folder registers, and for a bad WANDB_MODE."""
    for name in config.tracker.to:
        if name not in TRACKERS:
            rule = f"there is no such tracker ({', '.join(sorted(TRACKERS))})"
            raise ConfigError(problem(f"tracker.to.{name}", rule, "tracker=wandb", lead="as in"))
    if "wandb" in config.tracker.enabled:
        check_variables()


def first_lines(config: Config, *, sweep: bool) -> list[str]:
    """Return what the enabled trackers have to say to the user before a run or a sweep starts.

    config: that of any of the runs. sweep: whether several are started.
    """
    lines = [TRACKERS[name].at_the_start(config) for name in config.tracker.enabled]
    return [*notices(config, sweep=sweep), *(line for line in lines if line)]


def last_lines(config: Config) -> list[str]:
    """Return what the enabled trackers have to say to the user after a run or a sweep."""
    lines = [TRACKERS[name].at_the_end(config.out) for name in config.tracker.enabled]
    return [line for line in lines if line]


def open_trackers(
    config: Config, folder: Path, sweep: str | None, warn: Callable[[str], None], patience: Patience = PATIENCE
) -> "list[Tracker]":
    """Open the enabled trackers of a run, each in a thread of its own. Returns at once.

    A tracker never raises: `warn` is called at most once per tracker, in the thread that calls the tracker.
    Raises ConfigError for an unknown tracker.
    """
    check_trackers(config)
    trackers: list[Tracker] = []
    for name in config.tracker.enabled:
        entry: TrackerEntry = TRACKERS[name]
        if entry.is_enabled(config):
            entry.prepare(folder)
            start = partial(entry.open, config, folder, sweep)
            seconds = partial(entry.files_seconds, config, folder)
            trackers.append(InBackground(entry.label, start, warn, patience, seconds))
    return trackers
