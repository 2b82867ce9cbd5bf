"""The table, results.csv and the figure of a folder of runs or of one of its sweeps, made anew from the runs."""

from pathlib import Path

from hidden_subnet.check import ConfigError
from hidden_subnet.commands.names import find_sweep, output_folder
from hidden_subnet.report.console import make_console, say
from hidden_subnet.report.figure import draw
from hidden_subnet.report.published import models_known, published_of
from hidden_subnet.report.results import write_results
from hidden_subnet.report.runs import read_runs
from hidden_subnet.report.table import summarise, table
from hidden_subnet.sweep import manifest


def results(out: Path, sweep: str | None, published: bool = False) -> None:
    """Table and figure are of the sweep, if one is named; results.csv has every run of the folder."""
    name = "all"
    runs = read_runs(output_folder(out))
    if sweep is not None:
        found = manifest.read(find_sweep(out, sweep))
        out, name = found.out, found.name
        known = {folder.name for folder in found.runs}
        runs = [run for run in read_runs(out) if run.name in known]
    if not runs:
        raise ConfigError(
            f"{out.absolute()} holds no runs{' of this sweep' * (sweep is not None)}; name the folder that does"
        )
    console = make_console()
    console.print(table(summarise(runs)))
    others = published_of(runs) if published else []
    for path in [write_results(out), *draw(runs, out / "figures" / name, published=others)]:
        say(console, f"wrote {path.absolute()}")
    for each in others:
        say(console, f"published: {each.name}: {each.source}; {each.how}")
    if published and not others:
        say(
            console,
            f"--published: nothing is known of these data and models; something is of {models_known()}, at width 1",
        )
