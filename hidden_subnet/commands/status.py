"""Where sweeps stand, seen from any shell or machine that sees their folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hidden_subnet import claims, record
from hidden_subnet.commands.names import find_sweep, output_folder, run_folders
from hidden_subnet.commands.survey import Onlooker, Survey, onlooker, survey
from hidden_subnet.report.console import count, make_console, say
from hidden_subnet.sweep import manifest
from hidden_subnet.sweep.job import Job
from hidden_subnet.sweep.presence import Worker
from hidden_subnet.sweep.progress import Progress, labels, now
from hidden_subnet.sweep.view import picture, summary

WATCH_SECONDS = 2.0
MOST_FAILURES = 20


@dataclass(frozen=True)
class Page:
    parts: list[Text | Group]
    said: str
    """The same in a line."""
    goes_on: bool


def status(out: Path, name: str | None, watch: bool) -> None:
    """Print it; with `watch` again and again until nothing goes on: a picture on a terminal, elsewhere a line."""
    console, progress = make_console(), Progress()
    folder = None if name is None else find_sweep(out, name)

    def look() -> Page:
        if folder is None:
            return _overview(output_folder(out), progress)
        return _details(survey(folder, onlooker(folder.parents[1])), progress, console)

    page = look()
    if watch and console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while page.goes_on:
                live.update(Group(*page.parts), refresh=True)
                time.sleep(WATCH_SECONDS)
                page = look()
    elif watch:
        told = ""
        while page.goes_on:
            if page.said != told:
                say(console, page.said)
            told = page.said
            time.sleep(WATCH_SECONDS)
            page = look()
    for part in page.parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def _details(seen: Survey, progress: Progress, console: Console) -> Page:
    sweep, jobs = seen.sweep, seen.jobs
    launched = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.launched))
    parts: list[Text | Group] = [Text(f"sweep {sweep.name}: {count(len(jobs), 'run')}, launched {launched}")]
    if sweep.provenance.get("command"):
        parts.append(Text(f"  {sweep.provenance['command']}"))
    parts.append(Text(f"workers: {_workers(seen.workers, seen.waiting)}"))
    # Before the failures: a terminal may be too low for all of them.
    running = [job for job in jobs if job.state == "running"]
    if running:
        parts.append(picture(jobs, labels(jobs), progress, seen.slots, console))
    said = summary(jobs, [now(job) for job in running], progress, seen.slots)
    if not running:
        parts.append(Text(said))
    bad = [job for job in jobs if job.state in ("failed", "lost") and not job.claimable]
    for job in bad[:MOST_FAILURES]:
        parts.append(Text(f"{job.state}: {job.folder.name}: {last_line(job)}", style="red"))
    if len(bad) > MOST_FAILURES:
        parts.append(Text(f"... and {len(bad) - MOST_FAILURES} more"))
    for job in jobs:
        if job.state == "done" and progress.finished(job) is None:
            said_of_it = f"damaged: {job.folder / record.RESULT}; remove it, and the same command runs it again"
            parts.append(Text(said_of_it, style="red"))
    if bad:
        parts.append(Text(f"  why: python -m hidden_subnet logs {bad[0].folder}"))
    if seen.stopped is not None:
        parts.append(Text(f"stopped ({seen.stopped}): the command that launched it goes on"))
    return Page(parts, said, seen.goes_on)


def _overview(out: Path, progress: Progress) -> Page:
    """A line a sweep, the one launched last first, and single runs under way."""
    by, parts, known, goes_on = onlooker(out), list[Text | Group](), set[str](), False
    for folder in manifest.find(out):
        try:
            seen = survey(folder, by)
        except (OSError, ValueError) as error:
            parts.append(Text(f"{folder.name}: {' '.join(str(error).split())}", style="red"))
            continue
        known |= {job.folder.name for job in seen.jobs}
        goes_on = goes_on or seen.goes_on
        parts.append(Text(_line(seen, progress)))
    single = [line for run in run_folders(out) if run.name not in known and (line := _single(run, by))]
    parts += [Text(line) for line in single]
    if not parts:
        parts.append(Text(f"{out.absolute()} holds no sweep, and no run is under way in it"))
    return Page(parts, "; ".join(part.plain for part in parts if isinstance(part, Text)), goes_on or bool(single))


def _line(seen: Survey, progress: Progress) -> str:
    running = [job for job in seen.jobs if job.state == "running"]
    launched = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.sweep.launched))
    said = f"{seen.sweep.name}  launched {launched}: "
    said += summary(seen.jobs, [now(job) for job in running], progress, seen.slots)
    if seen.workers or seen.waiting:
        said += f"; workers: {_workers(seen.workers, seen.waiting)}"
    return said + ("; stopped" if seen.stopped is not None else "")


def _single(folder: Path, by: Onlooker) -> str:
    """Empty unless it is being executed."""
    if (folder / record.RESULT).exists():
        return ""
    standing = claims.standing(folder, by.observer)
    return f"{folder.name}: running, {standing.owner}" if standing.state == "running" else ""


def _workers(found: Sequence[Worker], waiting: Sequence[str]) -> str:
    words = [f"{worker.owner} ({count(worker.slots, 'slot')})" for worker in found]
    if waiting:
        words.append(f"{count(len(waiting), 'task')} in Slurm's queue")
    return "; ".join(words) or "none"


def last_line(job: Job) -> str:
    """Of its traceback, else how it ended."""
    try:
        text = (record.working(job.folder) / record.ERROR).read_text(errors="replace")
        return text.rstrip().splitlines()[-1]
    except (OSError, IndexError):
        return job.message
