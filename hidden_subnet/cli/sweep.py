"""A sweep on this machine from its configs to its table, results.csv and figure; and the end of any sweep."""

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from hidden_subnet.config.settings import Config, Report
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.metric import METRICS
from hidden_subnet.report.own_plots import draw_own
from hidden_subnet.report.style import STYLES
from hidden_subnet.report.table import summarise, table
from hidden_subnet.store import claims, files, provenance, sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.read import Run, read_runs, seldom_collected, until_settled
from hidden_subnet.store.sweeps import Sweep
from hidden_subnet.sweep.busy_cores import say_if_busy
from hidden_subnet.sweep.console import count, make_console, say
from hidden_subnet.sweep.fork_server import load_ahead
from hidden_subnet.sweep.jobs import Job, jobs_of
from hidden_subnet.sweep.launch import execute_here, launch, only_failures, report_failures
from hidden_subnet.trackers import last_lines, open_trackers
from hidden_subnet.trackers.sent import how_to_send
from hidden_subnet.trackers.summary import report_sweep
from hidden_subnet.trackers.wandb_environment import is_tracked


def run_sweep(
    configs: list[Config], label: str, workers: int | None, jobs_per_gpu: int | None = 1, *, report: bool = True
) -> tuple[list[Job], int]:
    """Execute a sweep on this machine, with `workers` runs at a time, by default one per GPU or CPU core.

    Without `report` only failures are printed. Returns the jobs and the exit code. Raises ConfigError and DataError
    if the runs cannot be executed here.
    """

    def prepare(todo: list[Config]) -> None:
        say_if_busy(todo, make_console())  # before the processes that load torch are
        load_ahead(todo)

    execute = execute_here(workers, jobs_per_gpu, open_trackers)
    return launch(configs, label, execute, finish if report else only_failures, prepare=prepare)


@seldom_collected()
def finish(sweep: Sweep, jobs: list[Job], console: Console) -> int:
    """Print table and failures, write results.csv and the figure, and send the summary to W&B.

    Returns the exit code: 0 if every run is done, or stopped on purpose, and the results are written.
    """
    from hidden_subnet.report.results import write_results

    for folder in sweep.runs:
        if os.path.lexists(folder / files.ATTEMPTS) and files.is_done(folder):
            with suppress(OSError):  # the disk may be full or read-only
                claims.finalize(folder)  # the process of the run may have died between its commit and this
    every = read_runs(sweep.out)
    runs = _runs_of(sweep, every)
    written: list[Path] = []
    plots: list[Path] = []
    notes: list[str] = []
    config = jobs[0].config
    undrawn: list[str] = []
    unwritten = ""

    def write(latest: list[Run]) -> None:
        written[:] = [write_results(sweep.out, runs=latest)]
        undrawn.clear()
        notes.clear()
        written.extend(_draw(_runs_of(sweep, latest), sweep.out / "figures" / sweep.name, config.report, notes))
        plots[:] = draw_own(_runs_of(sweep, latest), sweep.out / "figures" / sweep.name, undrawn.append)

    try:  # before anything is printed, which may fail
        until_settled(sweep.out, every, write)
    except OSError as error:
        unwritten = f"{error}"
    if runs:
        console.print(table(summarise(runs)))
    failures = report_failures(sweep, jobs, console)
    damaged = {run.name: run.error for run in runs if run.state == "failed"}
    for job in jobs:
        if job.state in ("done", "skipped") and job.folder.name in damaged:
            say(console, f"{job.folder.name}: {damaged[job.folder.name]}", "red")
            say(console, f"  if it stays so, remove {job.folder / files.RESULT}: the same command runs it again")
    if stopped := sum(job.state == "stopped" for job in jobs):
        say(console, f"{count(stopped, 'run')} stopped before the last epoch; to continue, add resume_stopped=true")
    for path in [*written, *plots]:
        say(console, f"wrote {path}")
    for line in [*undrawn, *notes]:
        say(console, line, "red")
    if config.report.run:
        from hidden_subnet.cli.show import draw_runs

        before = {job.folder for job in jobs if job.state == "skipped"}
        draw_runs({run.folder: run.folder in before for run in runs if run.state == "done"}, console)
    if len(runs) == len(jobs) and not unwritten:
        try:
            report_sweep(config, sweep.name, sweep.folder, runs, written[1:], partial(say, console))
        except OSError as error:
            unwritten = f"{error}"
    if unwritten:
        say(console, f"not all results could be written ({unwritten}); the same command tries again", "red")
    for line in last_lines(config):
        say(console, line)
    if is_tracked(config):
        for line in how_to_send([run.folder for run in runs if run.state == "done"], sweep.folder):
            say(console, line)
    # The jobs count as well: a forced run that has just failed may still have its earlier result.
    return int(
        failures
        or bool(unwritten)
        or len(runs) < len(jobs)
        or any(run.state not in ("done", "stopped") for run in runs)
    )


def _draw(runs: list[Run], base: Path, report: Report, notes: list[str]) -> list[Path]:
    """Draw the figure as `report` says; where its x does not differ between the runs, with the x that is chosen."""
    from hidden_subnet.report.figure import draw  # loads matplotlib

    look = partial(draw, runs, base, style=STYLES[report.style.name], metric=METRICS[report.metric.name])
    try:
        return look(x=report.x)
    except ConfigError as error:
        notes.append(str(error).replace("--x ", "report.x="))
        return look()


def _runs_of(sweep: Sweep, runs: list[Run]) -> list[Run]:
    """The runs of the sweep, in its order."""
    found = {run.folder: run for run in runs}
    return [found[folder] for folder in sweep.runs if folder in found]


def finish_jobs(configs: list[Config], label: str, folder: Path | None = None) -> int:
    """Report a sweep whose runs one of Hydra's own launchers has executed; returns the exit code.

    folder: that of the sweep, if it is not named after its runs.
    """
    planned = sweeps.plan(configs, label)
    # Without a launch id the failures count, although no launch of ours executed them.
    sweep = replace(
        sweeps.write(replace(planned, folder=folder or planned.folder), provenance.of_command()), launch=None
    )
    return finish(sweep, jobs_of(sweep, LivenessProbe(sweep.out)), make_console())
