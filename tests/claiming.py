"""Runs of tests that are claimed, worked at and left."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hidden_subnet import claims, owners, record
from hidden_subnet.claims import Attempt, standing, take
from hidden_subnet.owners import Observer

SILENT = 60.0


def observer(run: Path) -> Observer:
    return Observer(run.parent)


def claim(run: Path, *, fresh: bool = False) -> Attempt:
    return take(run, owners.this_process("worker", SILENT), observer(run), fresh=fresh)


def state(run: Path) -> str:
    return standing(run, observer(run)).state


def work(attempt: Attempt, epochs: int = 1) -> None:
    """The files that an execution leaves, without its result."""
    folder = attempt.folder
    for name in (record.FIRST, record.BEST, record.LAST, record.RESUME):
        (folder / "checkpoints" / name).write_text(f"{name} of {attempt.number}")
    for epoch in range(record.count_rows(folder), epochs + 1):
        record.append_row(folder, {"epoch": epoch})
    (folder / record.LOG).write_text(f"log of {attempt.number}\n")
    record.write_json(folder / record.PROVENANCE, {"by": attempt.number})


def result(attempt: Attempt) -> None:
    record.write_json(attempt.folder / record.RESULT, {"by": attempt.number, "seconds": 0.1 * attempt.number})


def fall_silent(attempt: Attempt) -> None:
    long_ago = os.stat(attempt.folder / claims.CLAIM).st_mtime - SILENT - 10
    os.utime(attempt.folder / claims.CLAIM, (long_ago, long_ago))


def in_child(do: Callable[[], Any]) -> int:
    """The exit code of a child that does it (minus the signal that killed it)."""
    pid = os.fork()
    if pid == 0:
        try:
            do()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def foreign(run: Path, **other: Any) -> Attempt:
    """A claim of another machine, where nobody here can see whether its process lives."""
    me = replace(owners.this_process("worker", SILENT), host="elsewhere", machine="another boot", **other)
    return take(run, me, observer(run))
