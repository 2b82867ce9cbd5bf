"""Progress of a sweep: how far each run is, how runs are labelled, and an estimate of the time left."""

import heapq
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hidden_subnet.config.differences import flat, short_names, shown, varying
from hidden_subnet.store import files, folders
from hidden_subnet.store.claims import CLAIM
from hidden_subnet.store.patience import is_passing
from hidden_subnet.store.read import dig, has_collapsed, number
from hidden_subnet.sweep.jobs import Job

Kind = tuple[str, ...]
"""Runs of one kind take about equally long for each epoch: data and their size, library, model, width, method."""


@dataclass(frozen=True)
class Finished:
    """The parts of a finished run's result that progress needs."""

    seconds: float
    """From the claim to the result of its last execution, or the training time if the files' times are not usable."""
    collapsed: bool


@dataclass(frozen=True)
class Now:
    """How far a running run is; None for values that do not exist yet."""

    worker: tuple[str, str]
    """Host name, and process id or Slurm task."""
    epoch: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    """On the validation images, or on the training images if there are none, 0 to 1."""
    left: float | None = None
    """Seconds left if every epoch takes as long as the last one."""


class Progress:
    """Results of the finished runs, each of which is read only once."""

    def __init__(self) -> None:
        self._finished: dict[Path, Finished | None] = {}

    def finished(self, job: Job) -> Finished | None:
        """The result of the run; None if it is not done, or its result is damaged or cannot be read now."""
        if job.state not in ("done", "skipped"):
            return None
        if job.folder not in self._finished:
            try:
                self._finished[job.folder] = _finished(job.folder)
            except OSError:  # a file server does not answer; the next call asks again
                return None
        return self._finished[job.folder]

    def is_damaged(self, job: Job) -> bool:
        """Whether the run is done, but its result is damaged."""
        return self.finished(job) is None and job.folder in self._finished

    def collapsed(self, jobs: Sequence[Job]) -> int:
        """Number of finished runs that are no better than chance although they were trained."""
        return sum(found.collapsed for job in jobs if (found := self.finished(job)) is not None)

    def seconds_left(self, jobs: Sequence[Job], now: Sequence[Now], slots: int) -> float | None:
        """Estimate the seconds until all runs are done with `slots` at a time, from runs of the same kind.

        `now`: progress of the running jobs, in their order. None if no run has finished or completed an epoch yet.
        """
        running = [job for job in jobs if job.state == "running"]
        waiting = [job for job in jobs if job.state == "queued" or (job.claimable and job.state != "running")]
        known = RunTimes()
        for job in jobs:
            if (found := self.finished(job)) is not None:
                known.add(job.projection, found.seconds)
        for job, at in zip(running, now, strict=True):
            if at.left and at.epoch is not None and known.estimate(job.projection) is None:
                known.add(job.projection, at.left / (job.epochs - at.epoch) * _epochs(job.projection))
        if not known:
            return None
        other = known.mean_pace()

        def whole(job: Job) -> float:
            found = known.estimate(job.projection)
            return other * max(1, _epochs(job.projection)) if found is None else found

        busy = [at.left if at.left is not None else whole(job) for job, at in zip(running, now, strict=True)]
        return makespan((whole(job) for job in waiting), slots, busy)


class RunTimes(dict[Kind, dict[int, list[float]]]):
    """Seconds of whole runs, by kind of run and by number of epochs (0: the method trains nothing)."""

    def add(self, what: dict[str, Any], seconds: float) -> None:
        """Note how long a run with the projection `what` took."""
        self.setdefault(kind(what), {}).setdefault(_epochs(what), []).append(seconds)

    def estimate(self, what: dict[str, Any]) -> float | None:
        """Return the median of runs of the same kind, scaled to the number of epochs; None where there are none."""
        alike, epochs = self.get(kind(what)), _epochs(what)
        if not alike:
            return None
        nearest = min(alike, key=lambda each: (abs(each - epochs), each))
        return statistics.median(alike[nearest]) * (epochs / nearest if nearest else 1)

    def mean_pace(self) -> float:
        """Return the seconds of an epoch, as the mean over all kinds: a guess for runs of another kind."""
        return statistics.mean(
            statistics.median(each / max(1, epochs) for epochs, times in alike.items() for each in times)
            for alike in self.values()
        )


def kind(what: dict[str, Any]) -> Kind:
    """Return the settings that decide how long an epoch of a run with the projection `what` takes."""
    data = ("data.name", "data.fraction", "data.one_batch", "data.pad", "data.size", "data.found.digest")
    return tuple(str(dig(what, path)) for path in (*data, "model.library", "model.name", "model.width", "method.name"))


def _epochs(what: dict[str, Any]) -> int:
    """Return the number of epochs that are trained; 0 for a run that trains nothing, whose identity has none."""
    return int(number(dig(what, "train.epochs")) or 0)


def _finished(folder: Path) -> Finished | None:
    """The result; None if it is damaged. Raises OSError while a file server does not answer."""
    path = folder / files.RESULT
    try:
        result = folders.read_json(path)
        trained = float(result["seconds"])
        took = folders.status(path).st_mtime - folders.status(folder / files.CONFIG).st_mtime
        # In a copied folder the times of the files mean nothing.
        likely = trained <= took <= 10 * trained + 60
        return Finished(took if likely else trained, has_collapsed(result))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if is_passing(error):
            raise
        return None


def now(job: Job) -> Now:
    """Read the progress of a running run from its files."""
    worker = ("", "")
    try:
        attempt = files.working(job.folder)
        claim = folders.read_json(attempt / CLAIM)
        worker = str(claim["host"]), str(claim["slurm"] or claim["pid"])
        row = files.last_row(attempt)
        epoch = int(row["epoch"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return Now(worker)  # it has just started or just ended
    seconds = row.get("seconds")
    return Now(
        worker,
        epoch,
        row.get("train/loss"),
        row.get("validation/top1", row.get("train/top1")),
        None if seconds is None else seconds * (job.epochs - epoch),
    )


def counts(jobs: Sequence[Job]) -> dict[str, int]:
    """Number of runs in each state: done, running, stopped, failed, lost, interrupted, to go (a worker may take it)."""
    count = Counter("to go" if job.claimable and job.state != "running" else job.state for job in jobs)
    count["done"] += count.pop("skipped", 0)
    count["to go"] += count.pop("queued", 0)
    return {state: count[state] for state in ("done", "running", "stopped", "failed", "lost", "interrupted", "to go")}


@dataclass(frozen=True)
class Labels:
    """A label for each run: the values of the settings that vary in the sweep. Keys are the names of run folders."""

    header: str
    lines: dict[str, str]
    """As columns that fit under the header: "edge_popup  0.5   1"."""
    words: dict[str, str]
    """As a phrase: "method edge_popup, rate 0.5, seed 1"."""


def labels(jobs: Sequence[Job]) -> Labels:
    """Label each run by the settings that vary; by its folder's name if none does."""
    flats = {job.folder.name: flat(job.projection) for job in jobs}
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
    """Header and dotted name of each setting that varies; seeds that are always equal share one column."""
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


def makespan(seconds: Iterable[float], workers: int, busy: Sequence[float] = ()) -> float:
    """Time until all tasks are done if each worker takes the next task as soon as it is free.

    `seconds`: length of each task, in the order in which they are taken. `busy`: seconds for which some workers are
    still busy before they can take one.
    """
    free = [*busy, *[0.0] * (workers - len(busy))]
    heapq.heapify(free)
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)
