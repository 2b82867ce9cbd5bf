"""The table of a sweep: one line per combination of settings, aggregated over seeds."""

import json
import re
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hidden_subnet.config.differences import flat, short_names, shown, varying
from hidden_subnet.config.identity import STREAMS
from hidden_subnet.report.metric import LAST_TEST, Metric
from hidden_subnet.report.results import completed
from hidden_subnet.store.read import STATES, Run, dig, number


@dataclass(frozen=True)
class Line:
    """Runs with the same settings and different seeds."""

    settings: dict[str, Any]
    """Settings that differ between lines, by short names ("method", "lr"); None if this line does not use one."""
    method: str | None
    prune_rate: float | None
    """None if the method has no prune rate."""
    density: float | None
    """Fraction of the weights in masked layers that is kept, as counted; mean over the finished runs."""
    chance: float | None
    """Accuracy on the test images that needs no image, in [0, 1]."""
    untrained: float | None
    """Mean test accuracy before training of the subnetwork at prune_rate, unpruned where nothing is masked, in [0, 1];
    None where no run measured it."""
    accuracies: tuple[float, ...]
    """Test accuracy at the last epoch, or another metric that was asked for, of each finished run, in [0, 1]."""
    collapsed: tuple[bool, ...]
    """For the same runs: whether this accuracy is at chance although the run was trained."""
    names: tuple[str, ...]
    """Name of the folder of each finished run."""
    seeds: tuple[int, ...]
    """Seed of each finished run; of the first stream that differs where `seed` does not."""
    before: tuple[float, ...]
    """Test accuracy before training, as `untrained`, of each finished run that was trained and has it."""
    unpruned: tuple[float, ...]
    """Test accuracy before training with all weights, of each finished run that has it."""
    seconds: float | None
    metrics: dict[str, float | None]
    """Metrics of the user's own on the test images at the last epoch, by name; mean over the finished runs."""
    state: str
    """"done", or a count of each state that occurs, as in "2 done, 1 failed"; then ", 1 collapsed" of those done."""

    @property
    def rate(self) -> float | None:
        """Position on the axis of prune rates: the prune rate, or the fraction that a method without one removed.

        None if nothing was removed (a dense network).
        """
        if self.prune_rate is None and self.density is not None and self.density < 1:
            return 1 - self.density
        return self.prune_rate

    @property
    def n(self) -> int:
        """Number of finished runs."""
        return len(self.accuracies)

    @property
    def mean(self) -> float | None:
        """Mean test accuracy at the last epoch, in [0, 1]."""
        return mean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1 in the denominator); None for fewer than two runs."""
        return statistics.stdev(self.accuracies) if self.n > 1 else None


def summarise(runs: Iterable[Run], metric: Metric = LAST_TEST) -> list[Line]:
    """Return one line for all runs that differ only in seeds, sorted by settings, then by prune_rate.

    metric: the kind of its `accuracies`.
    """
    groups: dict[str, list[Run]] = {}
    chances: dict[tuple[Any, Any], float] = {}
    found = distinct(runs)
    projections = with_named_starts(found)
    for run, projection in zip(found, projections, strict=True):
        groups.setdefault(_key({**projection, "seeds": None}), []).append(run)
        if (chance := number(dig(run.result, "chance"))) is not None:
            # The largest of the data set: older results hold 1 / classes where the largest class has a larger share.
            chances[_data(run)] = max(chance, chances.get(_data(run), 0))
    of_run = {run.folder: projection for run, projection in zip(found, projections, strict=True)}
    flats = {key: flat(of_run[members[0].folder]) for key, members in groups.items()}
    shown = varying([flat for flat in flats.values() if flat])
    names = short_names(shown)
    lines = []
    for key, members in groups.items():
        values = completed(flats[key], members[0], shown)
        settings = {names[path]: values.get(path) for path in shown}
        lines.append(_line(settings, members, chances.get(_data(members[0])), metric))
    return sorted(lines, key=_order)


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Drop runs that are the same run in two folders (seed=1 with all seeds.*=0 is the run of seed=0)."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (STATES.index(run.state), run.name)):
        found.setdefault(_key(run.projection) if run.projection else str(run.folder), run)
    return list(found.values())


STARTS = ("mask", "extend")
"""Settings whose value in the id is a digest of what a run starts from."""


def with_named_starts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the settings of each run, with the name of the run from which it starts in the place of a digest.

    The name is without seeds and id, so that runs that start from those of several seeds are on one line. Where two
    runs of the same seeds would be, the first digits of the digest follow the name.
    """
    if not any(start in run.projection for run in runs for start in STARTS):
        return [run.projection for run in runs]
    named = [
        {**run.projection, **{start: _started_from(run, start) for start in STARTS if start in run.projection}}
        for run in runs
    ]
    for start in STARTS:
        short = _differing_parts({each[start] for each in named if start in each})
        named = [{**each, start: short[each[start]]} if start in each else each for each in named]
    seeds: dict[str, list[str]] = {}
    for each in named:
        seeds.setdefault(_key({**each, "seeds": None}), []).append(_key(each))
    alike = {key for key, of_seeds in seeds.items() if len(set(of_seeds)) < len(of_seeds)}
    return [
        {**each, **{start: f"{each[start]}-{run.projection[start][:6]}" for start in STARTS if start in each}}
        if _key({**each, "seeds": None}) in alike
        else each
        for each, run in zip(named, runs, strict=True)
    ]


