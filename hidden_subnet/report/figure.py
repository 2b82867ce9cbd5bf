"""Accuracy against prune rate, as a PNG and an SVG."""

import io
import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from matplotlib.transforms import ScaledTranslation
from scipy.stats import t

from hidden_subnet.record import write_atomically
from hidden_subnet.report.published import Published
from hidden_subnet.report.runs import Run, dig
from hidden_subnet.report.table import Line, shown, summarise

# Okabe and Ito's colours, told apart by colour-blind readers; their yellow is too pale for a thin line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#444444"
STYLE = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "lines.markeredgewidth": 0.5,
    # Text stays text, so that it can be searched; ids do not change from one drawing to the next.
    "svg.fonttype": "none",
    "svg.hashsalt": "hidden_subnet",
}
LEVEL = 0.95


def draw(runs: Iterable[Run], base: Path, title: str = "", published: Sequence[Published] = ()) -> list[Path]:
    """Write `base`.png and `base`.svg (the same runs: the same bytes); nothing where no run is done.

    What was `published` is drawn in grey over it.
    """
    done = [run for run in runs if run.state == "done"]
    lines = summarise(done)
    if not lines:
        return []
    base.parent.mkdir(parents=True, exist_ok=True)
    paths = [base.with_name(f"{base.name}.{kind}") for kind in ("png", "svg")]
    with matplotlib.rc_context(STYLE):
        figure = plot(lines, title, subtitle(done, lines), published)
        for path in paths:
            kind, drawn = path.suffix[1:], io.BytesIO()
            figure.savefig(drawn, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
            write_atomically(path, drawn.getvalue())
    return paths


ROWS, LINE = 4, 0.21
"""Rows of a legend for which there is room, and the height of a further one in inches."""


def plot(lines: Sequence[Line], title: str, below: str, published: Sequence[Published] = ()) -> Figure:
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    series = _series([line for line in lines if line.rate is not None])
    constant = [line for line in lines if line.rate is None]
    rates = sorted({line.rate for line in lines if line.rate is not None})
    for index, members in enumerate(series):
        # Side by side at a single rate, within the margin of 0.05 that it has on each side.
        aside = min(0.008, 0.09 / len(series)) * (index - (len(series) - 1) / 2)
        _draw_series(axes, members, index, aside if len(rates) == 1 else 0.0)
    for index, line in enumerate(constant):
        _draw_band(axes, line, _band_colour(line, constant, series), index)
    for index, each in enumerate(published):
        _draw_published(axes, each, index)
        rates = sorted({*rates, *each.points})
    _limits(axes, lines, rates, published)
    _draw_chance(axes, lines)
    asked = sorted({line.prune_rate for line in lines if line.prune_rate is not None})
    _rate_axes(axes, asked or rates)  # a density that came out would take the room of a tick that was asked for
    axes.set_ylabel("test accuracy (%)")
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    axes.set_title(below, fontsize=9.5, color=GREY, pad=10, parse_math=False)
    if len(series) + len(constant) > 1 or constant or published:
        longest = max(map(len, axes.get_legend_handles_labels()[1]))
        columns = max(1, 90 // (longest + 10))
        rows = math.ceil(len(axes.get_legend_handles_labels()[1]) / columns)
        figure.set_figheight(4.8 + max(0, rows - ROWS) * LINE)  # the legend of many takes no room from the plot
        below_labels = axes.transAxes + ScaledTranslation(0, -0.42, figure.dpi_scale_trans)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=below_labels,
            ncols=columns,
            columnspacing=1.6,
        )
    figure.supxlabel(caption(lines), fontsize=8, color=GREY)
    return figure


def _series(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines of the same settings, which `summarise` leaves side by side, in the order of their rates."""
    return [list(members) for _, members in groupby(lines, key=lambda line: line.settings)]


def _draw_series(axes: Axes, lines: Sequence[Line], index: int, aside: float) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    # Twelve series in six colours: the second six are dashed.
    style = "-" if index // len(COLOURS) % 2 == 0 else "--"
    x = [float(line.rate or 0) + aside for line in lines]
    means = [100 * float(line.mean or 0) for line in lines]
    halves = [100 * half_width(line.accuracies) for line in lines]
    low = [mean - half for mean, half in zip(means, halves, strict=True)]
    high = [mean + half for mean, half in zip(means, halves, strict=True)]
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, means, style, color=colour, zorder=3)
    for hollow in (False, True):
        seeds = [
            (place, 100 * top1)
            for place, line in zip(x, lines, strict=True)
            for top1, collapsed in zip(line.accuracies, line.collapsed, strict=True)
            if collapsed is hollow
        ]
        if seeds:
            face, edge = ("white", colour) if hollow else (colour, "white")
            width = 1.2 if hollow else STYLE["lines.markeredgewidth"]
            places, values = zip(*seeds, strict=True)
            axes.plot(places, values, marker, color=face, markeredgecolor=edge, markeredgewidth=width, zorder=4)
    # A line or a band that has a single point cannot be seen.
    beside = zip([math.nan, *halves[:-1]], [*halves[1:], math.nan], strict=True)
    bars = [half if all(map(math.isnan, two)) else math.nan for half, two in zip(halves, beside, strict=True)]
    axes.errorbar(x, means, bars, fmt="_" if len(lines) == 1 else "none", color=colour, markersize=14, capsize=4)
    axes.plot([], [], style, marker=marker, color=colour, markeredgecolor="white", label=label(lines[0]))


def _draw_band(axes: Axes, line: Line, colour: str, index: int) -> None:
    mean, half = 100 * float(line.mean or 0), 100 * half_width(line.accuracies)
    if line.n > 1:
        axes.axhspan(mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    style = ("--", "-.", (0, (6, 2, 1, 2, 1, 2)))[index % 3]
    axes.axhline(mean, linestyle=style, color=colour, linewidth=1.2, label=f"{label(line)} (n = {line.n})")


def _draw_published(axes: Axes, each: Published, index: int) -> None:
    marker, style = "*pdhv<>"[index % 7], (":", "--", "-.")[index % 3]
    x, y = zip(*sorted(each.points.items()), strict=True)
    axes.plot(
        x, y, linestyle=style, linewidth=1, marker=marker, color="0.55", markerfacecolor="white", markersize=6,
        markeredgewidth=1, zorder=2.5, label=f"published: {each.name}",
    )  # fmt: skip


def _band_colour(line: Line, constant: Sequence[Line], series: Sequence[Sequence[Line]]) -> str:
    """Of several, each takes the colour of the series that differs from it in the method only."""
    if len(constant) > 1:
        for index, members in enumerate(series):
            if {**members[0].settings, "method": ""} == {**line.settings, "method": ""}:
                return COLOURS[index % len(COLOURS)]
    return GREY


def _draw_chance(axes: Axes, lines: Sequence[Line]) -> None:
    for chance in sorted({line.chance for line in lines if line.chance is not None}):
        axes.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1.2, zorder=2)
        axes.annotate(
            f"chance\n{100 * chance:.3g} %",
            (1, 100 * chance),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=GREY,
        )


def _limits(axes: Axes, lines: Sequence[Line], rates: Sequence[float], published: Sequence[Published] = ()) -> None:
    """From the dots, not from the intervals: that of two seeds can be wider than all accuracies there are."""
    top = max(accuracy for line in lines for accuracy in (*line.accuracies, line.chance or 0))
    top = max([top, *(value / 100 for each in published for value in each.points.values())])
    axes.set_ylim(0, min(104, max(1, 112 * top)))
    low, high = (rates[0], rates[-1]) if rates else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.05
    axes.set_xlim(low - margin, high + margin)


def _rate_axes(axes: Axes, rates: Sequence[float]) -> None:
    axes.set_xlabel("prune rate (fraction of weights removed)")
    above = axes.secondary_xaxis("top")
    above.set_xlabel("weights kept")
    above.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * (1 - rate):.4g} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.4g}"))
    if 0 < len(rates) <= 12:
        for axis in (axes.xaxis, above.xaxis):
            axis.set_major_locator(FixedLocator(apart(rates)))


def apart(rates: Sequence[float]) -> list[float]:
    """Of rising rates those that can be labelled: with room for its label, 0.08 of the axis, on its left."""
    ticks = list(rates[:1])
    for rate in rates[1:]:
        if rate - ticks[-1] >= 0.08 * (rates[-1] - rates[0]):
            ticks.append(rate)
    return ticks


def label(line: Line) -> str:
    """What tells a series apart: "conv4, width 2, edge_popup"; the method where nothing does."""
    words = []
    for name, value in line.settings.items():
        if value is not None:
            by_itself = name in ("data", "model", "method", "init", "pruning")
            words.append(shown(value) if by_itself else f"{name} {shown(value)}")
    return ", ".join(words) or (line.method or "")


def subtitle(done: Sequence[Run], lines: Sequence[Line]) -> str:
    """Data and model, method and init where all runs share them, runs behind a point, and how many collapsed."""
    words = []
    for path, most in (("data", 2), ("model", 3), ("method", 1), ("init", 1)):
        names = sorted({str(dig(run.projection, f"{path}.name")) for run in done})
        if len(names) <= most:
            words.append(", ".join(names))
    counts = sorted({line.n for line in lines})
    words.append(f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}")
    if collapsed := sum(sum(line.collapsed) for line in lines):
        words.append(f"{collapsed} collapsed")
    return " · ".join(words)


def caption(lines: Sequence[Line]) -> str:
    hollow = " Hollow: collapsed." if any(any(line.collapsed) for line in lines if line.rate is not None) else ""
    if max(line.n for line in lines) == 1:
        return "Test accuracy at the last epoch; each point is one run." + hollow
    if len({line.rate for line in lines} - {None}) == 1:
        return "Test accuracy at the last epoch. Dots: seeds; bar: mean and its 95 % t-interval." + hollow
    return "Test accuracy at the last epoch. Dots: seeds; line: mean; band: 95 % t-interval of the mean." + hollow


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % t-interval of the mean, in the unit of the values; nan for fewer than two."""
    n = len(values)
    if n < 2:
        return math.nan
    return float(t.ppf((1 + LEVEL) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
