"""The title of a figure, which names what all runs have in common, and its caption, which explains the marks."""

from collections.abc import Sequence

from hidden_subnet.report.intervals import BAND, BARS, LEVEL
from hidden_subnet.report.names import value_name
from hidden_subnet.report.series import RATE, SEED, Picture
from hidden_subnet.report.style import NO_BREAK
from hidden_subnet.report.table import Line
from hidden_subnet.store.read import Run, dig


def title_of(done: Sequence[Run], lines: Sequence[Line], title: str = "") -> str:
    """Return what all runs have in common: data, network, method, init, prune rate, seeds; `title` goes before it."""
    words = []
    for name, path in (("data", "data.name"), ("model", "model.name"), ("width", "model.width")):
        words += _common(done, name, path)
    for name, path in (("method", "method.name"), ("init", "init.name"), ("prune_rate", "prune_rate")):
        words += _common(done, name, path)
    counts = sorted({line.n for line in lines})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words.append(f"{seeds} seed{'s' * (counts[-1] > 1)}")
    if collapsed := sum(sum(line.collapsed) for line in lines):
        words.append(f"{collapsed} collapsed")
    whole = ", ".join(word.replace(" ", NO_BREAK) for word in words)
    return ": ".join(each for each in (title, whole) if each)


def _common(done: Sequence[Run], name: str, path: str) -> list[str]:
    """The name of the value that all runs have; nothing where they differ, or for the full width.

    A dense network has no prune rate, and does not count for it.
    """
    values = [value for run in done if (value := dig(run.projection, path)) is not None]
    if (
        values
        and (len(values) == len(done) or name == "prune_rate")
        and len({str(each) for each in values}) == 1
        and (name, values[0]) != ("width", 1.0)
    ):
        return [value_name(name, values[0])]
    return []


def caption(shown: Picture) -> str:
    """Return the line below the figure that explains dots, lines and bands."""
    points = [point for panel in shown.panels for each in panel.series for point in each.points]
    most = max(len(point.top1) for point in points)
    words = [f"{shown.metric.sentence}."]
    if shown.columns:
        words = [f"Mean {shown.metric.axis} at the {shown.metric.epoch} epoch; the brighter, the better."]
        words += ["*: some collapsed."] if any(any(point.collapsed) for point in points) else []
    elif shown.x == SEED:
        words.append(
            "Dots: runs; dashed: their mean"
            + (f" and its {100 * LEVEL:.0f}{NO_BREAK}% t-interval." if most >= BARS else ".")
        )
    elif most < BARS:
        words.append("Dots: runs.")
    else:
        is_band = shown.x and min(len(point.top1) for point in points) >= BAND
        mark = "line: mean; band:" if is_band else "bar: mean and its"
        words.append(f"Small dots: runs; {mark} {100 * LEVEL:.0f}{NO_BREAK}% t-interval.")
    if not shown.columns:
        words += ["Hollow: collapsed."] if any(any(point.collapsed) for point in points) else []
        if any(point.before for point in points):
            words.append("Grey: the same networks before training, under the first mask.")
            if not shown.x:
                words[-1] = words[-1].replace(".", " (dense: unpruned).")
        if shown.x == RATE and any(panel.unpruned for panel in shown.panels):
            words.append("Diamond: before training, unpruned.")
        if not shown.x:
            words.append("Dotted: chance.")
    words += [f"{name}: {mean:.1f}." for name, mean in shown.beside]
    if shown.left_out:
        words.append(f"{shown.left_out} more panels are not drawn.")
    return " ".join(words)
