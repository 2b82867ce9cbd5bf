"""The marks of runs, the same in every kind of picture."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from hidden_subnet.report.intervals import BARS
from hidden_subnet.report.series import Point, Series
from hidden_subnet.report.style import COLOURS, GREY

MANY = 1000
"""Dots of a kind above which .svg and .pdf hold them as an image, not each as a shape of its own."""


def colour_of(series: Series) -> str:
    """Return the colour of a series; grey for the only one that has no x."""
    return GREY if series.index < 0 else COLOURS[series.index % len(COLOURS)]


def runs_of(point: Point) -> list[tuple[float, bool]]:
    """Return (accuracy in %, collapsed) of each run."""
    return list(zip(point.top1, point.collapsed or (False,) * len(point.top1), strict=True))


def draw_runs(
    axes: Axes,
    runs: Sequence[tuple[float, float, bool]],
    colour: str,
    marker: str,
    seeds: int,
    across: bool = False,
    **others: Any,
) -> None:
    """Draw (place, accuracy, collapsed) of each run: hollow if collapsed, small and pale beside an interval."""
    pale = seeds >= BARS
    for hollow in (False, True):
        chosen = [(place, top1) for place, top1, collapsed in runs if collapsed is hollow]
        if not chosen:
            continue
        places, values = zip(*chosen, strict=True)
        size = matplotlib.rcParams["lines.markersize"] * (0.7 if pale and not hollow else 1)
        edge: dict[str, Any] = {
            "markeredgecolor": colour if hollow else "white",
            "markeredgewidth": 0.9 if hollow else 0.3,
        }
        axes.plot(
            *((values, places) if across else (places, values)), linestyle="none", marker=marker, markersize=size,
            color="white" if hollow else colour, alpha=0.55 if pale and not hollow else 1, zorder=4,
            gid="collapsed" if hollow else "seeds", rasterized=len(chosen) > MANY, **edge, **others,
        )  # fmt: skip
