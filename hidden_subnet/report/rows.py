"""Pictures without curves: a row for each combination of settings, and the heat map of two numbers."""

import math
import statistics

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from hidden_subnet.report.intervals import BARS, half_width
from hidden_subnet.report.marks import draw_runs, runs_of
from hidden_subnet.report.series import Panel, Picture
from hidden_subnet.report.style import COLOURS, GREY, LABEL_CHARACTERS, PALE, wrapped


def draw_rows(
    axes: Axes, shown: Picture, panel: Panel, is_lowest: bool, zoom: tuple[float, float] | None = None
) -> None:
    """Draw a row for each combination of settings, from its networks before training to those after."""
    colour = COLOURS[0]
    for each in panel.series:
        [point] = each.points
        seeds = len(point.top1)
        if point.before:
            size = 1.1 * matplotlib.rcParams["lines.markersize"]
            axes.plot(point.before, [point.x] * len(point.before), ".", color=PALE, markersize=size, gid="first mask")
            axes.plot([statistics.mean(point.before), point.mean], 2 * [point.x], color="0.85", linewidth=1, zorder=1)
        draw_runs(axes, [(point.x, top1, flag) for top1, flag in runs_of(point)], colour, "o", 1, across=True)
        if seeds >= BARS:
            half = half_width(point.top1)
            axes.errorbar(
                [point.mean], [point.x], xerr=[half], fmt="|", color=colour, elinewidth=0.8, markersize=8, zorder=3
            )
    for chance in panel.chance:
        axes.axvline(chance, color=GREY, linestyle=(0, (1, 2)), linewidth=0.9, zorder=1, gid="chance")
    axes.set_ylim(len(shown.rows) - 0.4, -0.6)
    axes.yaxis.set_major_locator(FixedLocator(list(range(len(shown.rows)))))
    names = [wrapped(name, LABEL_CHARACTERS + 4) for name in shown.rows]
    axes.set_yticklabels(names if zoom is None else [""] * len(names))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    if zoom is None:
        axes.set_xlim(0, panel.top)
        if panel.zoom:
            axes.axvspan(*panel.zoom, color="0.9", linewidth=0, zorder=0)
    else:
        axes.set_xlim(*zoom)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_facecolor("0.97")
    if is_lowest:
        axes.set_xlabel(shown.metric.axis if zoom is None else "the grey part")


def draw_map(axes: Axes, shown: Picture, panel: Panel) -> None:
    """Draw the mean accuracy of each pair of values as a cell with its number."""
    cells = [[math.nan] * len(shown.columns) for _ in shown.rows]
    points = [point for each in panel.series if not each.is_level for point in each.points]
    for point in points:
        cells[round(point.y)][round(point.x)] = point.mean
    means = [point.mean for point in points]
    low, high = min(means), max(means)
    axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))
    for point in points:
        dark = point.mean < low + 0.6 * (high - low)
        hollow = "*" if any(point.collapsed) else ""
        axes.text(
            point.x, point.y, f"{point.mean:.1f}{hollow}", ha="center", va="center", color="white" if dark else "black"
        )
    axes.set_xticks(range(len(shown.columns)), shown.columns)
    axes.set_yticks(range(len(shown.rows)), shown.rows)
    axes.tick_params(length=0)
    axes.set_xlabel(shown.label)
    axes.set_ylabel(shown.row_label)
