"""Slurm's commands: the states of jobs, requeueing, cancelling. Nothing here needs Slurm's accounting."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files
from hidden_subnet.store.liveness import slurm_restart, slurm_task
from hidden_subnet.store.slurm_queue import output

# In any other state (PENDING, REQUEUED, SUSPENDED, COMPLETING, ...) a job may still run.
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


@contextmanager
def refusals_of_sbatch(what: str) -> Iterator[None]:
    """Raise ConfigError, in one line, where submitit cannot submit `what` ("the workers")."""
    import submitit

    try:
        yield
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        said = str(error).splitlines()
        if said and said[0].startswith("Job (task="):  # it was submitted, and failed
            raise
        lines = [line.removeprefix("sbatch: error: ") for line in said if "sbatch: error" in line]
        why = "; ".join(lines) or " ".join(said) or "it ended without a word"
        raise ConfigError(f"sbatch refuses {what}: {why}; to run on this machine, type: hydra/launcher=local") from None


def has_place(state: str) -> bool:
    """Whether a job in `state` occupies a node: it neither waits nor has ended."""
    return state not in {"PENDING", *ENDED}


def job(task: str) -> dict[str, str]:
    """The fields that `scontrol show job` prints; empty if it does not know the job, or no longer."""
    said = output("scontrol", "show", "job", "-o", task) or ""
    return dict(word.split("=", 1) for word in said.split() if "=" in word)


def how_it_ended(task: str) -> str:
    """How a job ended, as in "FAILED (exit code 1), node n1".

    From Slurm's controller, which remembers it for minutes, or from Slurm's accounting if there is one.
    """
    known = job(task)
    state, code, nodes = known.get("JobState", ""), known.get("ExitCode", ""), known.get("NodeList", "")
    if not known:
        said = output("sacct", "-n", "-X", "-P", "-j", task, "-o", "State,ExitCode,NodeList") or ""
        state, code, nodes = said.split("\n")[0].split("|") if said.count("|") >= 2 else ("", "", "")
    if not state:
        return "gone from the queue; Slurm no longer knows how it ended, and its accounting does not answer"
    status, _, number = code.partition(":")
    how = f"killed by signal {number}" if number.strip("0") else f"exit code {status or '?'}"
    return f"{state} ({how})" + (f", node {nodes}" if nodes not in ("", "(null)", "None assigned") else "")


def allotted_cpus() -> int | None:
    """CPUs that Slurm has allotted to this job, which its CPU affinity need not show; None outside of Slurm."""
    given = os.environ.get("SLURM_CPUS_ON_NODE", "") if slurm_task() else ""
    return int(given) if given.isdigit() else None


def should_requeue(signals: Collection[int]) -> bool:
    """Whether the signals announce the walltime or a preemption, so that this task should be requeued.

    False if a user cancelled the job or Slurm requeues it itself: then it is no longer RUNNING. TERM counts as well
    as USR2 if Slurm says that the job is being preempted, since some sites announce a preemption by TERM.
    """
    task = slurm_task()
    if task is None or not {signal.SIGUSR2, signal.SIGTERM} & set(signals):
        return False
    known = job(task)
    if known.get("JobState") != "RUNNING":
        return False
    return signal.SIGUSR2 in signals or known.get("PreemptTime", "None") not in ("None", "Unknown")


def requeue(bound: int, folder: Path) -> str:
    """Requeue the task that this process runs in, at most `bound` times; returns a line for the log.

    Each requeue is recorded as a line of `folder`/<task>_requeues.jsonl.
    """
    task, before = slurm_task(), slurm_restart()
    if before >= bound:
        return f"not requeued: it was {before} times already, and hydra.launcher.requeues is {bound}"
    entry = {"restart": before + 1, "of": bound, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    with suppress(OSError):  # it is only a record
        files.append(folder / f"{task}_requeues.jsonl", json.dumps(entry) + "\n")
    done = subprocess.run(["scontrol", "requeue", str(task)], capture_output=True, text=True)
    if done.returncode:
        return f"not requeued: {' '.join(done.stderr.split())}"
    return f"requeued, time {before + 1} of {bound}"


def cancel_waiting(tasks: list[str]) -> None:
    """Cancel those of the tasks that are this user's and still waiting in the queue."""
    output("scancel", "--state=PENDING", f"--user={os.getuid()}", *tasks)


def become_worker(command: list[str]) -> None:
    """Replace this process by the worker, without submitit's signal handlers; submitit calls it in each task.

    Signals stay blocked until the worker has its own handlers (worker.Work.run unblocks them).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP])
    os.execv(command[0], command)
