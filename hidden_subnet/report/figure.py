"""The figure of a sweep, as PNG, SVG and PDF: `series.picture` says what is in it, here it is laid out.

It is made to be read at the width of a column, 3.4 inches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hidden_subnet.report.metric import LAST_TEST, Metric
from hidden_subnet.report.published import Published
from hidden_subnet.report.series import RATE, Picture, picture
from hidden_subnet.report.style import BOLD, GREY, LABEL_CHARACTERS, PAPER, PLAIN, Style, settings_of, wrapped
from hidden_subnet.report.table import summarise
from hidden_subnet.signals import interrupt_held
from hidden_subnet.store import folders
from hidden_subnet.store.read import Run

with interrupt_held():
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from hidden_subnet.report.curves import draw_curves, draw_kept
    from hidden_subnet.report.drawn import drawn
    from hidden_subnet.report.labels import Labels
    from hidden_subnet.report.rows import draw_map, draw_rows
    from hidden_subnet.report.texts import caption, title_of

KINDS = ("png", "svg", "pdf")


def draw(
    runs: Iterable[Run],
    base: Path,
    title: str = "",
    published: Sequence[Published] = (),
    *,
    style: Style = PAPER,
    x: str | None = None,
    metric: Metric = LAST_TEST,
) -> list[Path]:
    """Write `base`.png, .svg and .pdf and return their paths. The same runs give the same bytes.

    published: accuracies that are added in grey. x: short name of a number that differs between the runs; by default
    it is chosen. metric: what the accuracies are; [] if no run is done and has it. Raises ConfigError for another x.
    """
    contents = draw_as(runs, KINDS, title, published, style=style, x=x, metric=metric)
    paths = [base.with_name(f"{base.name}.{kind}") for kind in contents]
    if paths:
        folders.make_folder(base.parent, root=base.parents[1])
    for path, content in zip(paths, contents.values(), strict=True):
        folders.write_atomically(path, content, root=base.parents[1])
    return paths


def draw_as(
    runs: Iterable[Run],
    kinds: Sequence[str],
    title: str = "",
    published: Sequence[Published] = (),
    *,
    style: Style = PAPER,
    x: str | None = None,
    metric: Metric = LAST_TEST,
) -> dict[str, bytes]:
    """Return the content of a file of each kind (KINDS); {} if no run is done. The arguments are those of `draw`."""
    done = [run for run in runs if run.state == "done"]
    lines = [line for line in summarise(done, metric) if line.n]
    if not lines:
        return {}
    with matplotlib.rc_context(settings_of(style)):
        shown = replace(picture(lines, published, x), metric=metric)
        figure = plot(shown, title_of(done, lines, title), style)
        return {kind: drawn(figure, kind, style.dpi) for kind in kinds}


def plot(shown: Picture, title: str, style: Style = PAPER) -> Figure:
    """Return the figure. Each panel has its zoom below it, in a picture of rows to its right."""
    is_map, is_rows = bool(shown.columns), not shown.x
    columns = 1 if len(shown.panels) < 3 else 2
    rows = -(-len(shown.panels) // columns)
    # Each panel has the room of a zoom where one has it, so that most must have one.
    zoomed = sum(panel.zoom is not None for panel in shown.panels)
    has_zoom = zoomed > 0 and 2 * zoomed >= len(shown.panels) and not is_map
    down, across = 1 + (has_zoom and not is_rows), 1 + (has_zoom and is_rows)
    height = (0.2 * len(shown.rows) + 0.3) * style.font / 7.5 if is_rows else style.height
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, hspace=0.03, wspace=0.02)
    size = style.width * columns, rows * down * height + 0.12 * style.font
    figure = Figure(figsize=size, dpi=style.dpi, layout=layout)
    labels: list[Labels] = []
    grid = figure.add_gridspec(rows * down, columns * across)
    for number, panel in enumerate(shown.panels):
        row, column = divmod(number, columns)
        axes = figure.add_subplot(grid[row * down, column * across])
        is_lowest = number + columns >= len(shown.panels)
        if is_map:
            draw_map(axes, shown, panel)
        elif is_rows:
            draw_rows(axes, shown, panel, is_lowest)
            if has_zoom and panel.zoom:
                beside = figure.add_subplot(grid[row * down, column * across + 1])
                draw_rows(beside, shown, panel, is_lowest, panel.zoom)
        else:
            below = figure.add_subplot(grid[row * down + 1, column], sharex=axes) if has_zoom and panel.zoom else None
            labels += draw_curves(axes, below, shown, panel, style, columns == 1)
            lowest = below or axes
            if below is not None:
                axes.tick_params(labelbottom=False)
            if is_lowest:
                lowest.set_xlabel(shown.label if columns == 1 else shown.label.partition(" (")[0])
            if shown.x == RATE and number == 0 and len(shown.panels) == 1:
                draw_kept(axes, shown)
        if panel.name:
            axes.set_title(panel.name, loc="left", parse_math=False)
    ems = columns * style.width * 72 / style.font
    figure.suptitle(
        wrapped(title, ems / BOLD), x=0.01, ha="left", fontsize=style.font, fontweight="bold",
        parse_math=False,
    )  # fmt: skip
    note = wrapped(caption(shown), ems / (0.85 * PLAIN))
    figure.supxlabel(note, x=0.01, ha="left", fontsize=0.85 * style.font, color=GREY, parse_math=False)
    if columns > 1 and not is_map and not is_rows:
        empty = figure.add_subplot(grid[-down:, -1]) if len(shown.panels) % 2 else None
        _legend(figure, empty)
    figure.draw_without_rendering()  # the layout gives the panels their sizes
    figure.set_layout_engine("none")  # and is not computed again for each file
    for each in labels:
        each.spread(style.font)
    return figure


def _legend(figure: Figure, empty: Axes | None) -> None:
    """Name the series of all panels: in the place of the panel that is missing, or to the right."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    if empty is not None:
        empty.set_axis_off()
        empty.legend(list(named.values()), list(named), loc="upper left")
    else:
        figure.legend(
            list(named.values()), [wrapped(name, LABEL_CHARACTERS) for name in named], loc="outside right center"
        )
