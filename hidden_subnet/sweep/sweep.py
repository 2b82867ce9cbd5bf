"""A sweep from its configs to its table and figure; what is done already is not run again."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from rich.console import Console

from hidden_subnet import claims, provenance, record
from hidden_subnet.check import ConfigError
from hidden_subnet.owners import Observer
from hidden_subnet.report.console import count, make_console, say
from hidden_subnet.report.runs import STATES, read_run
from hidden_subnet.report.table import summarise, table
from hidden_subnet.settings import Config
from hidden_subnet.sweep import manifest
from hidden_subnet.sweep.forking import load_ahead
from hidden_subnet.sweep.job import Job, jobs_of
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.sweep.progress import Progress
from hidden_subnet.sweep.view import View
from hidden_subnet.trackers.sent import how_to_send
from hidden_subnet.trackers.summary import is_tracked, report_sweep

Execute = Callable[[Sweep, list[Job], Console], str]
"""Have the jobs executed; returns why it stopped before all were, or "". """


def run_sweep(
    configs: list[Config], label: str, workers: int | None, jobs_per_gpu: int | None = 1, *, report: bool = True
) -> tuple[list[Job], int]:
    """A sweep on this machine, in as many slots as it has GPUs or cores (or `workers`); the jobs and the exit code."""
    return launch(configs, label, partial(_execute_here, workers, jobs_per_gpu), load_ahead, report=report)


def launch(
    configs: list[Config],
    label: str,
    execute: Execute,
    begin: Callable[[list[Config]], None] = lambda todo: None,
    *,
    report: bool = True,
) -> tuple[list[Job], int]:
    """Have `execute` do what is not done, print table and paths; returns the jobs and the exit code.

    `begin` is called as soon as it is known that there is something to do, before torch is loaded.
    Without `report` only the failures are told: the runs are a part of something that ends in a table of its own.
    """
    console = make_console()
    todo = [config for config in configs if config.force or not _is_done(config)]
    known = len(configs) - len(todo)
    already = f", {known} of them finished before (force=true runs them anew)" if known else ""
    say(console, f"sweep {manifest.sweep_name(label, configs)}: {count(len(configs), 'run')}{already}")
    if todo:
        begin(todo)
        from hidden_subnet.prepare import prepare  # here is where torch loads

        prepare(todo)
    folder = manifest.folder_of(label, configs)
    known_before = folder.exists()
    try:
        sweep = manifest.write(configs, label, provenance.of_command())
    except OSError:
        if todo or not known_before:
            raise
        sweep = manifest.read(folder)  # all is done, and read-only: what there is can be shown
    jobs, reason = jobs_of(sweep, Observer(sweep.out)), ""
    if any(job.state != "skipped" for job in jobs):  # another command may have done them since
        started = time.monotonic()
        try:
            reason = execute(sweep, jobs, console)
        except ConfigError:  # nothing was begun, and a sweep that never was is not to be listed
            if not known_before:
                shutil.rmtree(sweep.folder, ignore_errors=True)
            raise
        say(console, f"{standing(jobs)} in {time.monotonic() - started:.0f} s")
    if report:
        code = finish(sweep, jobs, console)
    else:
        code = int(tell_failures(sweep, jobs, console) or any(job.state not in ("done", "skipped") for job in jobs))
    if reason:
        forced = any(config.force for config in configs)
        say(console, f"stopped ({reason}): the same command goes on where it was" + " (without force=true)" * forced)
        return jobs, 1 if any(job.final for job in jobs) else 130
    return jobs, code


def _execute_here(
    workers: int | None, jobs_per_gpu: int | None, sweep: Sweep, jobs: list[Job], console: Console
) -> str:
    from hidden_subnet.sweep.packing import slots_for
    from hidden_subnet.sweep.worker import work

    todo = [job.config for job in jobs if job.state != "skipped"]
    slots = slots_for(todo, workers, jobs_per_gpu, partial(say, console))
    threads = f"{slots.threads} thread{'s' * (slots.threads > 1)} each"
    say(console, f"{slots.count} at a time, {threads}; each run writes to {sweep.out}")
    with View(console) as view:
        return work(sweep, slots, view.update, jobs=jobs).reason


def _is_done(config: Config) -> bool:
    return os.path.exists(record.folder_of(config) / record.RESULT)  # unlike Path's, false where it may not look


def finish(sweep: Sweep, jobs: list[Job], console: Console) -> int:
    """Write results.csv and the figure, print the table and the failures; the exit code: 0 if every run is done."""
    from hidden_subnet.report.figure import draw
    from hidden_subnet.report.results import write_results

    for folder in sweep.runs:
        if os.path.exists(folder / record.RESULT):
            with suppress(OSError):  # a full disk, or a read-only one
                claims.settle(folder)  # its owner may have died between the commit and this
    runs = [read_run(folder) for folder in sweep.runs if os.path.exists(folder / record.CONFIG)]
    if runs:
        console.print(table(summarise(runs)))
    failures = tell_failures(sweep, jobs, console)
    damaged = {run.name: run.error for run in runs if run.state == "failed"}
    for job in jobs:
        if job.state in ("done", "skipped") and job.folder.name in damaged:
            say(console, f"{job.folder.name}: {damaged[job.folder.name]}", "red")
            say(console, f"  remove {job.folder / record.RESULT}, and the same command runs it again")
    try:
        drawn = draw(runs, sweep.out / "figures" / sweep.name, title="")
        for path in [write_results(sweep.out), *drawn]:
            say(console, f"wrote {path}")
        if len(runs) == len(sweep.configs):
            report_sweep(sweep.configs[0], sweep.name, sweep.folder, runs, drawn, partial(say, console))
    except OSError as error:
        say(console, f"results.csv and the figure could not be written ({error}); the same command tries again", "red")
    if is_tracked(sweep.configs[0]):
        for line in how_to_send([run.folder for run in runs if run.state == "done"], sweep.folder):
            say(console, line)
    # By the jobs as well: a forced run that failed just now may still have its earlier result.
    return int(failures or len(runs) < len(sweep.configs) or any(run.state != "done" for run in runs))


def tell_failures(sweep: Sweep, jobs: list[Job], console: Console) -> bool:
    """A line for each run that failed or was lost, and where its traceback lies; false if none was."""
    failures = [job for job in jobs if job.state in ("failed", "lost")]
    for job in failures[:10]:
        say(console, f"{job.state}: {job.folder.name}: {job.message}", "red")
        error = record.working(job.folder) / record.ERROR
        if os.path.exists(error):
            say(console, f"  traceback: {error}")
    if len(failures) > 10:
        say(console, f"... and {len(failures) - 10} more: python -m hidden_subnet status {sweep.folder}")
    if failures:
        say(console, "the same command runs these again, from where they were")
    return bool(failures)


def standing(jobs: list[Job]) -> str:
    """As in "3 done, 1 failed": those that this command had to do, by their states."""
    states = Counter(job.state for job in jobs if job.state != "skipped")
    collapsed = Progress().collapsed([job for job in jobs if job.state == "done"])
    flag = f" ({collapsed} collapsed)" if collapsed else ""
    return ", ".join(f"{states[state]} {state}" + flag * (state == "done") for state in STATES if states[state])


def finish_jobs(configs: list[Config], label: str) -> int:
    """The end of a sweep whose jobs others have executed already; the exit code."""
    # So no failure is an old one.
    sweep = replace(manifest.write(configs, label, provenance.of_command()), launch=None)
    return finish(sweep, jobs_of(sweep, Observer(sweep.out)), make_console())
