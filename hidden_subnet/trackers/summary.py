"""The summary of a sweep on W&B: a run with the table of all runs, the aggregated table, a chart and the figure."""

import hashlib
import io
import json
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.settings import Artifacts, Config
from hidden_subnet.report.names import joined, value_name
from hidden_subnet.report.results import OUTCOME, own_metrics, row
from hidden_subnet.report.table import Line, summarise
from hidden_subnet.store import folders
from hidden_subnet.store.files import write_json
from hidden_subnet.store.read import Run
from hidden_subnet.store.redact import without_folders
from hidden_subnet.trackers import artifacts, sent
from hidden_subnet.trackers.artifacts import Kept
from hidden_subnet.trackers.background import PATIENCE, Background, Patience
from hidden_subnet.trackers.places import run_without_places, without_paths
from hidden_subnet.trackers.wandb_environment import init_arguments, is_tracked
from hidden_subnet.trackers.wandb_tracker import Session, prepare

STATE = "wandb.json"
"""File in the sweep's folder: id of the summary run, digest of its content, and whether it was sent."""
ENDED = ("done", "stopped", "failed", "lost")
SETTINGS = ["data", "model", "width", "init", "scale", "method", "pruning", "prune_rate", "seed"]
RUN_COLUMNS = ["name", "state", *SETTINGS, *OUTCOME, "error"]
IMAGE_BYTES = 1_000_000
"""A larger figure is not sent. Bytes."""

Table = tuple[list[str], list[list[Any]]]
"""(names of the columns, rows)."""


def report_sweep(
    config: Config,
    sweep: str,
    folder: Path,
    runs: Sequence[Run],
    figures: Sequence[Path],
    warn: Callable[[str], None],
    *,
    again: bool = False,
    patience: Patience = PATIENCE,
) -> bool:
    """Send the sweep's summary run, unless the same content was sent or tried before. Errors of W&B are not raised.

    config: settings of any of its runs; they say where to send. Nothing is sent if W&B is not among its trackers.
    runs: all runs of the sweep; nothing is sent unless all have ended.
    warn: called at most once, with the error message.
    again: send it whatever was sent before.

    Takes at most about 20 s; wandb is not imported if there is nothing to send. Returns True if it was sent now, or
    written if offline.
    """
    if not is_tracked(config):
        return False
    if not runs or any(run.state not in ENDED for run in runs):
        return False
    lines, paths = summarise(runs), config.tracker.paths
    tables = {"runs": run_table(runs if paths else [run_without_places(run) for run in runs])}
    columns, cells = aggregate(lines)
    tables["aggregate"] = columns, cells if paths else without_paths(cells)
    state, arguments = read_state(folder), _arguments(config, sweep, runs)
    if again and "group" in state:
        arguments["group"] = state["group"]
    digest = _digest(arguments, tables, config.tracker.artifacts)
    if state.get("digest") == digest and not again:
        return False
    state = {"id": state.get("id") or secrets.token_hex(8), "digest": digest, "sent": False}
    state |= {"group": arguments["group"]}
    write_json(folder / STATE, state)
    prepare(folder)

    def report(fault: str) -> None:
        warn(f"the summary of the sweep was not sent to W&B ({fault}); try again: {PROGRAM} sync {sweep}")

    # Without `resume` it replaces an earlier summary.
    opened = partial(Session, config.tracker.mode, folder, arguments, paths=paths, id=str(state["id"]))
    drawn = [path for path in figures if path.suffix == ".png"]
    keep = partial(artifacts.of_sweep, config, sweep, folder, runs, drawn)
    chart = {name if paths else without_folders(name): points for name, points in curves(lines).items()}
    send = partial(_send, tables=tables, chart=chart, figures=drawn, keep=keep)
    succeeded = Background("W&B", opened, report, patience).end(send, artifacts.seconds(config, folder))
    if succeeded:
        write_json(folder / STATE, state | {"sent": True})
    return succeeded


def read_state(folder: Path) -> dict[str, Any]:
    """Return the content of the sweep's wandb.json; empty if there is none or it is damaged."""
    try:
        found = folders.read_json(folder / STATE)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def run_table(runs: Sequence[Run]) -> Table:
    """Return the main columns of results.csv, one row per run, and those of the user's own metrics."""
    own = dict.fromkeys(column for run in runs for column in own_metrics(run))
    columns = [*RUN_COLUMNS[:-1], *own, RUN_COLUMNS[-1]]
    return columns, [[values.get(column) for column in columns] for values in map(row, runs)]


def aggregate(lines: Sequence[Line]) -> Table:
    """Return one row per combination of settings, over its seeds. Accuracies are fractions in [0, 1]."""
    names = list(lines[0].settings)
    metrics = sorted({name for line in lines for name in line.metrics})
    columns = [*names, "prune_rate", "density", "untrained_top1", "test_top1", "test_top1_std"]
    columns += [*(f"test_{name}" for name in metrics), "n", "seconds", "state"]
    cells = []
    for line in lines:
        over_seeds = [line.prune_rate, line.density, line.untrained, line.mean, line.std]
        over_seeds += [*map(line.metrics.get, metrics), line.n, line.seconds]
        cells.append([*line.settings.values(), *over_seeds, line.state])
    return columns, cells


def curves(lines: Sequence[Line]) -> dict[str, tuple[list[float], list[float]]]:
    """Return label -> (prune rates, mean test accuracies in %), one curve per method and per setting that varies.

    A method without a prune rate is a horizontal line.
    """
    done = [line for line in lines if line.mean is not None]
    rates = sorted({line.rate for line in done if line.rate is not None})
    found: dict[str, tuple[list[float], list[float]]] = {}
    for _, group in groupby(done, key=lambda line: line.settings):
        members = list(group)
        name = joined(members[0].settings) or value_name("method", members[0].method)
        rated = [(line.rate, 100 * (line.mean or 0)) for line in members if line.rate is not None]
        if rated:
            found[name] = [rate for rate, _ in rated], [top1 for _, top1 in rated]
        elif rates:
            found[name] = [rates[0], rates[-1]], 2 * [100 * (members[0].mean or 0)]
    return found


def _arguments(config: Config, sweep: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Arguments of wandb.init; the summary lies where the first of its runs that was sent does."""
    before = next((found for run in runs if (found := sent.read(run.folder)) is not None), sent.Sent(""))
    place = {key: value for key, value in before.arguments.items() if key in ("project", "entity")}
    return {**init_arguments(config, sweep), "name": sweep, "job_type": "summary", "sweep_id": None, **place}


def _digest(arguments: dict[str, Any], tables: dict[str, Table], kept: Artifacts) -> str:
    where = [arguments["project"], arguments["entity"]]
    if kept is not Artifacts.none:
        where.append(kept.name)
    return hashlib.sha256(json.dumps([where, tables]).encode()).hexdigest()


def _send(
    session: Session,
    tables: dict[str, Table],
    chart: dict[str, tuple[list[float], list[float]]],
    figures: Sequence[Path],
    keep: Callable[[], Kept | None],
) -> None:
    from PIL import Image

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
        drawn = folders.read_bytes(path, root=path.parents[1])
        if len(drawn) <= IMAGE_BYTES:
            content["figure"] = wandb.Image(Image.open(io.BytesIO(drawn), formats=["PNG"]))

    def last(run: Any) -> None:
        run.log(content)
        if (kept := keep()) is not None:
            session.keep(kept, artifacts.SECONDS)

    session.close(0, last)
