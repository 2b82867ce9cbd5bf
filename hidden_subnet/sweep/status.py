"""The status of a sweep for someone who only looks: its runs, its workers, what waits in Slurm's queue.

Writes nothing, and needs no torch.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hidden_subnet.store import sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.slurm_queue import QueuedJob, queue
from hidden_subnet.store.sweeps import Sweep, Worker, live_workers
from hidden_subnet.sweep import slurm
from hidden_subnet.sweep.jobs import Job, listed_jobs, look
from hidden_subnet.sweep.slurm_array import known_tasks, own_tasks


@dataclass(frozen=True)
class SweepStatus:
    """The state of a sweep at one moment."""

    sweep: Sweep
    jobs: list[Job]
    workers: list[Worker]
    waiting: list[str]
    """Workers in Slurm's queue that have not started."""
    stopped: str | None
    """Why the sweep was asked to stop; None if it was not."""

    @property
    def slots(self) -> int:
        """Runs at a time: the slots of the workers, or the number of running runs if that is larger."""
        offered = sum(worker.slots for worker in self.workers)
        return max(1, offered, sum(job.state == "running" for job in self.jobs))

    @property
    def is_active(self) -> bool:
        """Whether a worker is alive or waiting, or a run is running."""
        return bool(self.workers or self.waiting) or any(job.state == "running" for job in self.jobs)


def status_reader(out: Path, *, glance: bool = False) -> LivenessProbe:
    """Make a probe for all sweeps in `out` that are looked at together, so that Slurm is asked only once."""
    return LivenessProbe(out, eager=True, glance=glance)


def sweep_status(folder: Path, probe: LivenessProbe) -> SweepStatus:
    """Read the status of the sweep in `folder`. Raises what sweeps.read raises."""
    sweep = sweeps.read(folder)
    jobs = listed_jobs(sweep)
    for job in jobs:
        try:
            look(job, sweep, probe)
        except OSError as error:  # a file server does not answer for this run
            job.state, job.message = "failed", f"cannot be read now ({error})"
    waiting = waiting_tasks(folder, probe) if any(job.state != "done" for job in jobs) else []
    return SweepStatus(sweep, jobs, live_workers(folder, probe), waiting, sweeps.stop_reason(folder))


def waiting_tasks(folder: Path, probe: LivenessProbe) -> list[str]:
    """Workers of the sweep that wait in Slurm's queue."""
    return [task for task, job in _tasks(folder, probe).items() if job.state == "PENDING"]


def own_waiting_tasks(folder: Path, probe: LivenessProbe) -> list[str]:
    """Those of them that this user submitted."""
    user = str(os.getuid())
    return [task for task, job in _tasks(folder, probe).items() if job.state == "PENDING" and job.user == user]


def running_tasks(folder: Path, probe: LivenessProbe) -> list[str]:
    """Workers of the sweep that occupy a node, including those that are just starting or ending."""
    return [task for task, job in _tasks(folder, probe).items() if slurm.has_place(job.state)]


def _tasks(folder: Path, probe: LivenessProbe) -> dict[str, QueuedJob]:
    """Each worker that Slurm knows."""
    return own_tasks(folder, _queue(probe)) if known_tasks(folder) else {}


@lru_cache(maxsize=1)
def _queue(probe: LivenessProbe) -> dict[str, QueuedJob] | None:
    """Slurm's queue, asked once for all sweeps that are looked at together."""
    return queue()
