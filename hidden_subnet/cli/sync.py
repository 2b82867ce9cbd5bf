"""`python -m hidden_subnet sync`: send to W&B the runs and sweeps that it does not have completely."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hidden_subnet.store import sweeps
from hidden_subnet.store.find import find_run_or_sweep, run_folders
from hidden_subnet.sweep.console import make_console, say
from hidden_subnet.trackers.sync import sync as send


def sync(out: Path, names: Sequence[str]) -> int:
    """Send the named runs and sweeps, or all in `out`. Returns the exit code: 1 if something is left."""
    named = [folder for name in names for folder in find_run_or_sweep(out, name) if folder is not None]
    folders = named or [*run_folders(out), *sweeps.find(out)]
    return send(folders, partial(say, make_console()))
