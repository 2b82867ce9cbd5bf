"""Published accuracies of these networks, to compare with; none was measured with this code.

They are in published.csv. Its column `where` holds what else a run of that recipe has, in the words of --where, and
`preset` the sweep that makes such runs. Papers often give accuracies as curves only; `how` says how they were read.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hidden_subnet.report.results import row
from hidden_subnet.report.where import satisfies
from hidden_subnet.store.read import Run, dig


@dataclass(frozen=True)
class Point:
    """One published accuracy, a row of published.csv."""

    data: str
    model: str
    method: str
    what: str
    """Distribution of the weights, and how the recipe differs."""
    prune_rate: float
    """Fraction removed."""
    top1: float
    """Test accuracy in %."""
    preset: str
    """The sweep of that recipe; "" where there is none."""
    where: tuple[str, ...]
    """Conditions, each name=value with the columns of results.csv."""
    source: str
    how: str

    @property
    def is_read_off(self) -> bool:
        """Whether the number was read off a figure."""
        return not self.how.startswith(("printed", "a run of"))


@dataclass(frozen=True)
class Published:
    """Accuracies from one source: a curve of a figure."""

    name: str
    """Label in a figure's legend."""
    points: dict[float, float]
    """Test accuracy in % by prune rate (the fraction removed)."""
    source: str
    how: str


def _read() -> tuple[Point, ...]:
    with Path(__file__).with_suffix(".csv").open(newline="") as file:
        return tuple(_point(**each) for each in csv.DictReader(file))


def _point(*, prune_rate: str, top1: str, where: str, **texts: str) -> Point:
    return Point(prune_rate=float(prune_rate), top1=float(top1), where=tuple(where.split()), **texts)


POINTS = _read()


def published_of(runs: Iterable[Run]) -> list[Published]:
    """Return the published curves of the data, models and methods of `runs`; networks of another width do not count."""
    ours = {_place(run) for run in runs}
    points = [each for each in POINTS if (each.data, each.model, each.method) in ours]
    return [
        Published(f"{model}, {what}", {each.prune_rate: each.top1 for each in found}, source, how)
        for (_, model, what, source, how), found in groupby(
            points, key=lambda each: (each.data, each.model, each.what, each.source, each.how)
        )
    ]


def of_recipes(runs: Iterable[Run]) -> list[tuple[Point, list[Run]]]:
    """Return the published accuracies that `runs` have finished runs of, with these."""
    done = [(_place(run), row(run), run) for run in runs if run.state == "done"]
    found = []
    for point in POINTS:
        conditions = (f"prune_rate={point.prune_rate}", *point.where)
        there = (point.data, point.model, point.method)
        if fitting := [run for place, values, run in done if place == there and satisfies(values, conditions)]:
            found.append((point, fitting))
    return found


def _place(run: Run) -> tuple[str | None, str | None, str | None]:
    """Return data, network and method of a run; no network where it is not one of our own at width 1."""
    is_ours = dig(run.projection, "model.width") in (None, 1) and dig(run.projection, "model.library") is None
    return dig(run.projection, "data.name"), dig(run.projection, "model.name") if is_ours else None, run.method


def models_known() -> str:
    """Return the data and models that have published accuracies: "cifar10 conv2, conv4; imagenet resnet50"."""
    by_data: dict[str, dict[str, None]] = {}
    for each in POINTS:
        by_data.setdefault(each.data, {})[each.model] = None
    return "; ".join(f"{data} {', '.join(models)}" for data, models in by_data.items())
