"""A panel of curves: accuracy against the number that was swept, its zoom, and the names beside it."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from hidden_subnet.report.intervals import BAND, BARS, half_width
from hidden_subnet.report.labels import Labels, apart
from hidden_subnet.report.marks import MANY, colour_of, draw_runs, runs_of
from hidden_subnet.report.published import Published
from hidden_subnet.report.series import RATE, SEED, Panel, Picture, Point, Series
from hidden_subnet.report.style import COLOURS, GREY, MARKERS, PALE, PLAIN, Style

ASIDE = 1.6
"""Distance in points by which series at the same x stand beside one another."""


def draw_curves(
    axes: Axes, below: Axes | None, shown: Picture, panel: Panel, style: Style, is_labelled: bool
) -> list[Labels]:
    """Draw a panel and, given `below`, its zoom; return the labels beside them."""
    both = [each for each in (axes, below) if each is not None]
    for part in both:
        _scale(part, shown, panel, style)
        part.set_ylabel(shown.metric.axis)
        part.grid(axis="y", color="0.93", linewidth=0.6)
        part.set_axisbelow(True)
        for index, published in enumerate(panel.published):
            _draw_published(part, published, index)
        only = len(panel.series) == 1
        curves = [each for each in panel.series if not each.is_level]
        for level in panel.series:
            if level.is_level:
                _draw_level(part, level)
        for number, curve in enumerate(curves):
            _draw_series(part, curve, ASIDE * (number - (len(curves) - 1) / 2), shown.x != SEED)
        if only and part is axes and len(panel.series[0].points) <= 4 and curves:
            _draw_jumps(part, curves[0])
        _draw_untrained(part, shown, panel)
        _draw_chance(part, panel)
    axes.set_ylim(0, panel.top)
    if below is not None and panel.zoom is not None:
        below.set_ylim(*panel.zoom)
        axes.axhspan(*panel.zoom, color="0.9", linewidth=0, zorder=0)
        below.set_facecolor("0.97")
        below.set_title("zoom: the grey part above", loc="left", color=GREY, pad=3)
    return [_label(part, panel, part is below, below is not None) for part in both] if is_labelled else []


def _scale(axes: Axes, shown: Picture, panel: Panel, style: Style) -> None:
    """Set the x axis of a picture of curves: its scale, limits, and ticks at what was run."""
    ticks = [float(tick) for tick in shown.ticks]
    places = [*ticks, *(point.x for each in panel.series if not each.is_level for point in each.points)]
    if shown.x == RATE and panel.unpruned:
        places.append(0.0)
    if shown.x == RATE and shown.log:
        axes.set_xscale("function", functions=(_removed_decades, _rate_of_decades))
    elif shown.log:
        axes.set_xscale("log")
    to, back = _scale_functions(shown)
    low, high = (float(to(end)) for end in (min(places, default=0.0), max(places, default=1.0)))
    margin = 0.05 * (high - low) or (0.05 if shown.x == RATE else max(0.5, 0.1 * abs(low)))
    axes.set_xlim(float(back(low - margin)), float(back(high + margin)))
    texts = [f"{tick:.4g}" for tick in ticks]
    texts += [_percent_kept(tick) for tick in ticks] if shown.x == RATE else []
    room = max(map(len, texts)) * PLAIN * matplotlib.rcParams["font.size"] / (0.45 * style.width * 72)
    labelled = apart(ticks, [float(to(tick)) for tick in ticks], room * (high - low))
    if shown.x == RATE and panel.unpruned and float(to(labelled[0])) - low >= 1.2 * room * (high - low):
        labelled = [0.0, *labelled]
    axes.xaxis.set_major_locator(FixedLocator(labelled))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _scale_functions(shown: Picture) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """The function from a value of x to its place along the axis, and the one back."""
    if not shown.log:
        return float, float
    return (_removed_decades, _rate_of_decades) if shown.x == RATE else (math.log10, lambda place: 10**place)


def _removed_decades(rate: Any) -> Any:
    """Decades of weights removed: 0 at rate 0, 1 at 0.9, 2 at 0.99."""
    return -numpy.log10(numpy.maximum(1e-12, 1 - numpy.asarray(rate, dtype=float)))


def _rate_of_decades(decades: Any) -> Any:
    return 1 - 10.0 ** -numpy.asarray(decades, dtype=float)


def _percent_kept(rate: float) -> str:
    return f"{100 * (1 - rate):.4g} %"


def draw_kept(axes: Axes, shown: Picture) -> None:
    """Add an axis of the weights kept above that of the prune rate."""
    above = axes.twiny()
    above.spines.top.set_visible(True)
    if shown.log:
        above.set_xscale("function", functions=(_removed_decades, _rate_of_decades))
    above.set_xlim(axes.get_xlim())
    above.set_xlabel("weights kept")
    above.xaxis.set_major_locator(axes.xaxis.get_major_locator())
    above.xaxis.set_minor_locator(NullLocator())
    above.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: _percent_kept(rate)))


def _draw_series(axes: Axes, series: Series, aside: float, is_joined: bool) -> None:
    """Draw a series, moved by `aside` points so that no series hides another; its data are where they are."""
    moved = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    colour, marker = colour_of(series), MARKERS[series.index % len(MARKERS)]
    # Seven colours: further series are dashed.
    style = "-" if series.index // len(COLOURS) % 2 == 0 else "--"
    points = sorted(series.points, key=lambda point: point.x)
    x, means = [point.x for point in points], [point.mean for point in points]
    few = max(len(point.top1) for point in points)
    _draw_intervals(axes, points, colour, moved)
    line = axes.plot(
        x, means, linestyle=style if is_joined else "none", color=colour, zorder=3, label=series.name, transform=moved
    )[0]
    if few < BARS:
        line.set(linewidth=0.6 * line.get_linewidth(), alpha=0.6)  # it only leads the eye from dot to dot
    runs = [(point.x, top1, flag) for point in points for top1, flag in runs_of(point)]
    draw_runs(axes, runs, colour, marker, few, transform=moved)


def _draw_intervals(axes: Axes, points: Sequence[Point], colour: str, moved: Transform) -> None:
    """Draw a band where all points have five seeds, else a bar at each that has three."""
    halves = [half_width(point.top1) if len(point.top1) >= BARS else math.nan for point in points]
    x, means = [point.x for point in points], [point.mean for point in points]
    if len(points) > 1 and min(len(point.top1) for point in points) >= BAND:
        low = [mean - half for mean, half in zip(means, halves, strict=True)]
        high = [mean + half for mean, half in zip(means, halves, strict=True)]
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, transform=moved)
    elif not all(map(math.isnan, halves)):
        axes.errorbar(
            x, means, halves, fmt="none", color=colour, capsize=1.5, elinewidth=0.8, capthick=0.8, zorder=3.5,
            transform=moved,
        )  # fmt: skip


def _draw_level(axes: Axes, series: Series) -> None:
    [point] = series.points
    if len(point.top1) >= BARS:
        half = half_width(point.top1)
        axes.axhspan(point.mean - half, point.mean + half, color=colour_of(series), alpha=0.15, linewidth=0)
    axes.axhline(point.mean, linestyle="--", color=colour_of(series), zorder=2.8, label=series.name)


def _draw_jumps(axes: Axes, series: Series) -> None:
    """Draw for a single series what training made of each network: an arrow with the accuracies before and after."""
    for point in series.points:
        if not point.before:
            continue
        before = statistics.mean(point.before)
        axes.annotate(
            "", (point.x, point.mean), (point.x, before), zorder=2.5,
            arrowprops={"arrowstyle": "-|>", "color": "0.75", "linewidth": 0.8, "shrinkA": 4, "shrinkB": 4},
        )  # fmt: skip
        is_last = point.x == max(each.x for each in series.points)  # beyond it are the names
        for value, down, colour in ((point.mean, -9, colour_of(series)), (before, 3, GREY)):
            axes.annotate(
                f"{value:.1f}", (point.x, value), (-4 if is_last else 4, down), textcoords="offset points",
                ha="right" if is_last else "left", color=colour,
            )  # fmt: skip


def _draw_untrained(axes: Axes, shown: Picture, panel: Panel) -> None:
    """Draw the same networks before any score moved: under their masks; where x is the prune rate, also unpruned."""
    runs = [
        (point.x, top1) for each in panel.series if not each.is_level for point in each.points for top1 in point.before
    ]
    if runs:
        means: dict[float, list[float]] = {}
        for x, top1 in sorted(runs):
            means.setdefault(x, []).append(top1)
        axes.plot(
            list(means), [statistics.mean(each) for each in means.values()],
            linestyle="none" if shown.x == SEED else ":", color=PALE, linewidth=1, zorder=2,
            label="untrained, under the first mask",
        )  # fmt: skip
        size = 0.7 * matplotlib.rcParams["lines.markersize"]
        axes.plot(
            *zip(*runs, strict=True), ".", color=PALE, markersize=1.6 * size, zorder=2.2, gid="first mask",
            rasterized=len(runs) > MANY,
        )  # fmt: skip
    if shown.x == RATE and panel.unpruned:
        mean = statistics.mean(panel.unpruned)
        axes.plot(
            [0], [mean], "D", color=PALE, markeredgecolor="white", markeredgewidth=0.3, zorder=2.3, gid="unpruned"
        )


def _draw_chance(axes: Axes, panel: Panel) -> None:
    for chance in panel.chance:
        axes.axhline(chance, color=GREY, linestyle=(0, (1, 2)), linewidth=0.9, zorder=1.9, gid="chance")


def _draw_published(axes: Axes, each: Published, index: int) -> None:
    marker, style = "*pdhv<>"[index % 7], (":", "--", "-.")[index % 3]
    x, y = zip(*sorted(each.points.items()), strict=True)
    axes.plot(
        x, y, linestyle=style, linewidth=0.9, marker=marker, color="0.55", markerfacecolor="white",
        markeredgewidth=0.8, zorder=2.5, label=f"published: {each.name}",
    )  # fmt: skip


def _label(axes: Axes, panel: Panel, is_zoom: bool, has_zoom: bool) -> Labels:
    """Name what a picture shows beside it: what the zoom shows there, all else beside the whole."""
    labels = Labels(axes)
    low, high = axes.get_ylim()

    def in_zoom(y: float) -> bool:
        return panel.zoom is not None and panel.zoom[0] <= y <= panel.zoom[1]

    for each in panel.series:
        inside = [point for point in each.points if in_zoom(point.mean)]
        points = inside if is_zoom else [] if inside and has_zoom else list(each.points)
        if points:
            last = max(points, key=lambda point: point.x)
            labels.add(last.mean, each.name, colour_of(each))
    for published in panel.published:
        y = published.points[max(published.points)]
        if low <= y <= high and not (has_zoom and not is_zoom and in_zoom(y)):
            labels.add(y, f"published: {published.name}", "0.45")
    if is_zoom:
        return labels
    ends = [(point.x, statistics.mean(point.before)) for each in panel.series for point in each.points if point.before]
    if ends:
        labels.add(max(ends)[1], "untrained, under the first mask", PALE)
    for chance in panel.chance:
        labels.add(chance, f"chance {chance:.3g} %", GREY)
    return labels
