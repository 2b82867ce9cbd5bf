"""What a sweep shows while it runs: a live table on a terminal, a line a finished run elsewhere."""

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from hidden_subnet import record
from hidden_subnet.record import read_rows
from hidden_subnet.sweep.pool import ENDED, Job


class View:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.told: set[str] = set()
        self.drawn = 0.0
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
        for job in todo:
            if job.state in ENDED and job.folder.name not in self.told:
                self.told.add(job.folder.name)
                self._tell(job, len(self.told), len(todo))
        if self.live and time.monotonic() - self.drawn > 0.25:
            self.drawn = time.monotonic()
            self.live.update(self._picture(todo), refresh=True)

    def _tell(self, job: Job, number: int, of: int) -> None:
        said = f"[{number}/{of}] {job.folder.name}: {job.state}"
        result = record.read_result(job.folder) if job.state == "done" else None
        if result is not None:
            said += f", test accuracy {100 * result['last']['test']['top1']:.2f} %, {result['seconds']:.1f} s"
        elif job.message:
            said += f": {job.message}"
        self.console.print(said, highlight=False, soft_wrap=True, style="red" if job.state == "failed" else None)

    def _picture(self, todo: list[Job]) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("run", "epoch", "train loss", "validation", "left"):
            table.add_column(column, justify="left" if column == "run" else "right")
        for job in todo:
            if job.state == "running":
                table.add_row(job.folder.name, *_standing(job))
        ended = sum(job.state in ENDED for job in todo)
        failed = sum(job.state == "failed" for job in todo)
        left = len(todo) - ended
        spent = time.monotonic() - self.started
        remaining = f", about {_clock(spent / ended * left)} left" if ended else ""
        return Group(table, f"{ended} of {len(todo)} ended, {failed} failed, {_clock(spent)} so far{remaining}")


def _standing(job: Job) -> tuple[str, str, str, str]:
    epochs = job.config.train.epochs
    rows = read_rows(job.folder)
    if not rows:
        return f"-/{epochs}", "", "", ""
    row = rows[-1]
    epoch = int(row["epoch"])
    accuracy = row.get("validation/top1", row.get("train/top1"))
    left = row["seconds"] * (epochs - epoch) if "seconds" in row else None
    return (
        f"{epoch}/{epochs}",
        f"{row['train/loss']:.3f}" if "train/loss" in row else "",
        f"{100 * accuracy:.1f} %" if accuracy is not None else "",
        _clock(left) if left is not None else "",
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
