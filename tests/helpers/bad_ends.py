"""A sweep of four runs, one of which ends badly, in each of the ways in which a run can end badly."""

import subprocess
from pathlib import Path

from helpers.real_commands import SMALL, folders, status_of

BAD = "pr0.4"
"""Part of the name of the run that ends badly."""
WHERE = {"event": "open", "path": r"pr0\.4-\S+/attempts/1/metrics\.jsonl a$"}
"""Where the fault strikes: when that run writes a row, in its own process (faults/injected/sitecustomize.py)."""
SWEEP = ["-m", "prune_rate=0.2,0.3,0.4,0.6", *SMALL]
ENDS = {
    "exception": ("failed", "RuntimeError: injected"),
    "exception at its start": ("failed", "RuntimeError: injected"),
    "unpicklable": ("failed", "UnpicklableError: injected"),
    "sys.exit": ("failed", "SystemExit: injected"),
    "memory": ("failed", "MemoryError"),
    "SIGKILL": ("lost", "died of SIGKILL"),
    "segfault": ("lost", "died of SIGSEGV"),
    "_exit with 0": ("lost", "exit code 0"),
}
"""For each fault the state of the run, and a part of its line in the summary."""


def the_bad_run(cwd: Path, said: "subprocess.CompletedProcess[str]", fault: str) -> Path:
    """Return the folder of the bad run, after checking its state, the summary, exit code 1 and the other runs."""
    state, message = ENDS[fault]
    assert said.returncode == 1, fault + said.stdout + said.stderr
    states = {folder.name: status_of(folder).state for folder in folders(cwd)}
    [bad] = [folder for folder in folders(cwd) if BAD in folder.name]
    assert states.pop(bad.name) == state, fault
    assert list(states.values()) == ["done"] * 3, fault
    line = next(line for line in said.stdout.splitlines() if line.startswith(f"{state}: {bad.name}"))
    assert message in line, fault
    return bad
