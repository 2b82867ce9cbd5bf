"""A sweep's end on W&B: one run with the table of all runs, the aggregated table, the chart and the figure."""

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from hidden_subnet.record import write_json
from hidden_subnet.report.results import OUTCOME, SETTINGS, row
from hidden_subnet.report.runs import Run
from hidden_subnet.report.table import Line, summarise
from hidden_subnet.settings import Config, TrackerName
from hidden_subnet.trackers.background import Background
from hidden_subnet.trackers.wandb_tracker import Session, abandon, is_disabled, prepare, tags

STATE = "wandb.json"
"""In the sweep's folder: the run's id, a digest of its content, and whether W&B has it."""
ENDED = ("done", "failed", "lost")
RUN_COLUMNS = ["name", "state", *SETTINGS, "seed", "density", *OUTCOME, "error"]
IMAGE_BYTES = 1_000_000
"""A larger figure is not sent."""

Table = tuple[list[str], list[list[Any]]]
"""Names of the columns, and rows."""


def is_tracked(config: Config) -> bool:
    """Whether the run goes to W&B, there or on disk."""
    return config.tracker.name in (TrackerName.wandb, TrackerName.both) and not is_disabled(config.tracker.mode)


def report_sweep(
    config: Config,
    sweep: str,
    folder: Path,
    runs: Sequence[Run],
    figures: Sequence[Path],
    warn: Callable[[str], None],
    *,
    again: bool = False,
) -> bool:
    """Send the sweep's summary run unless it was tried with this very content before; never raises for W&B's faults.

    Takes at most some 20 s, and no W&B is loaded where there is nothing to send. `config` is that of any of its runs:
    where to send; with `tracker` none or tensorboard, or a run that has not ended, nothing is sent. `warn` is called
    at most once. `again` sends it whatever was before. True if it was sent now (offline: written).
    """
    if not is_tracked(config):
        return False
    if not runs or any(run.state not in ENDED for run in runs):
        return False
    lines = summarise(runs)
    tables = {"runs": run_table(runs), "aggregate": aggregate(lines)}
    state, digest = read_state(folder), _digest(config, tables)
    if state.get("digest") == digest and not again:
        return False
    state = {"id": state.get("id") or secrets.token_hex(8), "digest": digest, "sent": False}
    write_json(folder / STATE, state)
    prepare(folder)

    def say(fault: str) -> None:
        warn(f"W&B has no summary of the sweep ({fault}); python -m hidden_subnet sync {sweep} tries again")

    opened = partial(_open, config, sweep, folder, str(state["id"]))
    send = partial(_send, tables=tables, chart=curves(lines), figures=figures)
    fine = Background("W&B", opened, say, abandon).end(send)
    if fine:
        write_json(folder / STATE, state | {"sent": True})
    return fine


def read_state(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / STATE).read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def run_table(runs: Sequence[Run]) -> Table:
    """Main columns of results.csv, a row a run."""
    return RUN_COLUMNS, [[row(run)[column] for column in RUN_COLUMNS] for run in runs]


def aggregate(lines: Sequence[Line]) -> Table:
    """A row for each combination of settings, over its seeds; accuracies are fractions 0 to 1."""
    names = list(lines[0].settings)
    columns = [*names, "prune_rate", "density", "untrained_top1", "test_top1", "test_top1_std", "n", "seconds", "state"]
    cells = []
    for line in lines:
        over_seeds = [line.prune_rate, line.density, line.untrained, line.mean, line.std, line.n, line.seconds]
        cells.append([*line.settings.values(), *over_seeds, line.state])
    return columns, cells


def curves(lines: Sequence[Line]) -> dict[str, tuple[list[float], list[float]]]:
    """Mean test accuracy (%) by prune rate, a curve a method (and what else varies); one without a rate is level."""
    from hidden_subnet.report.figure import label  # loads matplotlib, which a repeated sweep need not wait for

    done = [line for line in lines if line.mean is not None]
    rates = sorted({line.rate for line in done if line.rate is not None})
    found: dict[str, tuple[list[float], list[float]]] = {}
    for _, group in groupby(done, key=lambda line: line.settings):
        members = list(group)
        rated = [(line.rate, 100 * (line.mean or 0)) for line in members if line.rate is not None]
        if rated:
            found[label(members[0])] = [rate for rate, _ in rated], [top1 for _, top1 in rated]
        elif rates:
            found[label(members[0])] = [rates[0], rates[-1]], 2 * [100 * (members[0].mean or 0)]
    return found


def _digest(config: Config, tables: dict[str, Table]) -> str:
    where = [config.tracker.project, config.tracker.entity]
    return hashlib.sha256(json.dumps([where, tables]).encode()).hexdigest()


def _open(config: Config, sweep: str, folder: Path, identity: str) -> Session:
    return Session(
        config,
        folder,
        id=identity,
        resume=None,  # sent anew, it takes the place of what was there
        name=sweep,
        group=sweep,
        job_type="summary",
        tags=tags(config, [sweep]),
    )


def _send(
    session: Session,
    tables: dict[str, Table],
    chart: dict[str, tuple[list[float], list[float]]],
    figures: Sequence[Path],
) -> None:
    wandb = session.wandb
    content: dict[str, Any] = {
        name: wandb.Table(columns=columns, data=data, allow_mixed_types=True)
        for name, (columns, data) in tables.items()
    }
    if chart:
        content["accuracy"] = wandb.plot.line_series(
            [x for x, _ in chart.values()],
            [y for _, y in chart.values()],
            keys=list(chart),
            title="test accuracy (%) against prune rate",
            xname="prune rate",
        )
    for path in figures:
        if path.suffix == ".png" and path.stat().st_size <= IMAGE_BYTES:
            content["figure"] = wandb.Image(str(path))
    session.run.log(content)
    session.close(0)
