"""The table of a sweep for a paper, in Markdown and LaTeX: best in bold, differences paired by seed.

A row is a series of the figure and a column a value of what was swept. Accuracies are in %.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet.config.differences import shown
from hidden_subnet.report.intervals import LEVEL, half_width
from hidden_subnet.report.metric import LAST_TEST, Metric
from hidden_subnet.report.names import joined, setting_name
from hidden_subnet.report.series import RATE, choose_x, numbers_swept, setting_of
from hidden_subnet.report.table import Line, summarise
from hidden_subnet.store.folders import write_atomically
from hidden_subnet.store.read import Run


@dataclass(frozen=True)
class Cell:
    """Text of a cell, without the marks of a format; "+-" stands for the sign."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A title, the heads of the columns, and rows of cells."""

    title: str
    head: list[str]
    rows: list[list[Cell]]


def write_tables(
    runs: Sequence[Run], path: Path, base: Sequence[str] = (), called: str = "", metric: Metric = LAST_TEST
) -> list[Path]:
    """Write the tables of runs as `path`.md and `path`.tex, with differences to the runs whose names are `base`.

    Returns the paths; none where no run is finished.
    """
    lines = [line for line in summarise(runs, metric) if line.n]
    if not lines:
        return []
    named = {run.name for run in runs} & set(base)
    tables = paper_tables(lines, [line for line in lines if named & set(line.names)], called, metric)
    written = []
    for kind, text in (("md", markdown(tables)), ("tex", latex(tables))):
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_atomically(written[-1], text.encode(), root=path.parents[1])
    return written


def paper_tables(
    lines: Sequence[Line], reference: Sequence[Line] = (), called: str = "", metric: Metric = LAST_TEST
) -> list[PaperTable]:
    """Return the table of means, and given `reference`, those of `lines` to compare with, that of the differences.

    lines: at least one, each with a finished run. called: name of the reference in the title. metric:
    what the accuracies of the lines are.

    A line is compared with the one of `reference` on the same data and at the same x and, where there are several, with
    the one that has the most settings in common, seed by seed.
    """
    x = choose_x(lines, numbers_swept(lines)) or ""
    about = f"{metric.sentence} in %, mean +- standard deviation over seeds"
    rivals: dict[tuple[str, float | None], list[float]] = {}
    for line in lines:
        rivals.setdefault((shown(line.settings.get("data")), _column(line, x)), []).append(line.mean or 0)

    def mean(line: Line) -> Cell:
        others = rivals[shown(line.settings.get("data")), _column(line, x)]
        spread = "" if line.std is None else f" +- {100 * line.std:.2f}"
        return Cell(f"{100 * (line.mean or 0):.2f}{spread}", line.mean == max(others) and len(others) > 1)

    found = [_table(about, lines, x, mean)]
    others = [line for line in lines if line not in reference]
    if reference and others:
        about = f"Difference to {called} in points, mean and {100 * LEVEL:.0f} % t-interval over pairs of one seed"
        found.append(_table(about, others, x, lambda line: Cell(_difference(line, reference, x))))
    return found


def _table(title: str, lines: Sequence[Line], x: str, cell: Callable[[Line], Cell]) -> PaperTable:
    cells: dict[str, dict[float | None, Cell]] = {}
    for line in lines:
        cells.setdefault(_name(line, x), {})[_column(line, x)] = cell(line)
    found = {_column(line, x) for line in lines}
    columns = [*([None] if None in found else []), *sorted(each for each in found if each is not None)]
    head = [setting_name(x), *("none" if column is None else shown(column) for column in columns)]
    rows = [[Cell(name), *(row.get(column, Cell("")) for column in columns)] for name, row in cells.items()]
    return PaperTable(title, head if x else ["", "test accuracy"], rows)


def _column(line: Line, x: str) -> float | None:
    return setting_of(line, x) if x else None


def _name(line: Line, x: str) -> str:
    settings = {name: value for name, value in line.settings.items() if name != x}
    if x not in ("", RATE):
        settings[RATE] = line.prune_rate
    return joined(settings) or (line.method or "").replace("_", " ")


def _difference(line: Line, reference: Sequence[Line], x: str) -> str:
    """Return the difference as "+1.20 [0.40, 2.00]"; "" where there is nothing to compare with."""
    others = [
        each
        for each in reference
        if each.settings.get("data") == line.settings.get("data")
        and (_column(each, x) is None or _column(each, x) == _column(line, x))
    ]
    if not others:
        return ""
    other = max(others, key=lambda each: sum(each.settings[name] == value for name, value in line.settings.items()))
    ours, theirs = (dict(zip(each.seeds, each.accuracies, strict=True)) for each in (line, other))
    pairs = [100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]
    if not pairs:
        return "no seed in common"
    mean, half = statistics.mean(pairs), half_width(pairs)
    interval = "" if math.isnan(half) else f" [{mean - half:+.2f}, {mean + half:+.2f}]"
    return f"{mean:+.2f}{interval}"


def markdown(tables: Sequence[PaperTable]) -> str:
    """Return the tables in Markdown."""
    parts = []
    for each in tables:
        rows = [[_bold(cell, "**{}**").replace("+-", "±") for cell in row] for row in each.rows]
        lines = [each.head, ["---", *["---:"] * (len(each.head) - 1)], *rows]
        parts.append(
            f"{each.title}.\n\n".replace("+-", "±")
            + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
        )
    return "\n".join(parts)


def latex(tables: Sequence[PaperTable]) -> str:
    r"""Return the tables in LaTeX, with the rules of the package booktabs."""
    parts = []
    for each in tables:
        rows = [[_bold(Cell(_escaped(cell.text), cell.is_best), r"\textbf{{{}}}") for cell in row] for row in each.rows]
        lines = [" & ".join(line) + r" \\" for line in [list(map(_escaped, each.head)), *rows]]
        spec = "l" + "r" * (len(each.head) - 1)
        body = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        parts.append("\n".join([f"% {each.title}", *body, r"\end{tabular}"]) + "\n")
    return "\n".join(parts)


def _bold(cell: Cell, mark: str) -> str:
    return mark.format(cell.text) if cell.is_best else cell.text


def _escaped(text: str) -> str:
    for sign in "\\{}":
        text = text.replace(sign, "")
    for sign in "_%&#$":
        text = text.replace(sign, "\\" + sign)
    return text.replace("+-", r"$\pm$").replace("^", r"\^{}").replace("~", r"\~{}")
