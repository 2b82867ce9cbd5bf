"""A job: one run of a sweep, with its state as a worker or `status` last saw it."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hidden_subnet.config import identity
from hidden_subnet.config.settings import Config
from hidden_subnet.store import files, folders
from hidden_subnet.store.claims import CLAIM, ENDED, RunStatus, holder_of, launch_of, run_status
from hidden_subnet.store.liveness import LivenessProbe, Observation
from hidden_subnet.store.read import dig, number
from hidden_subnet.store.sweeps import Sweep, config_of, recorded_failure

AGAIN_SECONDS = 2.0
"""Seconds between two looks at what other workers did, and before a file server is asked again."""
UNANSWERED = 300
"""A run for which a file server does not answer this often, for ten minutes or more, counts as failed."""
DEATHS = 3
"""A run whose processes died this often in one launch is given up: the run itself may be what kills them."""
ENDED_STATES = ("done", "stopped", "failed", "lost", "interrupted")


@dataclass
class Job:
    """A run of a sweep. What `status` needs are plain values; the config is built only when it is asked for."""

    folder: Path
    settings: dict[str, Any]
    """All settings of the run, as its config.yaml has them."""
    recorded: dict[str, Any] | None = None
    """The run's projection as the manifest has it; None in manifests of older versions."""
    state: str = "queued"
    """queued, running, done, skipped (done before), stopped, failed, lost or interrupted."""
    message: str = ""
    """Why it ended, for stopped, failed, lost and interrupted."""
    status: RunStatus | None = None
    """The run's status at the last look, with the holder of its claim."""
    claimable: bool = False
    """Whether a worker of this launch may execute it."""
    blocked: bool = False
    """Whether its parent has ended without a result, so that it is `failed` and cannot start."""
    final: bool = False
    """Whether it failed under this worker, which then does not try it again."""
    unanswered: int = 0
    """How often in a row a file server did not answer to a look at it."""
    refusals: int = 0
    """How often a file server did not answer to a process that was to execute it."""
    not_before: float = 0.0
    """Time of time.monotonic() before which no process is started for it, after such an error."""
    parent: "Job | None" = field(default=None, repr=False, compare=False)
    """The run from which it starts."""

    def postpone(self, error: str) -> None:
        """Leave the run as it is, to be looked at or started again soon; give it up after many times."""
        self.not_before = time.monotonic() + AGAIN_SECONDS
        if max(self.unanswered, self.refusals) >= UNANSWERED:
            self.state, self.message, self.claimable, self.final = "failed", error, False, True

    @cached_property
    def config(self) -> Config:
        """The config of the run. Raises ValueError if the settings are not those of this run."""
        return config_of(self.settings, self.folder)

    @cached_property
    def projection(self) -> dict[str, Any]:
        """The settings that make up the run's identity; empty if they are damaged."""
        if self.recorded is not None:
            return self.recorded
        try:  # needs the config, and to read one loads torch
            return identity.projection(self.config)
        except ValueError:
            return {}

    def observed(self, probe: LivenessProbe) -> dict[Path, Observation]:
        """Return the probe's memory of the newest claim on the run, for the process that is to take it over."""
        number = self.status.attempt if self.status is not None else 0
        claim = self.folder / files.ATTEMPTS / str(number) / CLAIM
        return {claim: probe.seen[claim]} if claim in probe.seen else {}

    @property
    def epochs(self) -> int:
        """Number of epochs that the settings ask for."""
        return int(number(dig(self.settings, "train.epochs")) or 0)

    @property
    def force(self) -> bool:
        """Whether the run is to be executed again although it is done."""
        return self.settings.get("force") is True

    @property
    def is_settled(self) -> bool:
        """Whether its sweep has nothing more to do for it: it is done, or was stopped on purpose."""
        return self.state in ("done", "skipped", "stopped")


def listed_jobs(sweep: Sweep) -> list[Job]:
    """All runs of the sweep as the manifest lists them, before any look at their files."""
    jobs = [
        Job(run, settings, projection)
        for run, settings, projection in zip(sweep.runs, sweep.settings, sweep.projections, strict=True)
    ]
    by_name = {job.folder.name: job for job in jobs}
    for job, parent in zip(jobs, sweep.parents, strict=True):
        job.parent = by_name.get(parent or "")
    return jobs


