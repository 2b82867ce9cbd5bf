"""A sweep as an onlooker sees it: its runs, its workers, what waits in Slurm's queue. Writes nothing."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hidden_subnet.owners import Observer
from hidden_subnet.sweep import manifest, slurm
from hidden_subnet.sweep.job import Job, look
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.sweep.presence import Worker, workers
from hidden_subnet.sweep.submit import known_tasks


@dataclass(frozen=True)
class Survey:
    sweep: Sweep
    jobs: list[Job]
    workers: list[Worker]
    waiting: list[str]
    """Workers in Slurm's queue that have not begun."""
    stopped: str | None

    @property
    def slots(self) -> int:
        """Runs at a time: what the workers offer, or the runs under way where more are (single ones)."""
        offered = sum(worker.slots for worker in self.workers)
        return max(1, offered, sum(job.state == "running" for job in self.jobs))

    @property
    def goes_on(self) -> bool:
        return bool(self.workers or self.waiting) or any(job.state == "running" for job in self.jobs)


@dataclass(frozen=True)
class Onlooker:
    observer: Observer
    queue: Callable[[], dict[str, str] | None]


def onlooker(out: Path) -> Onlooker:
    """Asks Slurm at most once, and only where something of ours is its."""
    queue = cache(slurm.states)
    return Onlooker(Observer(out, queue, eager=True), queue)


def survey(folder: Path, by: Onlooker) -> Survey:
    """Raises what manifest.read raises."""
    sweep = manifest.read(folder)
    jobs = [Job(config, run) for config, run in zip(sweep.configs, _folders(sweep), strict=True)]
    for job in jobs:
        look(job, sweep, by.observer)
    waiting = waiting_tasks(folder, by) if any(job.state != "done" for job in jobs) else []
    return Survey(sweep, jobs, workers(folder, by.observer), waiting, manifest.stop_reason(folder))


def waiting_tasks(folder: Path, by: Onlooker) -> list[str]:
    return [task for task, state in _tasks(folder, by).items() if state == "PENDING"]


def running_tasks(folder: Path, by: Onlooker) -> list[str]:
    """Workers that have a place in Slurm, whether they have begun or are about to leave it."""
    return [task for task, state in _tasks(folder, by).items() if slurm.has_place(state)]


def _tasks(folder: Path, by: Onlooker) -> dict[str, str]:
    tasks = known_tasks(folder)
    states = (by.queue() if tasks else None) or {}
    return {task: states[task] for task in tasks if task in states}


def _folders(sweep: Sweep) -> list[Path]:
    """As the manifest names them: to work the names out anew takes half a second for 1,000 runs."""
    names = [run["name"] for run in json.loads((sweep.folder / manifest.MANIFEST).read_text())["runs"]]
    if len(names) != len(sweep.configs) or any(not isinstance(name, str) or "/" in name for name in names):
        return sweep.runs
    return [sweep.out / name for name in names]
