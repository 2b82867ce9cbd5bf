"""What Slurm says of its jobs, and what a task of ours asks of it. Nothing here needs Slurm's accounting."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from hidden_subnet.owners import slurm_restart, slurm_task

# Whatever else a job may be (PENDING, REQUEUED, SUSPENDED, COMPLETING ...), it may still run.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


def has_place(state: str) -> bool:
    """Whether a job in `state` neither waits nor has ended: it may be starting, running, or on its way out."""
    return state not in {"PENDING", *ENDED}


def queue() -> dict[str, tuple[str, str]] | None:
    """State and reason of every job that Slurm knows, by its id ("12", "12_3"), from one call; None: no answer."""
    said = _output("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r")
    if said is None:
        return None
    lines = [line.split("|", 2) for line in said.splitlines() if line.count("|") >= 2]
    return {job: (state, reason) for job, state, reason in lines}


def states() -> dict[str, str] | None:
    """The state of every job that Slurm knows, by its id ("12", "12_3"), from one call; None where none answers."""
    known = queue()
    return None if known is None else {job: state for job, (state, _) in known.items()}


def job(task: str) -> dict[str, str]:
    """The fields that `scontrol show job` prints; empty where it does not know the job (any more)."""
    said = _output("scontrol", "show", "job", "-o", task) or ""
    return dict(word.split("=", 1) for word in said.split() if "=" in word)


def how_it_ended(task: str) -> str:
    """As in "FAILED (exit code 1), node n1"; from Slurm's memory, which lasts minutes, else from its accounting."""
    known = job(task)
    state, code, nodes = known.get("JobState", ""), known.get("ExitCode", ""), known.get("NodeList", "")
    if not known:
        said = _output("sacct", "-n", "-X", "-P", "-j", task, "-o", "State,ExitCode,NodeList") or ""
        state, code, nodes = said.split("\n")[0].split("|") if said.count("|") >= 2 else ("", "", "")
    if not state:
        return "gone from the queue; Slurm no longer knows how it ended, and its accounting does not answer"
    status, _, number = code.partition(":")
    how = f"killed by signal {number}" if number.strip("0") else f"exit code {status or '?'}"
    return f"{state} ({how})" + (f", node {nodes}" if nodes not in ("", "(null)", "None assigned") else "")


def allotted_cpus() -> int | None:
    """What the job that this process runs in may use; its affinity need not say so. None outside of Slurm."""
    said = os.environ.get("SLURM_CPUS_ON_NODE", "") if slurm_task() else ""
    return int(said) if said.isdigit() else None


def should_requeue(signals: Collection[int]) -> bool:
    """Whether Slurm is about to take our place for a while, by walltime or preemption, and nobody wants us to end.

    A site may announce a preemption by TERM, which otherwise means scancel; and a job that was cancelled, or that
    Slurm queues again itself, is not RUNNING any more.
    """
    task = slurm_task()
    if task is None or not {signal.SIGUSR2, signal.SIGTERM} & set(signals):
        return False
    known = job(task)
    if known.get("JobState") != "RUNNING":
        return False
    return signal.SIGUSR2 in signals or known.get("PreemptTime", "None") not in ("None", "Unknown")


def requeue(bound: int, folder: Path) -> str:
    """Have Slurm queue the task that this process runs in again, `bound` times at most; what was done, in one line.

    It is recorded in `folder`, a line each time: the file <task>_requeues.jsonl.
    """
    task, before = slurm_task(), slurm_restart()
    if before >= bound:
        return f"not queued again: it was {before} times, and hydra.launcher.requeues is {bound}"
    entry = {"restart": before + 1, "of": bound, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    with (folder / f"{task}_requeues.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
    done = subprocess.run(["scontrol", "requeue", str(task)], capture_output=True, text=True)
    if done.returncode:
        return f"not queued again: {' '.join(done.stderr.split())}"
    return f"queued again, time {before + 1} of {bound}"


def cancel_waiting(tasks: list[str]) -> None:
    """Those that have started meanwhile are left alone."""
    _output("scancel", "--state=PENDING", *tasks)


def become_worker(command: list[str]) -> None:
    """What submitit calls in each task: this process becomes the worker, and submitit's handlers of signals are gone.

    Signals wait until the worker has its own handlers (`worker.work` lets them through).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP])
    os.execv(command[0], command)


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
