"""`python -m hidden_subnet results`: table, results.csv and figure of a folder of runs, or of one of its sweeps."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.report.metric import METRICS
from hidden_subnet.report.own_plots import draw_own
from hidden_subnet.report.paper_tables import write_tables
from hidden_subnet.report.published import models_known, published_of
from hidden_subnet.report.results import write_results
from hidden_subnet.report.style import STYLES
from hidden_subnet.report.table import summarise, table
from hidden_subnet.report.verdicts import not_run, verdicts, verdicts_table
from hidden_subnet.report.where import matching
from hidden_subnet.store import sweeps
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.find import find_sweep, output_folder
from hidden_subnet.store.read import Run, read_runs, seldom_collected, until_settled
from hidden_subnet.sweep.console import make_console, say


@seldom_collected()
def results(
    out: Path,
    sweep: str | None,
    published: bool = False,
    to: Path | None = None,
    *,
    where: Sequence[str] = (),
    against: str | None = None,
    x: str | None = None,
    style: str = "paper",
    metric: str = "last_test_top1",
) -> None:
    """Print the table, and write results.csv (every run in `out`), figure and tables, to the folder `to` if given.

    Plots of the user's own are drawn where their file has been imported (--use). With `sweep` or `where`
    (report/where.py), table and figure show these runs only. `against` chooses, as `where`
    does, the runs to which differences are in the tables for a paper. With `published`, the figure also shows published
    accuracies, and runs of their recipes are compared with them. Raises ConfigError if there is no run.
    """
    out = output_folder(out)
    if sweep is None:
        name, known = "all", None
    else:
        found = sweeps.read(find_sweep(out, sweep))
        out, name, known = found.out, found.name, {folder.name for folder in found.runs}

    def wanted(runs: list[Run]) -> list[Run]:
        return [run for run in runs if known is None or run.name in known]

    every = read_runs(out)
    runs = wanted(every)
    if not runs:
        of = "" if sweep is None else " of this sweep"
        raise ConfigError(f"there are no runs{of} in {out.absolute()}; name another, as in: {PROGRAM} results runs2")
    if where:
        runs = matching(runs, where)
        known, name = {run.name for run in runs}, f"{name}-{_file_name(where)}"
    base = [run.name for run in matching(runs, [against], "--against")] if against else []
    others = published_of(runs) if published else []
    to = out if to is None else to
    refuse_unwritable([to, to / "figures"], to, "write elsewhere: results <runs> --out <folder>")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"cannot be made ({error.strerror or error})"
        raise ConfigError(problem(f"--out {to}", rule, "--out", "my_results", lead="as in")) from error
    written: list[Path] = []
    undrawn: list[str] = []

    def write(latest: list[Run]) -> None:
        written[:] = [write_results(out, to, latest)]
        from hidden_subnet.report.figure import draw  # loads matplotlib

        shown, path = wanted(latest), to / "figures" / name
        written.extend(draw(shown, path, published=others, style=STYLES[style], x=x, metric=METRICS[metric]))
        written.extend(write_tables(shown, path, base, against or "", METRICS[metric]))
        undrawn.clear()
        written.extend(draw_own(shown, path, undrawn.append))

    until_settled(out, every, write)
    console = make_console()
    console.print(table(summarise(runs)))
    for path in written:
        say(console, f"wrote {path.absolute()}")
    for line in undrawn:
        say(console, line)
    for each in others:
        say(console, f"published: {each.name}: {each.source}; {each.how}")
    if published:
        _print_verdicts(console, runs, bool(others))


def _print_verdicts(console: Console, runs: list[Run], has_curves: bool) -> None:
    if found := verdicts(runs):
        console.print(verdicts_table(found))
    if not has_curves:
        known = f"there are some for {models_known()}, at width 1"
        say(console, f"--published: no accuracies for these data, models and methods; {known}")
    for line in not_run(found):
        say(console, line)


def _file_name(where: Sequence[str]) -> str:
    """Name of the files of these runs, so that those of all runs stay."""
    return re.sub(r"[^\w.-]", "_", "-".join(where))[:80]
