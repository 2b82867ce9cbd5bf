"""The view of a running sweep: a live table on a terminal, and a line for each run that has ended."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hidden_subnet.config.differences import described
from hidden_subnet.store import files
from hidden_subnet.store.read import has_collapsed
from hidden_subnet.sweep.console import clock, say
from hidden_subnet.sweep.jobs import ENDED_STATES, Job
from hidden_subnet.sweep.progress import Labels, Now, Progress, counts, labels, now

DRAW_SECONDS = 0.5
GAP = 2
"""Spaces between two columns of the table."""
DISPENSABLE = ("worker", "loss")
"""Columns that are left out on a narrow terminal, in this order."""


class View:
    """Shows the progress of a sweep on a console; use it as a context manager and call `update` often."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.printed: dict[str, str] = {}
        """The state in which each run was printed as ended, by the name of its folder."""
        self.next = 0.0
        self.slots = 1
        self.progress = Progress()
        self.labels: Labels | None = None
        self.described: dict[str, str] = {}
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "View":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def update(self, jobs: list[Job]) -> None:
        """Print the runs that have ended since the last call, and draw the table if it is time."""
        todo = [job for job in jobs if job.state != "skipped"]
        self.described = self.described or described(jobs)
        if self.live:
            self.labels = self.labels or labels(jobs)
        for job in todo:
            # A run that was interrupted or whose holder died is printed again when it ends again.
            if job.state in ENDED_STATES and not job.claimable and self.printed.get(job.folder.name) != job.state:
                self.printed[job.folder.name], self.next = job.state, 0.0
                self._print_end(job, sum(job.state in ENDED_STATES for job in todo), len(todo))
        self.slots = max(self.slots, sum(job.state == "running" for job in todo))
        if self.live and self.labels and time.monotonic() >= self.next:
            begun = time.monotonic()
            spent = time.monotonic() - self.started
            drawn = picture(jobs, self.labels, self.progress, self.slots, self.console, spent)
            self.live.update(drawn, refresh=True)
            # With many runs on a slow file system, drawing must not take all the time.
            self.next = time.monotonic() + max(DRAW_SECONDS, 20 * (time.monotonic() - begun))

    def _print_end(self, job: Job, number: int, of: int) -> None:
        # A label is short enough for a terminal; for a failed run the user needs the name of its folder.
        name = self.described[job.folder.name]
        if self.labels and job.state == "done":
            name = self.labels.words[job.folder.name]
        line = f"[{number}/{of}] {name}: {job.state}"
        result = None
        if job.state == "done":
            try:
                result = files.read_result(job.folder)
            except (OSError, ValueError) as error:
                line += f", but {error}"
        if result is not None:
            line += f", test accuracy {100 * result['last']['test']['top1']:.2f} %, {result['seconds']:.1f} s"
            if has_collapsed(result):
                line += ", collapsed" + (f" ({result['dead_layer']} is dead)" if result["dead_layer"] else "")
        elif job.message:
            line += f": {job.message}"
        bad = job.state in ("failed", "lost")
        say(self.console, line, "red" if bad else None)


def picture(
    jobs: Sequence[Job],
    labelled: Labels,
    progress: Progress,
    slots: int,
    console: Console,
    spent: float | None = None,
) -> Group:
    """A table with a row for each running run, as many as the terminal has lines for, and the summary of all runs.

    `labelled` is labels(jobs), `slots` the number of runs at a time, `spent` the seconds since the launch.
    """
    running = [job for job in jobs if job.state == "running"]
    nows = [now(job) for job in running]
    room = max(1, console.height - 5) if console.is_terminal else len(running)
    parts: list[Table | Text] = []
    if running:
        parts.append(_table(running[:room], nows[:room], labelled, console.width))
    if len(running) > room:
        parts.append(Text(f"... and {len(running) - room} more"))
    parts.append(Text(summary(jobs, nows, progress, slots, spent)))
    return Group(*parts)


def summary(
    jobs: Sequence[Job], nows: Sequence[Now], progress: Progress, slots: int, spent: float | None = None
) -> str:
    """One line, as in "3 done (1 collapsed), 2 running, 0 failed, 7 to go, 1:05 so far, about 2:10 left".

    `nows`: progress of the running jobs, in their order; for `slots` and `spent` see `picture`.
    """
    words = []
    for state, count in counts(jobs).items():
        if count or state not in ("stopped", "lost", "interrupted"):
            words.append(f"{count} {state}")
    if collapsed := progress.collapsed(jobs):
        words[0] += f" ({collapsed} collapsed)"
    if spent is not None:
        words.append(f"{clock(spent)} so far")
    left = progress.seconds_left(jobs, nows, slots) if nows else None
    if left is not None:
        words.append(f"about {clock(left)} left")
    return ", ".join(words)


def _table(running: Sequence[Job], nows: Sequence[Now], labelled: Labels, width: int) -> Table:
    hosts = {at.worker[0] for at in nows} - {""}
    columns = {
        "worker": [at.worker[1] if len(hosts) < 2 else " ".join(at.worker).strip() for at in nows],
        labelled.header: [labelled.lines[job.folder.name] for job in running],
        "epoch": [
            f"{'-' if at.epoch is None else at.epoch}/{job.epochs}" for job, at in zip(running, nows, strict=True)
        ],
        "loss": ["" if at.loss is None else f"{at.loss:.3f}" for at in nows],
        "accuracy": ["" if at.accuracy is None else f"{100 * at.accuracy:.1f} %" for at in nows],
        "left": ["" if at.left is None else clock(at.left) for at in nows],
    }
    for name in DISPENSABLE:
        if sum(max(map(len, [head, *cells])) + GAP for head, cells in columns.items()) - GAP > width:
            del columns[name]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in columns:
        left = name in ("worker", labelled.header)
        # If the line is too long for the terminal, only the column of labels becomes narrower.
        head = Text(name, no_wrap=True, overflow="ellipsis")
        table.add_column(
            head, justify="left" if left else "right", no_wrap=name != labelled.header, overflow="ellipsis"
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    return table
