"""Draws how the scores of each layer are distributed, kept weights on removed ones, from a line of tracked.jsonl."""

import math
from typing import Any

from hidden_subnet.report.style import COLOURS
from hidden_subnet.signals import interrupt_held

with interrupt_held():
    from matplotlib.figure import Figure

MOST = 12
"""Most layers that are drawn: the first and the last ones."""
WIDTH, HEIGHT = 2.6, 2.0
"""Inches of a panel."""


def score_figure(layers: dict[str, dict[str, Any]], title: str) -> Figure:
    """Return a figure with a panel for each layer. layers: by path, as training/tracked.py makes them."""
    shown = list(layers) if len(layers) <= MOST else [*list(layers)[: MOST // 2], *list(layers)[-MOST // 2 :]]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.4), layout="constrained", dpi=100)
    for at, path in enumerate(shown, 1):
        axes, layer = figure.add_subplot(rows, columns, at), layers[path]
        axes.stairs(layer["removed"], layer["edges"], fill=True, color="0.7", label="removed")
        both = [kept + removed for kept, removed in zip(layer["kept"], layer["removed"], strict=True)]
        axes.stairs(both, layer["edges"], baseline=layer["removed"], fill=True, color=COLOURS[0], label="kept")
        density = sum(layer["kept"]) / max(1, sum(both))
        axes.set_title(f"{path} ({density:.1%} kept)", fontsize=8, parse_math=False)
        axes.set_yticks([])
        axes.tick_params("x", labelsize=7)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure
