"""Mirrors of a run's files on W&B and TensorBoard; metrics.jsonl and result.json stay the truth."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hidden_subnet.settings import Config, TrackerName
from hidden_subnet.trackers.background import InBackground
from hidden_subnet.trackers.tensorboard_tracker import TensorboardTracker
from hidden_subnet.trackers.tracker import Tracker
from hidden_subnet.trackers.wandb_tracker import WandbTracker, abandon, is_disabled, prepare

__all__ = ["Tracker", "open_trackers"]


def open_trackers(config: Config, folder: Path, sweep: str | None, warn: Callable[[str], None]) -> list[Tracker]:
    """The trackers that `tracker` names, each in a thread of its own; returns at once and never raises.

    `warn` is called at most once a tracker, in the thread that calls the tracker.
    """
    name, trackers = config.tracker.name, list[Tracker]()
    if name in (TrackerName.wandb, TrackerName.both) and not is_disabled(config.tracker.mode):
        prepare(folder)
        trackers.append(InBackground("W&B", partial(WandbTracker, config, folder, sweep), warn, abandon))
    if name in (TrackerName.tensorboard, TrackerName.both):
        trackers.append(InBackground("TensorBoard", partial(TensorboardTracker, folder), warn))
    return trackers
