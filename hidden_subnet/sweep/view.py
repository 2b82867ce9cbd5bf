"""What a sweep shows while it runs: a live table on a terminal, a line a finished run elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hidden_subnet import record
from hidden_subnet.report.console import say
from hidden_subnet.sweep.job import ENDED_STATES, Job
from hidden_subnet.sweep.progress import Labels, Now, Progress, counts, labels, now

DRAW_SECONDS = 0.5
GAP = 2
"""Columns of the terminal between two of the table."""
DISPENSABLE = ("worker", "loss")
"""What a narrow terminal does without, in this order."""


class View:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.told: dict[str, str] = {}
        self.next = 0.0
        self.slots = 1
        self.progress = Progress()
        self.labels: Labels | None = None
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
        todo = [job for job in jobs if job.state != "skipped"]
        if self.live:
            self.labels = self.labels or labels(jobs)
        for job in todo:
            # A run that was given back, or whose owner died, is told again when it ends again.
            if job.state in ENDED_STATES and not job.claimable and self.told.get(job.folder.name) != job.state:
                self.told[job.folder.name], self.next = job.state, 0.0
                self._tell(job, sum(job.state in ENDED_STATES for job in todo), len(todo))
        self.slots = max(self.slots, sum(job.state == "running" for job in todo))
        if self.live and self.labels and time.monotonic() >= self.next:
            begun = time.monotonic()
            spent = time.monotonic() - self.started
            drawn = picture(jobs, self.labels, self.progress, self.slots, self.console, spent)
            self.live.update(drawn, refresh=True)
            # A hundred runs on a slow file system must not be read all the time.
            self.next = time.monotonic() + max(DRAW_SECONDS, 20 * (time.monotonic() - begun))

    def _tell(self, job: Job, number: int, of: int) -> None:
        # Short on a terminal; but a failed run is one to look for.
        short = self.labels.words[job.folder.name] if self.labels and job.state == "done" else job.folder.name
        said = f"[{number}/{of}] {short}: {job.state}"
        result = None
        if job.state == "done":
            try:
                result = record.read_result(job.folder)
            except ValueError as error:
                said += f", but {error}"
        if result is not None:
            said += f", test accuracy {100 * result['last']['test']['top1']:.2f} %, {result['seconds']:.1f} s"
            if result.get("collapsed"):
                said += ", collapsed" + (f" ({result['dead_layer']} is dead)" if result["dead_layer"] else "")
        elif job.message:
            said += f": {job.message}"
        bad = job.state in ("failed", "lost")
        say(self.console, said, "red" if bad else None)


def picture(
    jobs: Sequence[Job],
    labelled: Labels,
    progress: Progress,
    slots: int,
    console: Console,
    spent: float | None = None,
) -> Group:
    """A line for each run under way, as many as the terminal holds, and the count of all.

    `labelled` is what `labels(jobs)` said, `slots` how many run at a time, `spent` seconds since the launch.
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
    """ "3 done (1 collapsed), 2 running, 0 failed, 7 to go, 1:05 so far, about 2:10 left"; see `picture`."""
    words = []
    for state, count in counts(jobs).items():
        if count or state not in ("lost", "interrupted"):
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
        # Only the column of labels gives way where the line is too long for the terminal.
        head = Text(name, no_wrap=True, overflow="ellipsis")
        table.add_column(
            head, justify="left" if left else "right", no_wrap=name != labelled.header, overflow="ellipsis"
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    return table


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
