"""What a sweep found: a line for each combination of settings, over its seeds."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hidden_subnet.report.runs import STATES, Run, dig, number

# Shown wherever they vary; any other setting is shown where it tells apart what these leave together.
ALWAYS = ("data.name", "model.name", "model.width", "method.name", "init.name")
NOT_SHOWN = ("schema", "prune_rate", "seeds.")


@dataclass(frozen=True)
class Line:
    settings: dict[str, Any]
    """What varies among the lines, by short names ("method", "lr"); None: not used by this one."""
    method: str | None
    prune_rate: float | None
    """None where the method has no rate."""
    density: float | None
    """Fraction kept of the weights in masked layers, as counted; mean over the runs that are done."""
    chance: float | None
    untrained: float | None
    """Mean test accuracy before training, under the first mask, 0 to 1."""
    accuracies: tuple[float, ...]
    """Test accuracy at the last epoch of each run that is done, 0 to 1."""
    collapsed: tuple[bool, ...]
    """Of the same runs: whether that accuracy is at chance although the run was trained."""
    seconds: float | None
    state: str
    """"done", or a count of each state that occurs, as in "2 done, 1 failed"; then ", 1 collapsed" of those done."""

    @property
    def rate(self) -> float | None:
        """Where it stands on the axis of rates: the prune rate, or the fraction that a method without one removed.

        None where nothing was removed: a dense network.
        """
        if self.prune_rate is None and self.density is not None and self.density < 1:
            return 1 - self.density
        return self.prune_rate

    @property
    def n(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float | None:
        return _mean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Of the sample (n - 1 in the denominator); None for fewer than two runs."""
        return statistics.stdev(self.accuracies) if self.n > 1 else None


def summarise(runs: Iterable[Run]) -> list[Line]:
    """Runs that differ only in seeds make a line; lines are in the order of settings, then of prune_rate."""
    groups: dict[str, list[Run]] = {}
    for run in distinct(runs):
        groups.setdefault(_key({**run.projection, "seeds": None}), []).append(run)
    flats = {key: flat(members[0].projection) for key, members in groups.items()}
    shown = varying([flat for flat in flats.values() if flat])
    names = short_names(shown)
    lines = [_line({names[path]: flats[key].get(path) for path in shown}, members) for key, members in groups.items()]
    return sorted(lines, key=_order)


def distinct(runs: Iterable[Run]) -> list[Run]:
    """One run for each identity: two folders can hold one run (seed=1 seeds.*=0 is that of seed=0)."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (STATES.index(run.state), run.name)):
        found.setdefault(_key(run.projection) if run.projection else str(run.folder), run)
    return list(found.values())


def varying(flats: Sequence[dict[str, Any]]) -> list[str]:
    """Dotted names of the settings that tell the runs apart, as few as do.

    A setting that follows from those before it is left out: train.lr where each method has its own default.
    """
    shown = [path for path in ALWAYS if len({flat.get(path) for flat in flats}) > 1]
    # Names first: what else goes with pruning=global says less than that.
    others = sorted(
        {path for flat in flats for path in flat} - set(ALWAYS), key=lambda path: (path[-5:] != ".name", path)
    )
    for path in others:
        if not path.startswith(NOT_SHOWN) and _classes(flats, [*shown, path]) > _classes(flats, shown):
            shown.append(path)
    return shown


def _classes(flats: Sequence[dict[str, Any]], paths: Sequence[str]) -> int:
    return len({tuple(flat.get(path) for path in paths) for flat in flats})


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """model.name -> model, train.lr -> lr; two that would be called the same keep their full names."""
    short = {path: path.removesuffix(".name").rpartition(".")[2] for path in paths}
    count = Counter(short.values())
    return {path: name if count[name] == 1 else path for path, name in short.items()}


def _line(settings: dict[str, Any], members: Sequence[Run]) -> Line:
    done = [run for run in members if run.state == "done"]
    count = Counter(run.state for run in members)
    measured = [run for run in done if run.test_top1 is not None]
    collapsed = sum(run.collapsed for run in measured)
    states = [f"{count[state]} {state}" for state in STATES if count[state]]
    state = "done" if len(done) == len(members) else ", ".join(states)
    return Line(
        settings=settings,
        method=members[0].method,
        prune_rate=number(members[0].projection.get("prune_rate")),
        density=_mean([dig(run.result, "density") for run in done]),
        chance=_mean([dig(run.result, "chance") for run in done]),
        untrained=_mean([run.untrained_top1 for run in done]),
        accuracies=tuple(float(run.test_top1 or 0) for run in measured),
        collapsed=tuple(run.collapsed for run in measured),
        seconds=_mean([dig(run.result, "seconds") for run in done]),
        state=state + f", {collapsed} collapsed" * bool(collapsed),
    )


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [found for found in map(number, values) if found is not None]
    return statistics.mean(numbers) if numbers else None


def _key(projection: dict[str, Any]) -> str:
    return json.dumps(projection, sort_keys=True)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"lr": 0.1}}` as `{"train.lr": 0.1}`, lists as text."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return found


def _order(line: Line) -> tuple[Any, ...]:
    return tuple(map(_rank, [*line.settings.values(), line.prune_rate]))


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then words, then what is missing: Python does not compare them with each other."""
    found = number(value)
    if found is not None:
        return 0, found, ""
    return (2, 0.0, "") if value is None else (1, 0.0, str(value))


def table(lines: Sequence[Line]) -> Table:
    """For a terminal or, as plain text, a file: accuracies in %, "-" where there is no value."""
    settings = list(lines[0].settings) if lines else []
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    result.caption = Text("test: accuracy at the last epoch, mean and standard deviation over n seeds")
    for name in settings:
        result.add_column(Text(name), no_wrap=True, overflow="fold")
    for header in ("prune\nrate", "density", "untrained\n%", "test\n%", "±", "n", "seconds"):
        result.add_column(header, justify="right", no_wrap=True)
    result.add_column("state", overflow="fold")
    for line in lines:
        result.add_row(
            *(Text(shown(line.settings[name])) for name in settings),
            shown(line.prune_rate),
            _fixed(line.density, 4),
            _fixed(line.untrained, 2, 100),
            _fixed(line.mean, 2, 100),
            _fixed(line.std, 2, 100),
            str(line.n),
            _fixed(line.seconds, 1),
            Text(line.state, style="" if line.state == "done" else "bold yellow"),
        )
    return result


def shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fixed(value: float | None, digits: int, factor: float = 1) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
