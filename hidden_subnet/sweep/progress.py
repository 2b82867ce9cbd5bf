"""How far the runs of a sweep are, what tells them apart, and when all may be done."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hidden_subnet import record
from hidden_subnet.claims import CLAIM
from hidden_subnet.identity import projection
from hidden_subnet.report.plan import makespan
from hidden_subnet.report.table import flat, short_names, shown, varying
from hidden_subnet.settings import Config, Random
from hidden_subnet.sweep.job import Job

Kind = tuple[str, str, str, float, str]


@dataclass(frozen=True)
class Finished:
    seconds: float
    """From the claim of its last execution to its result, or as long as it trained where that is more."""
    collapsed: bool


@dataclass(frozen=True)
class Now:
    """Where a run stands that is being executed; None is what it has not reached."""

    worker: tuple[str, str]
    """Host, and process or Slurm task."""
    epoch: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    """On the validation images, else on those trained on, 0 to 1."""
    left: float | None = None
    """Seconds, if every epoch takes as long as the last."""


class Progress:
    """Reads the result of each run once, however often it is asked."""

    def __init__(self) -> None:
        self._finished: dict[Path, Finished | None] = {}

    def finished(self, job: Job) -> Finished | None:
        """None where the run is not done, or its result is damaged."""
        if job.state not in ("done", "skipped"):
            return None
        if job.folder not in self._finished:
            self._finished[job.folder] = _finished(job.folder)
        return self._finished[job.folder]

    def collapsed(self, jobs: Sequence[Job]) -> int:
        return sum(found.collapsed for job in jobs if (found := self.finished(job)) is not None)

    def seconds_left(self, jobs: Sequence[Job], now: Sequence[Now], slots: int) -> float | None:
        """Until all are done with so many at a time, as runs of the same data, model and method tell.

        `now` tells of those that are running, in their order. None where nothing tells yet.
        """
        running = [job for job in jobs if job.state == "running"]
        waiting = [job for job in jobs if job.state == "queued" or (job.claimable and job.state != "running")]
        known: dict[Kind, list[float]] = {}
        for job in jobs:
            if (found := self.finished(job)) is not None:
                known.setdefault(kind(job.config), []).append(found.seconds / _epochs(job.config))
        for job, at in zip(running, now, strict=True):
            if at.left and at.epoch is not None:
                pace = at.left / (job.epochs - at.epoch)
                known.setdefault(kind(job.config), [pace])
        if not known:
            return None
        medians = {each: statistics.median(paces) for each, paces in known.items()}
        other = statistics.mean(medians.values())

        def whole(config: Config) -> float:
            return medians.get(kind(config), other) * _epochs(config)

        busy = [at.left if at.left is not None else whole(job.config) for job, at in zip(running, now, strict=True)]
        return makespan((whole(job.config) for job in waiting), slots, busy)


def kind(config: Config) -> Kind:
    model = config.model
    return config.data.name.name, model.library.name, model.name, model.width, config.method.name


def _epochs(config: Config) -> int:
    return 1 if isinstance(config.method, Random) else max(1, config.train.epochs)


def _finished(folder: Path) -> Finished | None:
    path = folder / record.RESULT
    try:
        result = json.loads(path.read_text())
        trained = float(result["seconds"])
        took = path.stat().st_mtime - (folder / record.CONFIG).stat().st_mtime
        # A copy of a folder has other times.
        likely = trained <= took <= 10 * trained + 60
        return Finished(took if likely else trained, result.get("collapsed") is True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def now(job: Job) -> Now:
    """Of a run that is being executed, from its files."""
    attempt = record.working(job.folder)
    worker = ("", "")
    try:
        claim = json.loads((attempt / CLAIM).read_text())
        worker = str(claim["host"]), str(claim["slurm"] or claim["pid"])
        row = record.read_rows(attempt)[-1]
        epoch = int(row["epoch"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return Now(worker)  # it has just begun, or has just ended
    seconds = row.get("seconds")
    return Now(
        worker,
        epoch,
        row.get("train/loss"),
        row.get("validation/top1", row.get("train/top1")),
        None if seconds is None else seconds * (job.epochs - epoch),
    )


def counts(jobs: Sequence[Job]) -> dict[str, int]:
    """Runs by state, those that occur: done, running, failed, lost, interrupted, to go (a worker may take it)."""
    count = Counter("to go" if job.claimable and job.state != "running" else job.state for job in jobs)
    count["done"] += count.pop("skipped", 0)
    count["to go"] += count.pop("queued", 0)
    return {state: count[state] for state in ("done", "running", "failed", "lost", "interrupted", "to go")}


@dataclass(frozen=True)
class Labels:
    """What tells runs apart: the settings that vary among them, by the names of their folders."""

    header: str
    lines: dict[str, str]
    """In columns of equal width under the header: "edge_popup  0.5   1"."""
    words: dict[str, str]
    """ "method edge_popup, rate 0.5, seed 1"."""


def labels(jobs: Sequence[Job]) -> Labels:
    flats = {job.folder.name: flat(projection(job.config)) for job in jobs}
    columns = _varying(list(flats.values()))
    if not columns:
        names = {name: name for name in flats}
        return Labels("run", names, names)
    cells = {name: [shown(values.get(path)) for path in columns.values()] for name, values in flats.items()}
    widths = [max(map(len, column)) for column in zip(columns, *cells.values(), strict=True)]

    def line(words: Sequence[str]) -> str:
        return "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()

    return Labels(
        line(list(columns)),
        {name: line(words) for name, words in cells.items()},
        {name: ", ".join(map(" ".join, zip(columns, words, strict=True))) for name, words in cells.items()},
    )


def _varying(flats: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Header and dotted name of each; seeds that go together are one."""
    names = short_names(varying(flats))
    found = {name: path for path, name in names.items()}
    if len({each.get("prune_rate") for each in flats}) > 1:
        found["rate"] = "prune_rate"
    seeds = sorted({path for each in flats for path in each if path.startswith("seeds.")})
    vary = [path for path in seeds if len({each[path] for each in flats if path in each}) > 1]
    together = all(len({each[path] for path in seeds if path in each}) == 1 for each in flats)
    if vary and together:
        return {**found, "seed": "seeds.weights"}
    return found | {path.removeprefix("seeds.") + " seed": path for path in vary}
