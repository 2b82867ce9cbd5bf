"""`python -m hidden_subnet status`: the progress of sweeps, from any machine that can read their folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hidden_subnet.config.differences import described
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.store import claims, files, folders, sweeps
from hidden_subnet.store.find import find_sweep, output_folder, run_folders
from hidden_subnet.store.liveness import LivenessProbe, settle
from hidden_subnet.store.patience import patiently
from hidden_subnet.store.sweeps import Worker
from hidden_subnet.sweep.console import count, make_console, say
from hidden_subnet.sweep.progress import Progress, labels, now
from hidden_subnet.sweep.status import SweepStatus, status_reader, sweep_status
from hidden_subnet.sweep.view import picture, summary

WATCH_SECONDS = 2.0
MAX_FAILURES = 20


@dataclass(frozen=True)
class Page:
    """Text to print; with --watch on a terminal it is replaced every 2 s."""

    parts: list[Text | Group]
    line: str
    """The same as one line, for a log."""
    is_running: bool
    """Whether a run or worker lives, so that the page may still change."""


def status(out: Path, name: str | None, watch: bool) -> None:
    """Print the status of the sweep `name`, or of all in `out`.

    With `watch` it is updated until nothing runs any more: on a terminal in place, elsewhere a line for each change.
    """
    console, progress = make_console(), Progress()
    folder = None if name is None else find_sweep(out, name)
    where = output_folder(out) if folder is None else folder.parents[1]
    probe = status_reader(where, glance=True)

    def look(probe: LivenessProbe) -> Page:
        if folder is None:
            return _overview(where, probe, progress)
        return _details(sweep_status(folder, probe), progress, console)

    def again() -> Page:
        time.sleep(WATCH_SECONDS)
        return patiently(lambda: look(probe.again()))

    page = look(probe) if watch else settle(look, probe)
    if watch and console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while page.is_running:
                live.update(Group(*page.parts), refresh=True)
                page = again()
    elif watch:
        printed = ""
        while page.is_running:
            if page.line != printed:
                say(console, page.line)
            printed = page.line
            page = again()
    for part in page.parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def _details(seen: SweepStatus, progress: Progress, console: Console) -> Page:
    sweep, jobs = seen.sweep, seen.jobs
    launched = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.launched))
    parts: list[Text | Group] = [Text(f"sweep {sweep.name}: {count(len(jobs), 'run')}, launched {launched}")]
    if sweep.provenance.get("command"):
        parts.append(Text(f"  {sweep.provenance['command']}"))
    parts.append(Text(f"workers: {_workers(seen.workers, seen.waiting)}"))
    # Above the failures, which may not all fit on a terminal.
    running = [job for job in jobs if job.state == "running"]
    if running:
        parts.append(picture(jobs, labels(jobs), progress, seen.slots, console))
    line = summary(jobs, [now(job) for job in running], progress, seen.slots)
    if not running:
        parts.append(Text(line))
    failures = [job for job in jobs if job.state in ("failed", "lost") and not job.claimable]
    ended = [job for job in jobs if job.state == "stopped"]
    names = described(jobs) if failures or ended else {}
    for job in failures[:MAX_FAILURES]:
        parts.append(
            Text(
                f"{job.state}: {names[job.folder.name]}: "
                + (job.message if job.blocked else files.last_error_line(job.folder) or job.message),
                style="red",
            )
        )
    if len(failures) > MAX_FAILURES:
        parts.append(Text(f"... and {len(failures) - MAX_FAILURES} more"))
    parts += [Text(f"stopped: {names[job.folder.name]}: {job.message}") for job in ended[:MAX_FAILURES]]
    if len(ended) > MAX_FAILURES:
        parts.append(Text(f"... and {len(ended) - MAX_FAILURES} more"))
    for job in jobs:
        if progress.is_damaged(job):
            damage = f"damaged: {job.folder / files.RESULT}; remove it, and the same command runs it again"
            parts.append(Text(damage, style="red"))
    if failures:
        parts.append(Text(f"  why: {PROGRAM} logs {failures[0].folder}"))
    if seen.stopped is not None:
        parts.append(Text(f"stopped ({seen.stopped}): the command that launched it continues it"))
    return Page(parts, line, seen.is_active)


def _overview(out: Path, probe: LivenessProbe, progress: Progress) -> Page:
    """One line per sweep, the one launched last first, and one per single run that is being executed."""
    parts, known, is_running = list[Text | Group](), set[str](), False
    for folder in sweeps.find(out):
        try:
            seen = sweep_status(folder, probe)
        except (OSError, ValueError) as error:
            parts.append(Text(f"{folder.name}: {' '.join(str(error).split())}", style="red"))
            continue
        known |= {job.folder.name for job in seen.jobs}
        is_running = is_running or seen.is_active
        parts.append(Text(_line(seen, progress)))
    single = [line for run in run_folders(out) if run.name not in known and (line := _single_run(run, probe))]
    parts += [Text(line) for line in single]
    if not parts:
        parts.append(Text(f"there is no sweep in {out.absolute()}, and no run is being executed"))
    return Page(parts, "; ".join(part.plain for part in parts if isinstance(part, Text)), is_running or bool(single))


def _line(seen: SweepStatus, progress: Progress) -> str:
    running = [job for job in seen.jobs if job.state == "running"]
    launched = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.sweep.launched))
    line = f"{seen.sweep.name}  launched {launched}: "
    line += summary(seen.jobs, [now(job) for job in running], progress, seen.slots)
    if seen.workers or seen.waiting:
        line += f"; workers: {_workers(seen.workers, seen.waiting)}"
    return line + ("; stopped" if seen.stopped is not None else "")


def _single_run(folder: Path, probe: LivenessProbe) -> str:
    """Return a line for a run that is being executed, "" for any other."""
    try:
        if folders.is_file(folder / files.RESULT):
            return ""
        status = claims.run_status(folder, probe)
    except OSError as error:
        return f"{folder.name}: cannot be read now ({error})"
    return f"{folder.name}: running, {status.holder}" if status.state == "running" else ""


def _workers(found: Sequence[Worker], waiting: Sequence[str]) -> str:
    parts = [f"{worker.holder} ({count(worker.slots, 'slot')})" for worker in found]
    if waiting:
        parts.append(f"{count(len(waiting), 'task')} in Slurm's queue")
    return "; ".join(parts) or "none"
