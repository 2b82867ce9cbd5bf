"""The content of a figure, chosen by what was swept: its x axis, panels, series and zooms; nothing is drawn here.

Whatever was swept is x: prune_rate, another number, or the seed. Without a number each combination is a row, and two
numbers beside a single prune_rate make a heat map. Accuracies are in %.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from hidden_subnet.config.differences import shown
from hidden_subnet.config.registries import nearest
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.report.metric import LAST_TEST, Metric
from hidden_subnet.report.names import axis_name, joined, value_name
from hidden_subnet.report.published import Published
from hidden_subnet.report.table import Line
from hidden_subnet.store.read import number

RATE, SEED = "prune_rate", "seed"
MOST = 7
"""Largest number of series in a panel."""
MOST_ROWS = 12
"""Largest number of rows in a panel."""
MOST_PANELS = 12
"""Further panels are not drawn, but said."""
MAP_SIDE = 3
"""Two numbers make a heat map where each has this many values at least; else the one with more values is x."""
TENTH = 0.1
"""A zoom shows what lies within this part of the axis."""


@dataclass(frozen=True)
class Point:
    """The runs at one place, one for each seed."""

    x: float
    """Value of the swept setting, number of the row, or column of the heat map."""
    top1: tuple[float, ...]
    """Test accuracy of each run, in %."""
    collapsed: tuple[bool, ...]
    before: tuple[float, ...] = ()
    """The same networks under their masks before any score or weight moved, in %; runs without this are left out."""
    y: float = 0.0
    """Row of the heat map."""

    @property
    def mean(self) -> float:
        """Mean accuracy, in %."""
        return statistics.mean(self.top1)


@dataclass(frozen=True)
class Series:
    """Points that differ in x only."""

    name: str
    index: int
    """Number of the series among those of all panels: its colour and marker; -1 for the only level."""
    points: tuple[Point, ...]
    is_level: bool = False
    """Whether it has no x, as a dense network among prune rates: a line across the panel."""


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: one data set, one family of series."""

    name: str
    series: tuple[Series, ...]
    chance: tuple[float, ...]
    unpruned: tuple[float, ...]
    """The untrained networks with all weights, in %; drawn where nothing is removed."""
    published: tuple[Published, ...] = ()
    top: float = 100.0
    """Upper end of the accuracy axis, whose lower end is 0."""
    zoom: tuple[float, float] | None = None
    """Accuracies of a second picture, where most of the series lie within a tenth of the axis."""


@dataclass(frozen=True)
class Picture:
    """All that a figure shows, apart from its texts about the whole."""

    x: str
    """Short name of the setting along x; "" for rows."""
    label: str
    """Label of the x axis."""
    log: bool
    """prune_rate: whether x is logarithmic in the fraction of weights kept."""
    ticks: tuple[float, ...]
    panels: tuple[Panel, ...]
    rows: tuple[str, ...] = ()
    """Names of the rows from top to bottom; of the heat map's rows from bottom to top."""
    columns: tuple[str, ...] = ()
    """Names of the heat map's columns; empty for another picture."""
    row_label: str = ""
    left_out: int = 0
    """Number of panels that are too many to be drawn."""
    beside: tuple[tuple[str, float], ...] = ()
    """Name and mean accuracy in % of those that have no place in a heat map."""
    metric: Metric = LAST_TEST
    """The kind of all accuracies in it."""


def picture(lines: Sequence[Line], published: Sequence[Published] = (), x: str | None = None) -> Picture:
    """Return what is drawn of `lines`, at least one, each with a finished run; x: short name of a number in them."""
    swept = numbers_swept(lines)
    if x is not None and x not in swept:
        there = f"they have {', '.join(swept)}" if swept else "they have none"
        near = nearest(x, swept) or next(iter(swept), None)
        rule = f"is no number that differs between these runs; {there}"
        raise ConfigError(problem(f"--x {x}", rule, "--x", near) if near else f"--x {x}: {rule}; leave out --x")
    if x is None and RATE not in swept and not published and (sides := _map_sides(lines, swept)):
        return _heat_map(lines, *sides)
    if x is None:
        x = choose_x(lines, swept) or (RATE if published else "")
    if not x and len(lines) == 1 and lines[0].n > 1:
        return _seeds(lines[0])
    if not x:
        return _rows(lines)
    return _curves(lines, x, published)


