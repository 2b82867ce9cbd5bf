"""A sweep from its configs to its table and figure; what is done already is not run again."""

import hashlib
import time
from pathlib import Path

from hidden_subnet import record
from hidden_subnet.config import Config
from hidden_subnet.identity import folder_name
from hidden_subnet.prepare import prepare
from hidden_subnet.report.console import make_console
from hidden_subnet.report.figure import draw
from hidden_subnet.report.results import write_results
from hidden_subnet.report.runs import read_run
from hidden_subnet.report.table import summarise, table
from hidden_subnet.sweep.pool import ENDED, Job, plan_slots, run_all
from hidden_subnet.sweep.view import View


def sweep_name(label: str, configs: list[Config]) -> str:
    """`label` and 8 hex digits of the ids of its runs: the same runs are the same sweep."""
    ids = sorted(folder_name(config) for config in configs)
    return f"{label[:40]}-{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:8]}"


def run_sweep(configs: list[Config], label: str, workers: int | None) -> tuple[list[Job], int]:
    """Execute what is not done, print table and paths; returns the jobs and the exit code."""
    name = sweep_name(label, configs)
    jobs = [Job(config, record.folder_of(config)) for config in configs]
    for job in jobs:
        if not job.config.force and record.read_result(job.folder) is not None:
            job.state = "skipped"
    todo = [job.config for job in jobs if job.state == "queued"]
    console = make_console()
    done = len(jobs) - len(todo)
    already = f", {done} of them finished before (force=true runs them anew)" if done else ""
    console.print(f"sweep {name}: {count(len(jobs))}{already}", highlight=False, soft_wrap=True)
    if todo:
        prepare(todo)
        started = time.monotonic()
        slots = plan_slots(todo, workers)
        console.print(
            f"{slots.count} at a time, {slots.threads} thread{'s' * (slots.threads > 1)} each; "
            f"each run writes to {Path(configs[0].out).absolute()}",
            highlight=False,
            soft_wrap=True,
        )
        with View(console) as view:
            run_all(jobs, slots, name, view.update)
        ended = sum(job.state in ENDED for job in jobs)
        console.print(f"{count(ended)} in {time.monotonic() - started:.0f} s", highlight=False)
    failed = finish(configs, name, {job.folder: job for job in jobs})
    if any(job.state == "interrupted" or job.state == "queued" for job in jobs):
        forced = any(job.config.force for job in jobs)
        console.print("stopped: the same command goes on where it was" + " (without force=true)" * forced)
        return jobs, 130
    # By the jobs as well: with force=true a run that failed just now still has its earlier result.
    return jobs, 1 if failed or any(job.state in ("failed", "busy") for job in jobs) else 0


def count(runs: int) -> str:
    return f"{runs} run{'s' * (runs != 1)}"


def finish(configs: list[Config], name: str, jobs: dict[Path, Job] | None = None) -> bool:
    """Write results.csv and the figure, print the table and the failures; true if a run is not done."""
    console = make_console()
    out = Path(configs[0].out).absolute()
    folders = [record.folder_of(config) for config in configs]
    runs = [read_run(folder) for folder in folders if (folder / record.CONFIG).exists()]
    if runs:
        console.print(table(summarise(runs)))
    failures = [job for job in (jobs or {}).values() if job.state in ("failed", "busy")]
    for job in failures[:10]:
        console.print(f"{job.state}: {job.folder.name}: {job.message}", style="red", highlight=False, soft_wrap=True)
        if (job.folder / record.ERROR).exists():
            console.print(f"  traceback: {job.folder / record.ERROR}", highlight=False, soft_wrap=True)
    if len(failures) > 10:
        console.print(f"... and {len(failures) - 10} more; their error.txt tell why")
    drawn = draw(runs, out / "figures" / name, title="")
    for path in [write_results(out), *drawn]:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return any(run.state != "done" for run in runs) or len(runs) < len(configs)
