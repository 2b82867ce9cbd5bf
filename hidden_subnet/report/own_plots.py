"""Plots of the user's own, drawn at the end of a sweep beside its figure.

    @hidden_subnet.register_plot("width")
    def width(results, axes):
        axes.plot(results["width"], results["last_test_top1"], "o")

matplotlib takes a second to import, and so is imported where a plot is drawn.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from hidden_subnet.config.own_parts import said
from hidden_subnet.config.registries import PLOTS, register_own
from hidden_subnet.config.signature import refuse_arguments
from hidden_subnet.report.results import frame
from hidden_subnet.signals import interrupt_held
from hidden_subnet.store import folders
from hidden_subnet.store.read import Run

Plot = TypeVar("Plot", bound=Callable[[Any, Any], Any])


def register_plot(name: str) -> Callable[[Plot], Plot]:
    """Return a decorator that has a function `(results, axes)` draw at the end of each sweep that names its file.

    >>> @hs.register_plot("seconds")
    ... def seconds(results, axes):
    ...     axes.scatter(results["prune_rate"], results["seconds"])

    results: the runs of the sweep as `hidden_subnet.results` gives them, done or not. axes: of matplotlib, empty. The
    picture is figures/<sweep>-<name>.png and .svg. Raises TypeError for other arguments, ValueError for a name in use.
    """

    def enter(plot: Plot) -> Plot:
        refuse_arguments(plot, ("results", "axes"))
        register_own("plot", PLOTS, name, plot)(plot)
        return plot

    return enter


def draw_own(runs: Iterable[Run], base: Path, say: Callable[[str], None]) -> list[Path]:
    """Draw each plot to `base`-<name>.png and .svg and return their paths; `say` is called where one fails.

    None is drawn before a run is done.
    """
    runs = list(runs)
    if not PLOTS or not any(run.state == "done" for run in runs):
        return []
    from hidden_subnet.report.style import PAPER, settings_of

    with interrupt_held():
        import matplotlib
        from matplotlib.figure import Figure

        from hidden_subnet.report.drawn import drawn

    written: list[Path] = []
    for name, plot in PLOTS.items():
        with matplotlib.rc_context(settings_of(PAPER)):
            figure = Figure(figsize=(6.4, 4.8), layout="constrained")
            try:
                plot(frame(runs).convert_dtypes(), figure.add_subplot())
                contents = {kind: drawn(figure, kind, PAPER.dpi) for kind in ("png", "svg")}
            except (Exception, SystemExit) as error:  # whatever the user's code raises
                say(f"the plot {name} could not be drawn: {said(error)}")
                continue
        folders.make_folder(base.parent, root=base.parents[1])
        for kind, content in contents.items():
            path = base.with_name(f"{base.name}-{name}.{kind}")
            folders.write_atomically(path, content, root=base.parents[1])
            written.append(path)
    return written