def numbers_swept(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Return the increasing values of each number that differs between lines, by short name; prune_rate first."""
    found: dict[str, list[float]] = {}
    for name in (RATE, *lines[0].settings):
        values = {value for line in lines if (value := setting_of(line, name)) is not None}
        numbers = {each for value in values if (each := number(value)) is not None}
        if len(values) == len(numbers) > 1:
            found[name] = sorted(numbers)
    return found


def setting_of(line: Line, name: str) -> Any:
    """Return the value of a setting of the line, by its short name; None where the line does not use it."""
    return line.prune_rate if name == RATE else line.settings.get(name)


def choose_x(lines: Sequence[Line], swept: dict[str, list[float]]) -> str | None:
    """Return the number with the fewest series along it, of equals the first; None where no number was swept."""

    def series(name: str) -> int:
        others = [{**line.settings, RATE: line.prune_rate, name: None} for line in lines]
        return len({tuple(each.values()) for each in others})

    return min(swept, key=series, default=None)


def _curves(lines: Sequence[Line], x: str, published: Sequence[Published]) -> Picture:
    """The picture with the numeric setting `x` along the x axis."""
    placed = {id(line): _place(line, x) for line in lines}
    names = [RATE] if x != RATE and _differs(lines, RATE) else []
    names += [name for name in lines[0].settings if name != x]
    families, left_out = _families(lines, names, x, MOST)
    keys = dict.fromkeys(_key(line, _inner(names, families), x) for line in lines if placed[id(line)] is not None)
    levels = dict.fromkeys(_key(line, _inner(names, families), x) for line in lines if placed[id(line)] is None)
    index = {key: number for number, key in enumerate([*keys, *(levels if len(levels) > 1 else ())])}
    panels = []
    for settings, members in families:
        inner = [name for name in names if name not in settings]
        groups: dict[str, list[Line]] = {}
        for line in members:
            groups.setdefault(_key(line, inner, x), []).append(line)
        series = tuple(
            Series(
                _name(group[0], inner),
                index.get(key, -1),
                tuple(_placed_point(line, x) for line in group),
                is_level=placed[id(group[0])] is None,
            )
            for key, group in groups.items()
        )
        unpruned = [100 * top1 for line in members for top1 in line.unpruned if x == RATE]
        panels.append(_panel(joined(settings), members, series, unpruned, published))
    asked = {value for line in lines if (value := number(setting_of(line, x))) is not None}
    points = {rate for each in published for rate in each.points} if x == RATE else set()
    asked = asked or {place for place in placed.values() if place is not None}
    ticks = sorted(asked | points)
    log = max(ticks, default=0) > 0.9 if x == RATE else _is_geometric(x, ticks)
    return Picture(x, axis_name(x), log, tuple(ticks), tuple(panels), left_out=left_out)


def _placed_point(line: Line, x: str) -> Point:
    point = _point(line, _place(line, x) or 0.0)
    # A method without a prune rate was measured before training at another density than that where it stands.
    return replace(point, before=()) if x == RATE and line.prune_rate is None else point


def _place(line: Line, x: str) -> float | None:
    """x of a line; None where it has none: then it is a level."""
    return line.rate if x == RATE else number(setting_of(line, x))


def _is_geometric(name: str, values: Sequence[float]) -> bool:
    """Whether the axis of a number is logarithmic: a learning rate, and values whose ratio grows less than they do."""
    if min(values, default=0) <= 0:
        return False
    return name == "lr" or values[-1] / values[0] >= 8


def _rows(lines: Sequence[Line]) -> Picture:
    """The picture with a row for each combination of settings, the best on top."""
    names = list(lines[0].settings)
    families, left_out = _families(lines, names, "", MOST_ROWS)
    inner = _inner(names, families)
    means: dict[str, list[float]] = {}
    for line in lines:
        means.setdefault(_name(line, inner), []).append(float(line.mean or 0))
    rows = sorted(means, key=lambda name: -statistics.mean(means[name]))
    panels = []
    for settings, members in families:
        points = [(rows.index(_name(line, inner)), line) for line in members]
        series = tuple(
            Series(_name(line, inner), 0, (_point(line, float(row)),))
            for row, line in sorted(points, key=lambda p: p[0])
        )
        panels.append(_panel(joined(settings), members, series, []))
    return Picture("", "", False, tuple(map(float, range(len(rows)))), tuple(panels), tuple(rows), left_out=left_out)


def _seeds(line: Line) -> Picture:
    """The picture of runs that differ in their seeds only."""
    points = tuple(
        Point(float(seed), (100 * top1,), (collapsed,), (100 * before,) if before is not None else ())
        for seed, top1, collapsed, before in zip(
            line.seeds,
            line.accuracies,
            line.collapsed,
            line.before if len(line.before) == line.n else [None] * line.n,
            strict=True,
        )
    )
    points = tuple(sorted(points, key=lambda point: point.x))
    mean = Series("mean", -1, (Point(0.0, tuple(100 * top1 for top1 in line.accuracies), ()),), is_level=True)
    panel = _panel("", [line], (Series(value_name("method", line.method), 0, points), mean), [])
    return Picture(SEED, axis_name(SEED), False, tuple(point.x for point in points), (panel,))


def _map_sides(lines: Sequence[Line], swept: dict[str, list[float]]) -> tuple[str, str] | None:
    """The two numbers of a heat map, the one with more values first."""
    sides = sorted((name for name in swept if len(swept[name]) >= MAP_SIDE), key=lambda name: -len(swept[name]))
    return (sides[0], sides[1]) if len(sides) > 1 else None


def _heat_map(lines: Sequence[Line], x: str, y: str) -> Picture:
    swept = numbers_swept(lines)
    names = [name for name in lines[0].settings if name not in (x, y)]
    families: dict[str, tuple[dict[str, Any], list[Line]]] = {}
    for line in lines:
        settings = {name: line.settings[name] for name in names}
        families.setdefault(_key(line, names, ""), (settings, []))[1].append(line)
    panels, beside = [], []
    for settings, members in families.values():
        points = tuple(
            replace(_point(line, float(swept[x].index(column))), y=float(swept[y].index(row)))
            for line in members
            if (column := number(line.settings[x])) is not None and (row := number(line.settings[y])) is not None
        )
        if points:
            panels.append(_panel(joined(settings), members, (Series("", 0, points),), []))
        without = [line for line in members if None in (line.settings[x], line.settings[y])]
        beside += [(_name(line, list(line.settings)), 100 * (line.mean or 0)) for line in without]
    return Picture(
        x, axis_name(x), False, (), tuple(panels[:MOST_PANELS]),
        tuple(map(shown, swept[y])), tuple(map(shown, swept[x])), axis_name(y), max(0, len(panels) - MOST_PANELS),
        tuple(beside),
    )  # fmt: skip


def _families(
    lines: Sequence[Line], names: Sequence[str], x: str, most: int
) -> tuple[list[tuple[dict[str, Any], list[Line]]], int]:
    """The panels as (their settings, their lines), and the number of those that are too many.

    One a data set, and then by as few further settings as leave at most `most` series a panel. A line that does not use
    such a setting is in each of its panels.
    """
    chosen = ["data"] if "data" in names else []

    def split(by: Sequence[str]) -> list[tuple[dict[str, Any], list[Line]]]:
        found: dict[tuple[Any, ...], list[Line]] = {}
        values = [tuple(setting_of(line, name) for name in by) for line in lines]
        for key in dict.fromkeys(values):
            if None not in key or not any(_covers(key, other) for other in values if other != key):
                found[key] = [line for line, own in zip(lines, values, strict=True) if own == key or _covers(own, key)]
        return [(dict(zip(by, key, strict=True)), members) for key, members in found.items()]

    def largest(by: Sequence[str]) -> int:
        rest = [name for name in names if name not in by]
        return max(len({_key(line, rest, x) for line in members}) for _, members in split(by))

    others = [name for name in names if name not in chosen]
    if largest(chosen) > most:
        choices = [[*chosen, *some] for count in (1, 2, 3) for some in combinations(others, count)]
        enough = [by for by in choices if largest(by) <= most]
        if choices:
            fewest = min(enough or choices, key=lambda by: (len(by), len(split(by)) if enough else largest(by)))
            chosen = fewest
    families = split(chosen)
    return families[:MOST_PANELS], max(0, len(families) - MOST_PANELS)


def _covers(own: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    """Whether a line whose settings are `own`, None where it does not use one, also belongs to the panel `key`."""
    return None in own and all(mine in (None, its) for mine, its in zip(own, key, strict=True))


def _inner(names: Sequence[str], families: Sequence[tuple[dict[str, Any], list[Line]]]) -> list[str]:
    """The settings that tell series of a panel apart."""
    return [name for name in names if name not in families[0][0]]


def _differs(lines: Sequence[Line], name: str) -> bool:
    return len({setting_of(line, name) for line in lines} - {None}) > 1


def _key(line: Line, names: Sequence[str], x: str) -> str:
    """Text that the lines of a series share; those without x are a series of their own."""
    return repr([setting_of(line, name) for name in names] + [bool(x) and _place(line, x) is None])


def _name(line: Line, names: Sequence[str]) -> str:
    return joined({name: setting_of(line, name) for name in names}) or value_name("method", line.method)


def _point(line: Line, x: float) -> Point:
    top1, before = (tuple(100 * each for each in values) for values in (line.accuracies, line.before))
    return Point(x, top1, line.collapsed, before)


def _panel(
    name: str,
    lines: Sequence[Line],
    series: tuple[Series, ...],
    unpruned: Sequence[float],
    published: Sequence[Published] = (),
) -> Panel:
    chance = tuple(sorted({100 * line.chance for line in lines if line.chance is not None}))
    values = [top1 for each in series for point in each.points for top1 in (*point.top1, *point.before)]
    values += [*chance, *(top1 for each in published for top1 in each.points.values())]
    top = min(104.0, max(1.0, 1.12 * max(values, default=0)))
    panel = Panel(name, series, chance, tuple(unpruned), tuple(published), top)
    return replace(panel, zoom=zoom_of(panel))


def zoom_of(panel: Panel) -> tuple[float, float] | None:
    """Return limits for a second look, where 3 of 5 accuracies above chance lie within a tenth of the axis.

    None where these are fewer than two series and fewer than four points.
    """
    height = TENTH * panel.top
    floor = max(panel.chance, default=0.0) + height
    found = [(point.mean, index, point) for index, each in enumerate(panel.series) for point in each.points]
    levels = sorted(found, key=lambda level: level[:2])
    levels = [level for level in levels if level[0] > floor]
    windows = [[level for level in levels if low[0] <= level[0] <= low[0] + height] for low in levels]
    if not windows:
        return None
    best = max(windows, key=lambda window: (len(window), window[0][0]))
    few = len({index for _, index, _ in best}) < 2 and len(best) < 4
    if few or len(best) < 0.6 * len(levels):
        return None
    seen = [top1 for mean, _, point in best for top1 in point.top1 if abs(top1 - mean) <= height]
    low, high = min([*seen, best[0][0]]), max([*seen, best[-1][0]])
    margin = max(0.12 * (high - low), 0.005 * panel.top)
    return max(0.0, low - margin), min(panel.top, high + margin)
