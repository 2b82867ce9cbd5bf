"""What a run said, or why it failed."""

import sys
import time
from pathlib import Path

from hidden_subnet import claims, record
from hidden_subnet.commands.names import find_run
from hidden_subnet.owners import Observer
from hidden_subnet.sweep import slurm

FOLLOW_SECONDS = 0.5


def logs(out: Path, name: str, follow: bool) -> None:
    """Print the log of a run, or its traceback if it failed; with `follow` go on until the run ends."""
    folder = find_run(out, name)
    standing = claims.standing(folder, _observer(folder))
    if follow and standing.state in ("queued", "running"):
        standing = _follow(folder)
    elif standing.state != "failed":
        print(_read(record.working(folder) / record.LOG), end="")
    if standing.state == "failed":
        error = record.working(folder) / record.ERROR
        print(_read(error) if error.exists() else f"failed: {standing.message}\n", end="")
        print(f"its log: {record.working(folder) / record.LOG}", file=sys.stderr)
    elif standing.state == "queued":
        print("it has not begun", file=sys.stderr)
    elif standing.state != "done":
        print(f"{standing.state}{f': {standing.message}' if standing.message else ''}", file=sys.stderr)


def _follow(folder: Path) -> claims.Standing:
    """Print what is added to the log until the run ends, through take-overs: an attempt begins with a copy."""
    told, asked, standing = 0, 0.0, None
    while True:
        if standing is None or time.monotonic() - asked > 4 * FOLLOW_SECONDS:
            standing, asked = claims.standing(folder, _observer(folder)), time.monotonic()
        # Read after the state was: what came before the end is printed then.
        try:
            with (record.working(folder) / record.LOG).open("rb") as file:
                told = told if told <= file.seek(0, 2) else 0  # begun anew (force=true)
                file.seek(told)
                new = file.read()
        except FileNotFoundError:  # not begun, or on its way up
            new = b""
        told += len(new)
        sys.stdout.write(new.decode(errors="replace"))
        sys.stdout.flush()
        if standing.state not in ("queued", "running"):
            return standing
        time.sleep(FOLLOW_SECONDS)


def _observer(folder: Path) -> Observer:
    return Observer(folder.parent, slurm.states, eager=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
