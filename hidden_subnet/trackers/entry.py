"""How a tracker is opened: what its file registers in config.registries.TRACKERS."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hidden_subnet.config.settings import Config

if TYPE_CHECKING:
    from hidden_subnet.sweep.execute import Tracker


@dataclass(frozen=True)
class TrackerEntry:
    """A tracker that can be chosen as tracker=<name>, if conf/tracker/<name>.yaml exists too."""

    label: str
    """Its name in messages."""
    open: Callable[[Config, Path, str | None], "Tracker"]
    """(config, run folder, sweep's name) -> tracker. Called in the tracker's own thread; may block and raise."""
    prepare: Callable[[Path], None] = lambda folder: None
    """(run folder); called in the main thread before that thread starts."""
    is_enabled: Callable[[Config], bool] = lambda config: True
    """False: its own settings or environment turn it off."""
    files_seconds: Callable[[Config, Path], float] = lambda config, folder: 0.0
    """(config, run folder) -> seconds that it may take to send files of a finished run; must not raise."""
    at_the_start: Callable[[Config], str] = lambda config: ""
    """(config of any of the runs) -> a line for the user before a run or a sweep starts, or ""."""
    at_the_end: Callable[[str], str] = lambda out: ""
    """(folder of the runs) -> a line for the user after a run or a sweep, or ""."""