def _differing_parts(names: Collection[str]) -> dict[str, str]:
    """Return each name without the parts that all have; a name of which nothing would be left, as it is."""
    parts = {name: name.split("-") for name in names}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {name: "-".join(part for part in each if part not in common) or name for name, each in parts.items()}


def _started_from(run: Run, start: str) -> str:
    """Return the name of the run, without seeds and id, or of the file that mask= or extend= of this run names."""
    path = Path(str(run.settings.get(start)))
    name = path.parent.parent.name if path.parent.name == "checkpoints" else path.name
    return re.sub(r"-s[0-9.]+-[0-9a-f]{12}$", "", name)


def _data(run: Run) -> tuple[Any, Any]:
    return dig(run.projection, "data.name"), dig(run.projection, "data.found.digest")


def _line(settings: dict[str, Any], members: Sequence[Run], chance: float | None, metric: Metric) -> Line:
    done = [run for run in members if run.state == "done"]
    count = Counter(run.state for run in members)
    top1 = {run.name: number(dig(run.result, metric.path)) for run in done}
    measured = [run for run in done if top1[run.name] is not None]
    collapsed = sum(run.collapsed for run in measured)
    states = [f"{count[state]} {state}" for state in STATES if count[state]]
    state = "done" if len(done) == len(members) else ", ".join(states)
    return Line(
        settings=settings,
        method=members[0].method,
        prune_rate=number(members[0].projection.get("prune_rate")),
        density=mean([dig(run.result, "density") for run in done]),
        chance=chance if done else None,
        untrained=mean([run.untrained_top1 for run in done]),
        accuracies=tuple(float(top1[run.name] or 0) for run in measured),
        collapsed=tuple(run.collapsed for run in measured),
        names=tuple(run.name for run in measured),
        seeds=_seeds(measured),
        before=_numbers(run.untrained_top1 for run in measured if _begins_untrained(run)),
        unpruned=_numbers(dig(run.result, "untrained.unpruned.top1") for run in measured),
        seconds=mean([dig(run.result, "seconds") for run in done]),
        metrics={
            name: mean([dig(run.result, f"last.test.{name}") for run in done])
            for name in sorted({name for run in members for name in run.metrics})
        },
        state=state + f", {collapsed} collapsed" * bool(collapsed),
    )


def _begins_untrained(run: Run) -> bool:
    """Return whether a run trains, from a mask that no training has found."""
    return dig(run.result, "last.epoch") != 0 and not any(start in run.projection for start in (*STARTS, "search"))


def _seeds(runs: Sequence[Run]) -> tuple[int, ...]:
    for path in ("seed", *(f"seeds.{stream}" for stream in STREAMS)):
        found = [number(dig(run.settings, path)) for run in runs]
        if None not in found and len(set(found)) == len(found):
            return tuple(int(seed or 0) for seed in found)
    return tuple(range(len(runs)))


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(found for found in map(number, values) if found is not None)


def mean(values: Iterable[Any]) -> float | None:
    """Return the mean of those values that are numbers; None if none is."""
    numbers = _numbers(values)
    return statistics.mean(numbers) if numbers else None


def _key(projection: dict[str, Any]) -> str:
    return json.dumps(projection, sort_keys=True)


def _order(line: Line) -> tuple[Any, ...]:
    return tuple(map(_rank, [*line.settings.values(), line.prune_rate]))


def _rank(value: Any) -> tuple[int, float, str]:
    """Sort key for mixed values: numbers, then words, then missing values."""
    found = number(value)
    if found is not None:
        return 0, found, ""
    return (2, 0.0, "") if value is None else (1, 0.0, str(value))


def table(lines: Sequence[Line]) -> Table:
    """Return the table for a terminal or a text file. Accuracies are in %; "-" means no value."""
    settings = list(lines[0].settings) if lines else []
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    result.caption = Text(
        "untrained: before any score moved, under the first mask (where nothing is masked: unpruned)\n"
        "test: accuracy at the last epoch, mean and standard deviation over n seeds"
    )
    for name in settings:
        result.add_column(Text(name), no_wrap=True, overflow="fold")
    metrics = sorted({name for line in lines for name in line.metrics})
    own = [f"test\n{name}" for name in metrics]
    for header in ("prune\nrate", "density", "untrained\n%", "test\n%", "±", *own, "n", "seconds"):
        result.add_column(header, justify="right", no_wrap=True)
    result.add_column("state", overflow="fold")
    for line in lines:
        result.add_row(
            *(Text(shown(line.settings[name])) for name in settings),
            shown(line.prune_rate),
            fixed(line.density, 4),
            fixed(line.untrained, 2, 100),
            fixed(line.mean, 2, 100),
            fixed(line.std, 2, 100),
            *("-" if (value := line.metrics.get(name)) is None else f"{value:.4g}" for name in metrics),
            str(line.n),
            fixed(line.seconds, 1),
            Text(line.state, style="" if line.state == "done" else "bold yellow"),
        )
    return result


def fixed(value: float | None, digits: int, factor: float = 1) -> str:
    """Return a number, times the factor, with so many digits after the point; "-" for None."""
    return "-" if value is None else f"{factor * value:.{digits}f}"
