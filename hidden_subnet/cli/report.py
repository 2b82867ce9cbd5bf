"""`python -m hidden_subnet report`: a page of a sweep, or of all runs of a folder, as one HTML file."""

import shlex
import time
from pathlib import Path

from hidden_subnet.config.presets import START, own_presets
from hidden_subnet.config.program import PROGRAM, ROOT
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import folders
from hidden_subnet.store.access import refuse_unwritable
from hidden_subnet.store.find import find_sweep, output_folder
from hidden_subnet.store.read import read_runs
from hidden_subnet.sweep.console import count, make_console, say
from hidden_subnet.sweep.status import status_reader, sweep_status

WATCH_SECONDS = 10
"""Between two pages, and between two reloads in the browser, of --watch."""


def report(out: Path, name: str | None, to: Path | None, *, paths: bool = False, watch: bool = False) -> None:
    """Write the page to the file `to`, by default figures/<sweep>.html beside the runs.

    paths: tell folders and hosts too. watch: write it again until no run of the sweep is running. Raises ConfigError
    if there is no run.
    """
    folder = None if name is None else find_sweep(out, name)
    out = output_folder(out) if folder is None else folder.parents[1]
    path = to or out / "figures" / f"{'all' if folder is None else folder.name}.html"
    refuse_unwritable([path.absolute().parent], out, "name another file with --to")
    from hidden_subnet.report.figure import draw_as  # loads matplotlib
    from hidden_subnet.report.page import page
    from hidden_subnet.report.style import STYLES

    console = make_console()
    while True:
        seen = None if folder is None else sweep_status(folder, status_reader(out, glance=True))
        known = None if seen is None else {job.folder.name for job in seen.jobs}
        runs = [run for run in read_runs(out) if known is None or run.name in known]
        if not runs and seen is None:
            raise ConfigError(
                f"there are no runs in {out.absolute()}; name another, as in: {PROGRAM} report --out runs2"
            )
        is_active = any(run.state == "running" for run in runs) if seen is None else seen.is_active
        figure = draw_as(runs, ["svg"], style=STYLES["screen"]).get("svg", b"").decode()
        command = str(seen.sweep.provenance.get("command") or "") if seen else ""
        text = page(
            "all runs" if folder is None else folder.name,
            runs,
            figure,
            question=question_of(command),
            command=command,
            queued=len(known - {run.name for run in runs}) if known else 0,
            paths=paths,
            refresh=WATCH_SECONDS if watch and is_active else None,
        )
        root = folders.make_parent(path, out if to is None else None)
        folders.write_atomically(path, text.encode(), root=root)
        say(console, f"wrote {path.absolute()} ({count(len(runs), 'run')})")
        if not (watch and is_active):
            return
        time.sleep(WATCH_SECONDS)


def question_of(command: str) -> str:
    """Return the first line of the preset that a command chose, which is its question; "" where there is none."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    for word in words:
        if word.startswith(START):
            name = word.removeprefix(START)
            file = own_presets().get(name, ROOT / "sweeps" / f"{Path(name).stem}.yaml")
            line = folders.read_text(file).partition("\n")[0] if file.is_file() else ""
            return line.lstrip("# ") if line.startswith("#") else ""
    return ""
