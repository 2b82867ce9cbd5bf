"""A run of a sweep, as a worker or an onlooker last saw it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet import record
from hidden_subnet.claims import ENDED, Standing, launch_of, owner_of, standing
from hidden_subnet.owners import Observer
from hidden_subnet.settings import Config
from hidden_subnet.sweep.manifest import Sweep, noted_failure

DEATHS = 3
"""A run whose owners died so often in one launch is given up: it may be what kills them."""


@dataclass
class Job:
    config: Config
    folder: Path
    state: str = "queued"
    """queued, running, done, skipped (done before), failed, lost or interrupted."""
    message: str = ""
    standing: Standing | None = None
    """As its files told last; its owner is the process that executes it."""
    claimable: bool = False
    final: bool = False
    """It failed under this worker, and stays failed for it, whoever tries it again."""

    @property
    def epochs(self) -> int:
        return self.config.train.epochs


ENDED_STATES = ("done", "failed", "lost", "interrupted")


def jobs_of(sweep: Sweep, observer: Observer) -> list[Job]:
    """All runs of the sweep; those that were done when it was launched are skipped."""
    jobs = [Job(config, folder) for config, folder in zip(sweep.configs, sweep.runs, strict=True)]
    for job in jobs:
        look(job, sweep, observer)
        if job.state == "done":
            job.state = "skipped"
    return jobs


def look(job: Job, sweep: Sweep, observer: Observer) -> None:
    """See from its files where the run stands and whether a worker of this launch may take it."""
    now = standing(job.folder, observer)
    if now.state == "done" and job.config.force and sweep.launch not in (None, launch_of(job.folder)):
        now = Standing("queued")
    elif now.state not in ("done", "running") and (message := noted_failure(sweep, job.folder.name)) is not None:
        now = Standing("failed", message=message)
    job.standing, job.state, job.message = now, now.state, now.message
    earlier = now.owner is not None and sweep.launch not in (None, now.owner.launch)
    if now.state in ("failed", "lost") and now.ended_at is not None and earlier:
        job.state, job.message = "queued", ""  # of an earlier launch: to be tried again
    job.claimable = job.state in ("queued", "interrupted")
    if now.state == "lost" and now.ended_at is None:  # its worker died as well, and could not say so
        job.claimable = _deaths(job.folder, sweep.launch) < DEATHS - 1
        if not job.claimable:
            job.message = f"its process died {DEATHS} times, the last time: {now.message}"


def _deaths(folder: Path, launch: str | None) -> int:
    count = 0
    for number in record.attempts(folder):
        attempt = folder / record.ATTEMPTS / str(number)
        with suppress(OSError, ValueError, TypeError):
            count += owner_of(attempt).launch == launch and '"lost"' in (attempt / ENDED).read_text()
    return count