def jobs_of(sweep: Sweep, probe: LivenessProbe) -> list[Job]:
    """All runs of the sweep for someone who executes them; runs that are done already are marked as skipped.

    Raises ValueError if the manifest has settings that do not belong to their run.
    """
    jobs = listed_jobs(sweep)
    for job, config in zip(jobs, sweep.configs, strict=True):
        job.config = config
        try_look(job, sweep, probe)
        if job.state == "done":
            job.state = "skipped"
    return jobs


def try_look(job: Job, sweep: Sweep, probe: LivenessProbe) -> str:
    """As `look`, for those who look again: if a file server does not answer, leave the job as it was.

    Returns the error, or "".
    """
    try:
        look(job, sweep, probe)
    except OSError as error:
        job.unanswered += 1
        job.postpone(str(error))
        return str(error)
    job.unanswered = 0
    return ""


def look(job: Job, sweep: Sweep, probe: LivenessProbe) -> None:
    """Update the job from its files: its state, and whether a worker of this launch may take it.

    Raises OSError while a file server does not answer; the job is then as it was.
    """
    now = run_status(job.folder, probe)
    if now.state == "done" and job.force and sweep.launch not in (None, launch_of(job.folder)):
        now = RunStatus("queued")
    elif now.state not in ("done", "running") and (message := recorded_failure(sweep, job.folder.name)) is not None:
        now = RunStatus("failed", message=message)
    deaths = _deaths(job.folder, sweep.launch) if now.state == "lost" and now.ended_at is None else 0
    job.status, job.state, job.message = now, now.state, now.message
    earlier = now.holder is not None and sweep.launch not in (None, now.holder.launch)
    if now.state in ("failed", "lost") and now.ended_at is not None and earlier:
        job.state, job.message = "queued", ""  # it failed in an earlier launch, so it is tried again
    if now.state == "stopped" and earlier and (job.force or job.settings.get("resume_stopped") is True):
        job.state, job.message = "queued", ""
    job.claimable = job.state in ("queued", "interrupted")
    if now.state == "lost" and now.ended_at is None:  # its worker died too, and could not record the end
        job.claimable = deaths < DEATHS - 1
        if not job.claimable:
            job.message = f"its process died {DEATHS} times, the last time: {now.message}"
    job.blocked = False
    if job.parent is not None and job.claimable:
        _wait_for(job.parent, job)


def _wait_for(parent: Job, job: Job) -> None:
    """Let a job that may be executed wait for its parent, or mark it where the parent has ended without a result."""
    job.claimable = parent.state in ("done", "skipped")
    job.blocked = parent.state in ("failed", "lost", "stopped") and not parent.claimable
    if job.blocked:
        verb = "failed" if parent.state == "failed" else f"was {parent.state}"
        job.state, job.message = "failed", f"its parent {parent.folder.name} {verb}"


def descendants(jobs: list[Job], of: Job) -> list[Job]:
    """Return the jobs of a sweep that start from `of`, or from one that does; parents stand before in the list."""
    found = [of]
    for job in jobs:
        if job.parent is not None and any(job.parent is each for each in found):
            found.append(job)
    return found[1:]


def leaves(jobs: list[Job]) -> list[Job]:
    """Return the jobs that are left to do and from which none of these starts: so many can run at a time."""
    todo = [job for job in jobs if not job.is_settled]
    parents = {id(job.parent) for job in todo}
    return [job for job in todo if id(job) not in parents]


def _deaths(folder: Path, launch: str | None) -> int:
    """How many attempts of this launch are recorded as lost. Raises OSError while a file server does not answer."""
    count = 0
    for name in map(str, files.attempts(folder)):
        attempt = folder / files.ATTEMPTS / name
        with suppress(OSError, ValueError, TypeError):
            count += holder_of(attempt).launch == launch and '"lost"' in folders.read_text(attempt / ENDED)
    return count
