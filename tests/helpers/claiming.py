"""Claims on runs for tests: made, worked under, left without a heartbeat."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hidden_subnet.store import claims, files, liveness
from hidden_subnet.store.claims import Attempt, acquire, run_status
from hidden_subnet.store.liveness import LivenessProbe, Observation

SILENT = 60.0


SEEN: dict[Path, Observation] = {}
"""Heartbeats that the readers of these tests have seen; tests have claims of their own."""


def probe(run: Path, said: dict[str, str] | None = None) -> LivenessProbe:
    """A look by somebody to whom Slurm answers `said`."""
    return LivenessProbe(run.parent, lambda: said, seen=SEEN)


def claim(run: Path, *, fresh: bool = False) -> Attempt:
    return acquire(run, liveness.this_process("worker", SILENT), probe(run), fresh=fresh)


def state(run: Path) -> str:
    return run_status(run, probe(run)).state


def work(attempt: Attempt, epochs: int = 1) -> None:
    """Write the files of an execution except its result."""
    folder = attempt.folder
    for name in (files.FIRST, files.BEST, files.LAST, files.RESUME):
        (folder / "checkpoints" / name).write_text(f"{name} of {attempt.number}")
    for epoch in range(files.count_rows(folder), epochs + 1):
        files.append_row(folder, {"epoch": epoch})
    (folder / files.LOG).write_text(f"log of {attempt.number}\n")
    files.write_json(folder / files.PROVENANCE, {"by": attempt.number})


def write_result(attempt: Attempt) -> None:
    files.write_json(attempt.folder / files.RESULT, {"by": attempt.number, "seconds": 0.1 * attempt.number})


def stop_heartbeat(attempt: Attempt, seconds: float = SILENT + 10) -> None:
    """Let the readers have watched its heartbeat for that long without a change."""
    claim = attempt.folder / claims.CLAIM
    SEEN[claim] = Observation(liveness.heartbeat(claim), time.monotonic() - seconds, moved=True)


def in_child(do: Callable[[], Any]) -> int:
    """Call `do` in a child process; returns its exit code, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            do()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def foreign(run: Path, **other: Any) -> Attempt:
    """Make a claim of another machine, whose process cannot be seen from here."""
    me = replace(liveness.this_process("worker", SILENT), host="elsewhere", machine="another boot", **other)
    return acquire(run, me, probe(run))
