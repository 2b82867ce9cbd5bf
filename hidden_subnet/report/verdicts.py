"""Runs beside the published accuracies of their recipe: within what one may expect, or outside by how much."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from hidden_subnet.config.program import LAUNCH
from hidden_subnet.report.intervals import LEVEL, half_width
from hidden_subnet.report.published import POINTS, Point, of_recipes
from hidden_subnet.store.read import Run

READING_ERROR = 1.0
"""Points of accuracy by which a number that was read off a figure may be wrong."""


@dataclass(frozen=True)
class Verdict:
    """A published accuracy and what the runs of its recipe reach."""

    point: Point
    accuracies: tuple[float, ...]
    """Test accuracy in % at the last epoch of each finished run; at least one."""

    @property
    def text(self) -> str:
        """ "within" where the published number lies in the t-interval of the mean, widened by the error of reading."""
        difference = statistics.fmean(self.accuracies) - self.point.top1
        allowed = half_width(self.accuracies) + READING_ERROR * self.point.is_read_off
        if math.isnan(allowed):
            return f"{difference:+.2f} (n = 1)"
        return "within" if abs(difference) <= allowed else f"outside by {difference:+.2f}"


def verdicts(runs: Sequence[Run]) -> list[Verdict]:
    """Return a verdict for each published accuracy that `runs` have a finished run of."""
    return [Verdict(point, tuple(100 * (run.test_top1 or 0) for run in fitting)) for point, fitting in of_recipes(runs)]


def verdicts_table(found: Sequence[Verdict]) -> Table:
    """Return a row for each verdict."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("network", "method", "recipe"):
        table.add_column(name)
    for name in ("prune\nrate", "published\n%", "here\n%", "n"):
        table.add_column(name, justify="right")
    table.add_column(f"in the {100 * LEVEL:.0f} %\nt-interval?")
    for each in found:
        point, values = each.point, each.accuracies
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        cells = [f"{point.data} {point.model}", point.method, point.what, f"{point.prune_rate:g}"]
        cells += [f"{'about ' * point.is_read_off}{point.top1:.2f}"]
        cells += [f"{statistics.fmean(values):.2f}{spread}", str(len(values)), each.text]
        table.add_row(*map(Text, cells))
    return table


def not_run(found: Sequence[Verdict]) -> list[str]:
    """Return a line for each preset with published accuracies that `found` lacks: how many, and what to type."""
    seen = [each.point for each in found]
    missing: dict[tuple[str, str], int] = {}
    for point in POINTS:
        if point.preset and point not in seen:
            missing[point.preset, point.data] = missing.get((point.preset, point.data), 0) + 1
    return [
        f"no run of {count} published {'accuracy' if count == 1 else 'accuracies'}; needs data={data}: "
        f"{LAUNCH} sweep={preset}"
        for (preset, data), count in missing.items()
    ]
