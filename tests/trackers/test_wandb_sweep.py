"""A sweep's summary on W&B, what `sync` sends of what W&B missed, and the printed commands that send the rest."""

import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.wandb_server import (
    Received,
    StandIn,
    of_type,
    open_trackers,
    records,
    report_sweep,
    sync,
)
from PIL import Image

from hidden_subnet.config.settings import Config, TrackerMode
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.figure import draw
from hidden_subnet.report.table import summarise
from hidden_subnet.store import files, sweeps
from hidden_subnet.store.read import read_run
from hidden_subnet.store.sweeps import Sweep
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.trackers import sent, wandb_tracker
from hidden_subnet.trackers.places import run_without_places
from hidden_subnet.trackers.summary import RUN_COLUMNS, curves, run_table

pytest_plugins = ["helpers.wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]

SHORT = """
import os, sys
from pathlib import Path
from hidden_subnet.store import sweeps
from hidden_subnet.store.read import read_run
from hidden_subnet.trackers.background import Patience
from hidden_subnet.trackers.summary import report_sweep
from hidden_subnet.trackers.sync import sync
patience = Patience(3.0, 4.0) if "HASTY" in os.environ else Patience(60.0, 90.0)
"""
# What was sent, and whether W&B was loaded for it.
SUMMARY = f"""{SHORT}
sweep = sweeps.read(Path(sys.argv[1]))
config, runs = sweep.configs[0], [read_run(folder) for folder in sweep.runs]
config.tracker.to = {{"wandb": True}}
print(report_sweep(config, sweep.name, sweep.folder, runs, [], print, patience=patience), "wandb" in sys.modules)
"""
SYNC = f"{SHORT}print(sync([Path(sys.argv[1])], print, patience))"
QUIET = RunObserver(lambda row: None, lambda *step: None, lambda text: None)


@pytest.fixture
def sweep(tmp_path: Path, compose: Callable[..., Config]) -> Sweep:
    """Two rates of edge_popup and a dense run, done without a tracker, and one that failed."""
    small = ["data=synthetic", "model.width=0.125", "train.epochs=2", f"out={tmp_path / 'runs'}", "tracker=none"]
    configs = [
        compose("prune_rate=0.1", *small),
        compose("prune_rate=0.5", *small),
        compose("method=dense", *small),
        compose("method=dense", "train.lr=1e30", *small),
    ]
    states = [execute(config, QUIET).state for config in configs]
    assert states == ["done", "done", "done", "failed"]
    return sweeps.write(sweeps.plan(configs, "sweep"), {})


@pytest.fixture
def key(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


def report(sweep: Sweep, warn: Callable[[str], None], mode: TrackerMode = TrackerMode.auto) -> bool:
    config, runs = sweep.configs[0], [read_run(folder) for folder in sweep.runs]
    config.tracker.to, config.tracker.mode = {"wandb": True}, mode
    figures = draw(runs, sweep.out / "figures" / sweep.name)
    return report_sweep(config, sweep.name, sweep.folder, runs, figures, warn)


def file_of(run: Received, key: str) -> bytes:
    return run.files[json.loads(run.history[-1])[key]["path"]]


def test_summary_arrives_once(sweep: Sweep, key: StandIn) -> None:
    assert report(sweep, pytest.fail)
    ((name, run),) = key.runs.items()
    assert name == json.loads((sweep.folder / "wandb.json").read_text())["id"]
    assert (run.created["groupName"], run.created["jobType"]) == (sweep.name, "summary")
    assert (run.created["displayName"], run.created["tags"]) == (sweep.name, [sweep.name])
    assert run.exit_code == 0

    runs = [read_run(folder) for folder in sweep.runs]
    table = json.loads(file_of(run, "runs"))
    assert table["columns"] == RUN_COLUMNS
    assert table["data"] == run_table([run_without_places(run) for run in runs])[1]
    assert "host" in table["columns"]
    assert socket.gethostname() not in json.dumps(table)
    assert [dict(zip(RUN_COLUMNS, cells, strict=True))["state"] for cells in table["data"]] == [
        "done", "done", "done", "failed",
    ]  # fmt: skip
    aggregate = json.loads(file_of(run, "aggregate"))
    assert [row[aggregate["columns"].index("test_top1")] for row in aggregate["data"]] == [
        line.mean for line in summarise(runs)
    ]
    chart = json.loads(file_of(run, "accuracy_table"))["data"]
    by_rate = {(name, rate): top1 for rate, name, top1 in chart}
    tops = [100 * float(run.test_top1 or 0) for run in runs[:3]]
    assert [by_rate[key] for key in by_rate if "edge-popup" in key[0]] == pytest.approx(tops[:2])
    assert [by_rate[key] for key in by_rate if "edge-popup" not in key[0]] == pytest.approx(2 * [tops[2]])
    drawn = Image.open(sweep.out / "figures" / f"{sweep.name}.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file_of(run, "figure")))), np.asarray(drawn))

    asked = len(key.operations)
    assert not report(sweep, pytest.fail)
    assert sync([sweep.folder], print) == 0  # the runs, which were tracked nowhere; not the summary
    assert len(key.runs) == 1 + 4
    assert run.starts == 1
    assert asked < len(key.operations)


def test_summary_of_other_content_takes_its_place(sweep: Sweep, key: StandIn) -> None:
    assert report(sweep, pytest.fail)
    result = json.loads((sweep.runs[0] / files.RESULT).read_text())
    result["last"]["test"]["top1"] = 0.25
    files.write_json(sweep.runs[0] / files.RESULT, result)
    assert report(sweep, pytest.fail)
    (run,) = key.runs.values()
    assert run.starts == 2
    assert len(run.history) == 1
    assert 0.25 in json.loads(file_of(run, "runs"))["data"][0]


def test_summary_offline_lies_in_the_folder_of_the_sweep(sweep: Sweep) -> None:
    assert report(sweep, pytest.fail)
    assert not report(sweep, pytest.fail)
    (found,) = records(sweep.folder)
    (run,) = of_type(found, "run")
    assert (run["run_group"], run["job_type"], run["display_name"]) == (sweep.name, "summary", sweep.name)
    media = [path.name for path in sweep.folder.glob("wandb/offline-run-*/files/media/*/*")]
    assert sorted(name.partition("_0_")[0] for name in media) == ["accuracy_table", "aggregate", "figure", "runs"]
    assert list((sweep.out.parent / "home").iterdir()) == []


def test_nothing_to_send_loads_no_wandb(sweep: Sweep) -> None:
    assert [python(SUMMARY, sweep.folder) for _ in range(2)] == ["True True\n", "False False\n"]


def test_no_summary_while_runs_go_on_or_without_wandb(sweep: Sweep) -> None:
    runs = [read_run(folder) for folder in sweep.runs]
    assert not report_sweep(sweep.configs[0], sweep.name, sweep.folder, runs, [], pytest.fail)
    (sweep.runs[0] / files.RESULT).unlink()
    assert not report(sweep, pytest.fail)
    assert not (sweep.folder / "wandb").exists()


def test_server_that_hangs_costs_the_summary_and_one_line(
    sweep: Sweep, key: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    key.fault = "hang"
    monkeypatch.setenv("HASTY", "")
    first, second = python(SUMMARY, sweep.folder), python(SUMMARY, sweep.folder)
    *warnings, last = first.splitlines()
    assert len(warnings) == 1
    assert f"python -m hidden_subnet sync {sweep.name}" in warnings[0]
    assert last == "False True"
    assert second == "False False\n"  # not again by itself: a repeat must not wait
    key.fault = ""
    monkeypatch.delenv("HASTY")
    assert python(SYNC, sweep.folder).splitlines() == ["sent 4 runs and 1 summary", "0"]


def test_curves_of_methods_with_and_without_a_rate(sweep: Sweep) -> None:
    lines = summarise([read_run(folder) for folder in sweep.runs])
    found = curves(lines)
    assert sorted(rates for rates, _ in found.values()) == [[0.1, 0.5], [0.1, 0.5]]
    assert curves([]) == {}


def test_sync_sends_what_was_tracked_nowhere_once(sweep: Sweep, key: StandIn) -> None:
    said: list[str] = []
    assert sync([sweep.folder], said.append) == 0
    assert said == ["sent 4 runs and 1 summary"]
    for folder in sweep.runs:
        run = key.runs[(folder / "wandb_id").read_text().strip()]
        assert run.rows == files.read_rows(files.working(folder))
        assert (run.created["groupName"], run.created["tags"]) == (sweep.name, [sweep.name])
        result = files.read_result(folder)
        assert run.exit_code == int(result is None)
        if result is not None:
            assert wandb_tracker.summary(result).items() <= run.summary.items()
    asked = len(key.operations)
    assert sync([sweep.folder, *sweep.runs], said.append) == 0
    assert said[1:] == ["W&B has everything: 4 runs complete"]
    assert len(key.operations) == asked


def test_run_of_two_sweeps_has_the_tags_of_both(sweep: Sweep, key: StandIn) -> None:
    narrow = sweeps.write(sweeps.plan(sweep.configs[:1], "narrow"), {})
    assert sync([sweep.runs[0]], print) == 0
    (run,) = key.runs.values()
    assert sorted(run.created["tags"]) == sorted([sweep.name, narrow.name])


def test_sync_without_a_key(sweep: Sweep) -> None:
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        sync([sweep.folder], pytest.fail)
    assert not list(sweep.out.glob("*/wandb"))


@pytest.mark.parametrize("variable", ["WANDB_MODE=offline", "WANDB_MODE=disabled", "WANDB_DISABLED=true"])
def test_sync_where_a_variable_keeps_wandb_off(sweep: Sweep, key: StandIn, variable: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(
        ConfigError, match=f"^{variable}: sync sends to W&B; unset the variable, type: unset WANDB_[A-Z]+$"
    ):
        sync([sweep.folder], pytest.fail)


def test_sync_sends_runs_that_were_to_stay_offline(sweep: Sweep, key: StandIn) -> None:
    """Where they were executed; whoever types `sync` wants them sent."""
    folder = sweep.runs[0]
    settings = folder / files.CONFIG
    settings.write_text(settings.read_text().replace("mode: auto", "mode: offline"))
    said: list[str] = []
    for _ in range(2):
        assert sync([folder], said.append) == 0
    assert said == ["sent 1 run", "W&B has everything: 1 run complete"]
    (run,) = key.runs.values()
    assert run.rows == files.read_rows(folder)


def test_rows_lost_with_a_killed_client_are_sent(sweep: Sweep, key: StandIn) -> None:
    """A client that died with rows 0 and 1 unsent; a second one that took row 2 only; then `sync`."""
    folder, config = sweep.runs[0], sweep.configs[0]
    config.tracker.to = {"wandb": True}
    sent.write(folder, sent.Sent(sent.run_id(folder)))  # as the first client wrote it when it began
    (tracker,) = open_trackers(config, folder, sweep.name, pytest.fail)
    rows, result = files.read_rows(folder), files.read_result(folder)
    assert result is not None
    tracker.log(rows[2])
    tracker.finish(result)
    assert not sent.is_complete(folder)
    (line,) = sent.how_to_send([folder])
    assert line == f"W&B does not have all of the run: python -m hidden_subnet sync {folder}"
    assert sync([folder], print) == 0
    (run,) = key.runs.values()
    assert run.rows == rows
    assert sent.how_to_send([folder]) == []


def test_server_that_is_away_is_tried_once(sweep: Sweep, key: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    key.fault = "hang"
    monkeypatch.setenv("HASTY", "")
    fault, told, code = python(SYNC, sweep.folder).splitlines()
    assert sweep.runs[0].name in fault
    assert (told, code) == ("sent 0 runs, 5 left: the same command continues", "1")


def test_what_was_offline_is_sent(sweep: Sweep, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted and resumed run in two parts, an undisturbed one, and the summary: by the printed command, and
    one of the runs by `wandb sync`."""
    for folder, config in zip(sweep.runs[:3], sweep.configs, strict=False):
        config.tracker.to = {"wandb": True}
        rows, result = files.read_rows(folder), files.read_result(folder)
        assert result is not None
        (tracker,) = open_trackers(config, folder, sweep.name, pytest.fail)
        tracker.log(rows[0])
        tracker.interrupt()
        (tracker,) = open_trackers(config, folder, sweep.name, pytest.fail)
        for row in rows[1:]:
            tracker.log(row)
        tracker.finish(result)
    assert report(sweep, pytest.fail)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    shell(f"{shlex.quote(sys.executable)} -m wandb sync {shlex.quote(str(sweep.runs[0] / 'wandb'))}")
    (line,) = sent.how_to_send(sweep.runs[:3], sweep.folder)
    assert line == f"W&B was offline: python -m hidden_subnet sync {sweep.folder}"
    assert sent.how_to_send(sweep.runs[1:2]) == [f"W&B was offline: python -m hidden_subnet sync {sweep.runs[1]}"]
    said = shell(line.partition(": ")[2].replace("python", shlex.quote(sys.executable), 1))
    assert "sent 3 runs and 1 summary" in said  # with the one that failed and was tracked nowhere
    assert len(server.runs) == 5
    for folder in sweep.runs[:3]:
        assert server.runs[(folder / "wandb_id").read_text().strip()].rows == files.read_rows(folder)
    assert sent.how_to_send(sweep.runs[:3], sweep.folder) == []
    asked = len(server.operations)
    assert sync(sweep.runs[:3], print) == 0
    assert len(server.operations) == asked


def test_sync_of_an_offline_run_keeps_wandb_sync_from_sending_it_twice(
    folder: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch, sweep: Sweep
) -> None:
    folder, config = sweep.runs[0], sweep.configs[0]
    config.tracker.to = {"wandb": True}
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    rows, result = files.read_rows(folder), files.read_result(folder)
    assert result is not None
    for row in rows:
        tracker.log(row)
    tracker.finish(result)
    assert sent.is_complete(folder)
    assert sent.unsent(folder) != []
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert sync([folder], print) == 0
    assert "No runs to sync" in shell(
        f"{shlex.quote(sys.executable)} -m wandb sync {shlex.quote(str(folder / 'wandb'))}"
    )
    (run,) = server.runs.values()
    assert run.rows == rows
    assert run.starts == 1


def python(script: str, *arguments: Path) -> str:
    """A process of its own: a client that is given up leaves threads behind."""
    return subprocess.check_output([sys.executable, "-c", script, *arguments], text=True, timeout=120)


def shell(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
