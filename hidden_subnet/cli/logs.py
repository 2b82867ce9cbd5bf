"""`python -m hidden_subnet logs`: the log of a run, or its traceback if it failed."""

import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from hidden_subnet.store import claims, files, folders
from hidden_subnet.store.find import find_run
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.patience import is_passing, patiently

FOLLOW_SECONDS, AT_ONCE = 0.5, 1 << 20
"""Seconds between two looks, and most bytes that are read at one."""


def logs(out: Path, name: str, follow: bool) -> None:
    """Print the log of a run, or its traceback if it failed. With `follow`, print new lines until the run ends."""
    folder = find_run(out, name)
    probe = LivenessProbe(folder.parent, eager=True, glance=True)
    status = claims.run_status(folder, probe)
    if follow and status.state in ("queued", "running"):
        status = _follow(folder, probe)
    elif status.state != "failed":
        _print(files.working(folder) / files.LOG)
    if status.state == "failed":
        print(files.read_error(folder) or f"failed: {status.message}\n", end="")
        print(f"its log: {files.working(folder) / files.LOG}", file=sys.stderr)
    elif status.state == "queued":
        print("the run has not started", file=sys.stderr)
    elif status.state != "done":
        print(f"{status.state}{f': {status.message}' if status.message else ''}", file=sys.stderr)


def _follow(folder: Path, probe: LivenessProbe) -> claims.RunStatus:
    """Print new lines of the log until the run ends.

    If another process takes the run over, its log starts with a copy of the old one, so nothing is printed twice.
    """
    printed, checked, status = 0, 0.0, None
    while True:
        if status is None or time.monotonic() - checked > 4 * FOLLOW_SECONDS:
            probe = probe.again()
            status, checked = patiently(partial(claims.run_status, folder, probe)), time.monotonic()
        # Read after the state, so that all lines before the end are printed.
        try:
            with folders.open_file(files.working(folder) / files.LOG) as file:
                printed = printed if printed <= file.seek(0, 2) else 0  # restarted with force=true
                file.seek(printed)
                new = file.read(AT_ONCE)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and not is_passing(error):
                raise
            new = b""  # the run has not started, its attempt is being committed, or a file server does not answer
        printed += len(new)
        sys.stdout.write(new.decode(errors="replace"))
        sys.stdout.flush()
        if len(new) == AT_ONCE:
            continue
        if status.state not in ("queued", "running"):
            return status
        time.sleep(FOLLOW_SECONDS)


def _print(path: Path) -> None:
    """Print a file, of any size."""
    with suppress(FileNotFoundError), folders.open_file(path) as file:
        for line in iter(lambda: file.readline(1 << 20), b""):
            print(line.decode(errors="replace"), end="")
