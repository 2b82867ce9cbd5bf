"""A separate worker of a sweep: started in another shell, on another machine, or as a task of a Slurm array."""

import os
from functools import partial
from pathlib import Path

from hidden_subnet.config.own_parts import require_own_parts
from hidden_subnet.store import sweeps
from hidden_subnet.store.liveness import LivenessProbe, slurm_task
from hidden_subnet.store.patience import patiently
from hidden_subnet.sweep.console import count, make_console, say
from hidden_subnet.sweep.execute import OpenTrackers, no_trackers
from hidden_subnet.sweep.fork_server import load_ahead
from hidden_subnet.sweep.gpu_sharing import slots_for
from hidden_subnet.sweep.jobs import jobs_of, leaves
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.sweep.slurm import requeue, should_requeue
from hidden_subnet.sweep.view import View
from hidden_subnet.sweep.worker import first_of, work


def serve(
    folder: Path,
    *,
    workers: int | None,
    jobs_per_gpu: int | None,
    requeues: int,
    tasks: int,
    open_trackers: OpenTrackers = no_trackers,
) -> int:
    """Execute runs of the sweep in `folder` until other workers have all that are left, and return the exit code.

    The code is 0 if no run failed, 1 if one did, 130 if the worker was stopped before the end. `workers` and
    `jobs_per_gpu`: see gpu_sharing.slots_for. Under Slurm, USR2 (the walltime or a preemption is near) requeues the
    task, at most `requeues` times, and `tasks` is the number of workers that started together.
    """
    console = make_console()
    sweep = patiently(lambda: sweeps.read(folder))
    reason = patiently(lambda: sweeps.stop_reason(folder))
    if reason is not None:
        say(console, f"the sweep was stopped ({reason}); the command that launched it resumes it")
        return 130
    jobs = jobs_of(sweep, LivenessProbe(sweep.out))
    left = [job for job in jobs if job.claimable or job.state in ("queued", "running") or job.unanswered]
    todo = [job.config for job in left]
    if not todo:
        runs, failed = count(len(jobs), "run"), sum(not job.is_settled for job in jobs)
        if not failed:
            say(console, f"all of {runs} are done, nothing is run")
            return 0
        again = "the command that launched the sweep tries these again"
        say(console, f"nothing is left to run: {failed} of {runs} failed, {again}")
        return 1
    for config in todo:
        require_own_parts(config)
    load_ahead(todo)
    preflight(todo)
    slots = slots_for([job.config for job in leaves(left)], workers, jobs_per_gpu, partial(say, console))
    say(
        console,
        f"worker of {sweep.name}: {count(len(todo), 'run')} not done, {slots.count} at a time, "
        f"{slots.threads} thread{'s' * (slots.threads > 1)} each; process {os.getpid()}",
    )
    with View(console) as view:
        first = first_of(slurm_task(), len(jobs), tasks)
        worked = work(
            sweep,
            slots,
            view.update,
            jobs=jobs,
            wait=slurm_task() is None,
            first=first,
            open_trackers=open_trackers,
        )
    if worked.reason:
        say(console, f"worker stopped ({worked.reason})")
    if any(job.state in ("queued", "interrupted") for job in jobs) and should_requeue(worked.signals):
        say(console, requeue(requeues, folder / "slurm"))
    if worked.reason:
        return 130
    return int(any(job.state in ("failed", "lost") for job in jobs))
