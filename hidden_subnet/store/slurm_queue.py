"""The jobs that Slurm knows, as squeue lists them. Needs no accounting."""

import subprocess
from typing import NamedTuple


def output(*command: str) -> str | None:
    """Standard output of one of Slurm's commands; None if it fails or does not answer within a minute."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


class QueuedJob(NamedTuple):
    """A job as squeue shows it."""

    state: str
    reason: str
    """Why it waits."""
    user: str
    """The number of the user who submitted it."""
    comment: str


def queue() -> dict[str, QueuedJob] | None:
    """Every job that Slurm knows, by id ("12", "12_3"); None if Slurm does not answer. Calls squeue once."""
    said = output("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%U|%k")
    if said is None:
        return None
    lines = [line.split("|", 4) for line in said.splitlines() if line.count("|") >= 4]
    return {job: QueuedJob(*rest) for job, *rest in lines}


def states() -> dict[str, str] | None:
    """State of every job that Slurm knows, by id; None if Slurm does not answer. Calls squeue once."""
    known = queue()
    return None if known is None else {job: each.state for job, each in known.items()}
