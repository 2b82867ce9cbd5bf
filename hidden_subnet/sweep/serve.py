"""A worker by itself: started in another shell, on another machine, or as a task of a Slurm array."""

import os
from functools import partial
from pathlib import Path

from hidden_subnet.owners import Observer, slurm_task
from hidden_subnet.prepare import prepare
from hidden_subnet.report.console import count, make_console, say
from hidden_subnet.sweep import manifest
from hidden_subnet.sweep.forking import load_ahead
from hidden_subnet.sweep.job import jobs_of
from hidden_subnet.sweep.packing import slots_for
from hidden_subnet.sweep.slurm import requeue, should_requeue, states
from hidden_subnet.sweep.view import View
from hidden_subnet.sweep.worker import first_of, work


def serve(folder: Path, *, workers: int | None, jobs_per_gpu: int | None, requeues: int, tasks: int) -> int:
    """Execute runs of the sweep in `folder` until none is left that no other worker has; the exit code.

    0 where every run that it executed is done, 1 where one failed, 130 where it was stopped before the end. Under
    Slurm, USR2 (the walltime or a preemption is near) queues the task again, `requeues` times at most, and `tasks` is
    the number of workers that started together.
    """
    console = make_console()
    sweep = manifest.read(folder)
    reason = manifest.stop_reason(folder)
    if reason is not None:
        say(console, f"the sweep was stopped ({reason}); the command that launched it goes on")
        return 130
    jobs = jobs_of(sweep, Observer(sweep.out, states))
    todo = [job.config for job in jobs if job.claimable or job.state == "running"]
    if not todo:
        runs, failed = count(len(jobs), "run"), sum(job.state != "skipped" for job in jobs)
        if not failed:
            say(console, f"all of {runs} are done, nothing is run")
            return 0
        again = "the command that launched the sweep tries these again"
        say(console, f"nothing is left to run: {failed} of {runs} failed, {again}")
        return 1
    load_ahead(todo)
    prepare(todo)
    slots = slots_for(todo, workers, jobs_per_gpu, partial(say, console))
    say(
        console,
        f"worker of {sweep.name}: {count(len(todo), 'run')} not done, {slots.count} at a time, "
        f"{slots.threads} thread{'s' * (slots.threads > 1)} each; process {os.getpid()}",
    )
    with View(console) as view:
        first = first_of(slurm_task(), len(jobs), tasks)
        done = work(sweep, slots, view.update, jobs=jobs, wait=slurm_task() is None, first=first)
    if done.reason:
        say(console, f"worker stopped ({done.reason})")
    left = any(job.state in ("queued", "interrupted") for job in jobs)
    if left and should_requeue(done.signals):
        say(console, requeue(requeues, folder / "slurm"))
    if done.reason:
        return 130
    return int(any(job.state in ("failed", "lost") for job in jobs))
