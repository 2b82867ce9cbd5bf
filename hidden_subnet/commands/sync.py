"""Give W&B what it missed of runs and sweeps."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hidden_subnet.commands.names import find_run_or_sweep, run_folders
from hidden_subnet.report.console import make_console, say
from hidden_subnet.sweep import manifest
from hidden_subnet.trackers.sync import sync as send


def sync(out: Path, names: Sequence[str]) -> int:
    """Of the runs and sweeps that are named, or of all in `out`; the exit code: 1 where something is left."""
    named = [folder for name in names for folder in find_run_or_sweep(out, name) if folder is not None]
    folders = named or [*run_folders(out), *manifest.find(out)]
    return send(folders, partial(say, make_console()))
