"""Launch a sweep from its configs: check, write the manifest, have the missing runs executed, report."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hidden_subnet.config.differences import described
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import claims, files, folders, provenance, sweeps
from hidden_subnet.store.access import may_not_replace, owner, refuse_unwritable
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.read import STATES
from hidden_subnet.store.sweeps import Sweep
from hidden_subnet.sweep.console import added_line, count, make_console, say
from hidden_subnet.sweep.in_vain import in_vain
from hidden_subnet.sweep.jobs import Job, jobs_of, leaves
from hidden_subnet.sweep.progress import Progress
from hidden_subnet.sweep.view import View

if TYPE_CHECKING:
    from hidden_subnet.sweep.execute import OpenTrackers

Execute = Callable[[Sweep, list[Job], Console], str]
"""Has the jobs executed; returns why it stopped before all were, or ""."""
TERMINATED = ("SIGTERM", "SIGHUP")
"""Reasons of a stop after which whoever sent the signal soon kills the process."""
LAST_SECONDS = 20.0
"""Time for the table, results.csv and the figure after such a stop; Slurm kills after 30 s."""
Finish = Callable[[Sweep, list[Job], Console], int]
"""Reports the results of a sweep at its end; returns the exit code, 0 if every run is done."""


def launch(
    configs: list[Config],
    label: str,
    execute: Execute,
    finish: Finish,
    *,
    prepare: Callable[[list[Config]], None] = lambda todo: None,
) -> tuple[list[Job], int]:
    """Have `execute` run what is not done, then have `finish` report; returns the jobs and the exit code.

    `label` begins the sweep's name. `prepare` is called with the runs to do before they are checked, so that it can
    start something that takes time. Raises ConfigError and DataError if the runs cannot be executed here.
    """
    console = make_console()
    planned = sweeps.plan(configs, label)
    added, configs = len(planned.configs) - len(configs), planned.configs
    todo = [config for config, run in zip(configs, planned.runs, strict=True) if config.force or not files.is_done(run)]
    done_before = len(configs) - len(todo)
    already = f", {done_before} of them finished before (force=true runs them again)" if done_before else ""
    kept = [each for each in todo if not is_stopped_before(each)]
    if stopped_before := len(todo) - len(kept):
        todo, already = kept, f"{already}, {stopped_before} stopped before (resume_stopped=true continues them)"
    folder = planned.folder
    say(console, f"sweep {folder.name}: {count(len(configs), 'run')}{already}")
    if added:
        say(console, added_line(added))
    for line in in_vain(configs, planned.runs):
        say(console, line)
    if todo:
        prepare(todo)
        from hidden_subnet.sweep.preflight import preflight

        preflight(todo)
        _refuse_files_of_others(folder, Path(configs[0].out).absolute())
    existed = os.path.isdir(folder)
    try:
        sweep = sweeps.write(planned, provenance.of_command())
    except OSError:
        if todo or not existed:
            raise
        sweep = sweeps.read(folder)  # a read-only folder in which every run is done can still be reported
    jobs, reason = jobs_of(sweep, LivenessProbe(sweep.out)), ""
    if any(not job.is_settled for job in jobs):  # another command may have done them in the meantime
        started = time.monotonic()
        try:
            reason = execute(sweep, jobs, console)
        except ConfigError:  # nothing was started, so a new sweep is not to be listed
            if not existed:
                with suppress(OSError):
                    folders.remove_tree(sweep.folder, root=sweep.out)
            raise
        say(console, f"{outcome_line(jobs)} in {time.monotonic() - started:.0f} s")
    with _for_seconds(LAST_SECONDS if reason in TERMINATED else None, reason):
        code = finish(sweep, jobs, console)
    if reason:
        forced = any(config.force for config in configs)
        say(console, f"stopped ({reason}): the same command resumes the runs" + " (without force=true)" * forced)
        return jobs, 1 if any(job.final for job in jobs) else 130
    return jobs, code


def is_stopped_before(config: Config) -> bool:
    """Return whether the run was stopped on purpose by an earlier command, and is left as it is."""
    if config.force or config.resume_stopped:
        return False
    try:
        return claims.is_stopped(files.folder_of(config))
    except OSError:  # a file server is silent; whoever looks at the run next can tell
        return False


@contextmanager
def _for_seconds(limit: float | None, reason: str) -> Iterator[None]:
    """End this process with exit code 130 if the context takes longer, as where a file server does not answer."""

    def leave() -> None:
        print(f"stopped ({reason}): its files do not answer; type: {PROGRAM} results", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)

    timer = threading.Timer(limit or 0.0, leave)
    if limit is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _refuse_files_of_others(sweep: Path, out: Path) -> None:
    """Raise ConfigError if another user's folders or results would stop the sweep, now or at its end."""
    inner = [sweep / name for name in (sweeps.WORKERS, sweeps.FAILURES)]
    refuse_unwritable([out, sweep.parent, sweep, *inner, out / "figures"], out)
    if may_not_replace(out / "results.csv"):
        raise ConfigError(
            f"{out}/results.csv belongs to {owner(out / 'results.csv')}, and in {out} only its owner may replace it "
            "(sticky bit); choose another out, as in: out=my_runs"
        )


def execute_here(workers: int | None, jobs_per_gpu: int | None, open_trackers: "OpenTrackers") -> Execute:
    """Return a function that executes jobs on this machine, in the slots of gpu_sharing.slots_for."""

    def execute(sweep: Sweep, jobs: list[Job], console: Console) -> str:
        from hidden_subnet.sweep.gpu_sharing import slots_for
        from hidden_subnet.sweep.worker import work

        todo = [job.config for job in leaves(jobs)]
        slots = slots_for(todo, workers, jobs_per_gpu, partial(say, console))
        threads = f"{slots.threads} thread{'s' * (slots.threads > 1)} each"
        say(console, f"{slots.count} at a time, {threads}; each run writes to {sweep.out}")
        with View(console) as view:
            return work(sweep, slots, view.update, jobs=jobs, open_trackers=open_trackers).reason

    return execute


def report_failures(sweep: Sweep, jobs: list[Job], console: Console) -> bool:
    """Print a line for each run that failed or was lost, and the file of its traceback; returns whether any was."""
    failures, names = [job for job in jobs if job.state in ("failed", "lost")], described(jobs)
    for job in failures[:10]:
        say(console, f"{job.state}: {names[job.folder.name]}: {job.message}", "red")
        if not job.blocked and files.read_error(job.folder):
            say(console, f"  traceback: {files.working(job.folder) / files.ERROR}")
    if len(failures) > 10:
        say(console, f"... and {len(failures) - 10} more: {PROGRAM} status {sweep.folder}")
    if failures:
        say(console, "the same command tries these again, from their last checkpoint")
    return bool(failures)


def only_failures(sweep: Sweep, jobs: list[Job], console: Console) -> int:
    """A Finish that prints nothing but the failures, for runs that are a part of something with its own table."""
    failed = report_failures(sweep, jobs, console)
    return int(failed or any(not job.is_settled for job in jobs))


def outcome_line(jobs: list[Job]) -> str:
    """Number of runs in each state among those that this command had to do, as in "3 done, 1 failed"."""
    states = Counter(job.state for job in jobs if job.state != "skipped")
    collapsed = Progress().collapsed([job for job in jobs if job.state == "done"])
    flag = f" ({collapsed} collapsed)" if collapsed else ""
    return ", ".join(f"{states[state]} {state}" + flag * (state == "done") for state in STATES if states[state])
