"""Names beside a panel and labels of ticks, placed so that none lies on another."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from hidden_subnet.report.style import LABEL_CHARACTERS, wrapped

SMALLEST = 0.65
"""How much smaller names may become, where there are many or long ones."""


class Labels:
    """Names beside the right end of a panel, moved apart where they would lie on one another."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.entries: list[tuple[float, Any]] = []

    def add(self, y: float, text: str, colour: str) -> None:
        """Add a name at the height `y`, in units of the axis."""
        broken = wrapped(text, LABEL_CHARACTERS)
        label = self.axes.annotate(
            broken, (1, y), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            color=colour, annotation_clip=False, parse_math=False, linespacing=1.0,
        )  # fmt: skip
        self.entries.append((y, label))

    def spread(self, font: float) -> None:
        """Move the names apart, in the order of their heights, so that they stay inside of the panel if they can.

        Where they do not fit, they become smaller, to `SMALLEST` of the size of the font.
        """
        low, high = self.axes.get_ylim()
        points = self.axes.bbox.height * 72 / self.axes.figure.dpi  # type: ignore[union-attr]
        order = sorted(self.entries, key=lambda entry: entry[0])
        lines = [1 + label.get_text().count("\n") for _, label in order]
        shrunk = font * min(1.0, max(SMALLEST, (points + font) / max(1.0, 1.08 * font * sum(lines))))
        for _, label in order if shrunk < font else []:
            label.set_fontsize(shrunk)
        sizes = [1.08 * shrunk * count for count in lines]
        wanted = [(y - low) / (high - low) * points for y, _ in order]
        placed = apart_by(wanted, sizes, -0.5 * font, points + 0.5 * font)
        for (_, label), before, now in zip(order, wanted, placed, strict=True):
            label.set_position((5, now - before))


def apart_by(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Return centres near the increasing `wanted` of things of these sizes that do not overlap.

    All are in [low, high] if they fit there.
    """
    groups: list[tuple[list[int], float]] = []  # (members, centre)

    def centre(members: list[int]) -> float:
        total = sum(sizes[each] for each in members)
        offsets, at = [], 0.0
        for each in members:
            offsets.append(at + sizes[each] / 2 - total / 2)
            at += sizes[each]
        middle = statistics.mean(wanted[each] - offset for each, offset in zip(members, offsets, strict=True))
        return max(low + total / 2, min(high - total / 2, middle)) if total <= high - low else (low + high) / 2

    def half(members: list[int]) -> float:
        return sum(sizes[each] for each in members) / 2

    for number in range(len(wanted)):
        members = [number]
        while groups and groups[-1][1] + half(groups[-1][0]) > centre(members) - half(members) + 1e-9:
            members = groups.pop()[0] + members
        groups.append((members, centre(members)))
    placed = []
    for members, middle in groups:
        at = middle - half(members)
        for each in members:
            placed.append(at + sizes[each] / 2)
            at += sizes[each]
    return placed


def apart(values: Sequence[float], places: Sequence[float], room: float) -> list[float]:
    """Return those of `values` that can be labelled at the increasing `places`: at least `room` apart."""
    ticks: list[float] = []
    last = -math.inf
    for value, place in zip(values, places, strict=True):
        if place - last >= room - 1e-9:
            ticks.append(value)
            last = place
    return ticks
