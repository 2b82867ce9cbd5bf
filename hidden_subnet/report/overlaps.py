"""Draws what masks have in common: a matrix of runs or epochs, or the layers of two runs beside chance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hidden_subnet.analysis.overlap import ALL, Overlap, Pair
from hidden_subnet.report.style import COLOURS, Style, settings_of
from hidden_subnet.signals import interrupt_held
from hidden_subnet.store import folders

with interrupt_held():
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hidden_subnet.report.drawn import drawn

STYLE = Style(width=3.4, height=2.6, font=8, line=1.2, marker=4, dpi=200)
WRITTEN = 8
"""Most runs or epochs whose numbers are written into the matrix."""
RUN_INCHES, LAYER_INCHES = 0.42, 0.34
"""Height of a run in a matrix, and of a layer in a panel of bars."""


def draw_matrix(axes: Axes, labels: Sequence[str], pairs: Mapping[tuple[str, str], Overlap]) -> None:
    """Draw the Jaccard overlap of every two masks, which is 1 on the diagonal; `pairs` has each pair once."""
    values = [[1.0] * len(labels) for _ in labels]
    for (first, second), found in pairs.items():
        row, column = labels.index(first), labels.index(second)
        values[row][column] = values[column][row] = found.jaccard
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)), xticklabels=labels, yticklabels=labels)
    if len(labels) <= WRITTEN:
        for row, each in enumerate(values):
            for column, value in enumerate(each):
                color = "white" if value > 0.6 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize="smaller")
    chances = [found.chance for found in pairs.values()]
    low, high = (f"{100 * each:.0f}" for each in (min(chances), max(chances)))
    by_chance = low if low == high else f"{low} to {high}"
    axes.set_title(f"weights in common, of those that either keeps\n(random masks: {by_chance} %)")


def write(pairs: Sequence[Pair], letters: Mapping[str, str], path: Path, root: Path | None = None) -> None:
    """Draw runs into the file `path`, in the format of its suffix: png, svg or pdf. letters: of each run's name."""
    with matplotlib.rc_context(settings_of(STYLE)):
        content = drawn(plot(pairs, letters), path.suffix[1:], STYLE.dpi)
    folders.write_atomically(path, content, root=root)


def plot(pairs: Sequence[Pair], letters: Mapping[str, str]) -> Figure:
    """Return a figure of two runs by layer, or a matrix of more."""
    (first, *_), runs = pairs, list(letters.values())
    rows = len(first.layers) * LAYER_INCHES if len(pairs) == 1 else len(runs) * RUN_INCHES
    figure = Figure(figsize=(STYLE.width, max(STYLE.height, 1 + rows)), layout="constrained")
    axes = figure.add_subplot()
    if len(pairs) == 1:
        _draw_layers(axes, first.layers)
    else:
        named = {
            (letters[each.first.folder.name], letters[each.second.folder.name]): each.layers[ALL] for each in pairs
        }
        draw_matrix(axes, runs, named)
    return figure


def _draw_layers(axes: Axes, layers: Mapping[str, Overlap]) -> None:
    paths = ["all layers" if path == ALL else path for path in layers]
    axes.barh(paths, [100 * each.jaccard for each in layers.values()], color=COLOURS[0], label="these two runs")
    for at, each in enumerate(layers.values()):
        chance = 100 * each.chance
        label = "random masks" if at == 0 else None
        axes.plot([chance, chance], [at - 0.4, at + 0.4], color="black", linestyle="--", label=label)
    most = max(max(each.jaccard, each.chance) for each in layers.values())
    axes.set(title="weights in common, of those that either keeps (%)", xlim=(0, min(100, 130 * most)))
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.25), ncols=2)
