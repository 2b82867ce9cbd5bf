"""A sweep's summary on W&B, what `sync` sends of what W&B missed, and the printed commands that send the rest."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wandb_server import RESULT, ROWS, Received, StandIn, make, of_type, records, rows_in

from hidden_subnet import record
from hidden_subnet.check import ConfigError
from hidden_subnet.execute import Display, execute
from hidden_subnet.report.figure import draw
from hidden_subnet.report.runs import read_run
from hidden_subnet.report.table import summarise
from hidden_subnet.settings import Config, TrackerMode, TrackerName
from hidden_subnet.sweep import manifest
from hidden_subnet.sweep.manifest import Sweep
from hidden_subnet.trackers import open_trackers, sent, wandb_tracker
from hidden_subnet.trackers.summary import RUN_COLUMNS, curves, report_sweep, run_table
from hidden_subnet.trackers.sync import sync

pytest_plugins = ["wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]

SHORT = """
import os, sys
from pathlib import Path
from hidden_subnet.report.runs import read_run
from hidden_subnet.sweep import manifest
from hidden_subnet.trackers import background
from hidden_subnet.trackers.summary import report_sweep
from hidden_subnet.trackers.sync import sync
background.START_SECONDS, background.END_SECONDS = (3.0, 4.0) if "HASTY" in os.environ else (60.0, 90.0)
"""
# What was sent, and whether W&B was loaded for it.
SUMMARY = f"""{SHORT}
sweep = manifest.read(Path(sys.argv[1]))
config, runs = sweep.configs[0], [read_run(folder) for folder in sweep.runs]
config.tracker.name = type(config.tracker.name).wandb
print(report_sweep(config, sweep.name, sweep.folder, runs, [], print), "wandb" in sys.modules)
"""
SYNC = f"{SHORT}print(sync([Path(sys.argv[1])], print))"
QUIET = Display(lambda row: None, lambda *step: None, lambda text: None)


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
    return manifest.write(configs, "sweep", {})


@pytest.fixture
def key(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


def report(sweep: Sweep, warn: Callable[[str], None], mode: TrackerMode = TrackerMode.auto) -> bool:
    config, runs = sweep.configs[0], [read_run(folder) for folder in sweep.runs]
    config.tracker.name, config.tracker.mode = TrackerName.wandb, mode
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
    assert table["data"] == run_table(runs)[1]
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
    assert [by_rate[key] for key in by_rate if "edge_popup" in key[0]] == pytest.approx(tops[:2])
    assert [by_rate[key] for key in by_rate if "edge_popup" not in key[0]] == pytest.approx(2 * [tops[2]])
    assert file_of(run, "figure") == (sweep.out / "figures" / f"{sweep.name}.png").read_bytes()

    asked = len(key.operations)
    assert not report(sweep, pytest.fail)
    assert sync([sweep.folder], print) == 0  # the runs, which were tracked nowhere; not the summary
    assert len(key.runs) == 1 + 4
    assert run.starts == 1
    assert asked < len(key.operations)


def test_summary_of_other_content_takes_its_place(sweep: Sweep, key: StandIn) -> None:
    assert report(sweep, pytest.fail)
    result = json.loads((sweep.runs[0] / record.RESULT).read_text())
    result["last"]["test"]["top1"] = 0.25
    record.write_json(sweep.runs[0] / record.RESULT, result)
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
    (sweep.runs[0] / record.RESULT).unlink()
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
        assert run.rows == record.read_rows(record.working(folder))
        assert (run.created["groupName"], run.created["tags"]) == (sweep.name, [sweep.name])
        result = record.read_result(folder)
        assert run.exit_code == int(result is None)
        if result is not None:
            assert wandb_tracker.summary(result).items() <= run.summary.items()
    asked = len(key.operations)
    assert sync([sweep.folder, *sweep.runs], said.append) == 0
    assert said[1:] == ["nothing is missing on W&B: 4 runs complete"]
    assert len(key.operations) == asked


def test_run_of_two_sweeps_has_the_tags_of_both(sweep: Sweep, key: StandIn) -> None:
    narrow = manifest.write(sweep.configs[:1], "narrow", {})
    assert sync([sweep.runs[0]], print) == 0
    (run,) = key.runs.values()
    assert sorted(run.created["tags"]) == sorted([sweep.name, narrow.name])


def test_sync_without_a_key(sweep: Sweep) -> None:
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        sync([sweep.folder], pytest.fail)
    assert not list(sweep.out.glob("*/wandb"))


def test_sync_offline_where_the_run_says_so(sweep: Sweep) -> None:
    folder = sweep.runs[0]
    settings = folder / record.CONFIG
    settings.write_text(settings.read_text().replace("mode: auto", "mode: offline"))
    said: list[str] = []
    for _ in range(2):
        assert sync([folder], said.append) == 0
    assert said == ["sent 1 run", "nothing is missing on W&B: 1 run complete"]
    (found,) = records(folder)
    assert rows_in(found) == record.read_rows(folder)


def test_rows_lost_with_a_killed_client_are_sent(sweep: Sweep, key: StandIn) -> None:
    """A client that died with rows 0 and 1 unsent; a second one that took row 2 only; then `sync`."""
    folder, config = sweep.runs[0], sweep.configs[0]
    config.tracker.name = TrackerName.wandb
    (tracker,) = open_trackers(config, folder, sweep.name, pytest.fail)
    rows, result = record.read_rows(folder), record.read_result(folder)
    assert result is not None
    tracker.log(rows[2])
    tracker.finish(result)
    assert not sent.is_complete(folder)
    (line,) = sent.how_to_send([folder])
    assert line == f"W&B has not all of the run: python -m hidden_subnet sync {folder}"
    assert sync([folder], print) == 0
    (run,) = key.runs.values()
    assert run.rows == rows
    assert sent.is_complete(folder, on_server=True)
    assert sent.how_to_send([folder]) == []


def test_server_that_is_away_is_tried_once(sweep: Sweep, key: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    key.fault = "hang"
    monkeypatch.setenv("HASTY", "")
    fault, told, code = python(SYNC, sweep.folder).splitlines()
    assert sweep.runs[0].name in fault
    assert (told, code) == ("sent 0 runs, 5 left: the same command goes on", "1")


def test_printed_command_sends_what_was_offline(sweep: Sweep, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted and resumed run in two parts, an undisturbed one, and the summary; by the very line printed."""
    for folder, config in zip(sweep.runs[:3], sweep.configs, strict=False):
        config.tracker.name = TrackerName.wandb
        rows, result = record.read_rows(folder), record.read_result(folder)
        assert result is not None
        (tracker,) = open_trackers(config, folder, sweep.name, pytest.fail)
        tracker.log(rows[0])
        tracker.interrupt()
        (tracker,) = open_trackers(config, folder, sweep.name, pytest.fail)
        for row in rows[1:]:
            tracker.log(row)
        tracker.finish(result)
    assert report(sweep, pytest.fail)
    (line,) = sent.how_to_send(sweep.runs[:3], sweep.folder)
    command = line.removeprefix("W&B was offline: ")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    wandb = shlex.join([sys.executable, "-m", "wandb"])
    dry = shell(command.replace("wandb", wandb, 1) + " --dry-run")
    assert "Would sync 7 run(s)" in dry
    shell(command.replace("wandb", wandb, 1))
    assert len(server.runs) == 4
    for folder in sweep.runs[:3]:
        assert server.runs[(folder / "wandb_id").read_text().strip()].rows == record.read_rows(folder)
    assert sent.how_to_send(sweep.runs[:3], sweep.folder) == []
    asked = len(server.operations)
    assert sync(sweep.runs[:3], print) == 0
    assert len(server.operations) == asked


def test_many_runs_are_named_by_a_pattern(tmp_path: Path) -> None:
    out = tmp_path / "my runs"
    folders = [out / f"run-{k}" for k in range(5)]
    for folder in folders:
        folder.mkdir(parents=True)
        (tracker,) = open_trackers(make(mode="offline"), folder, None, pytest.fail)
        for row in ROWS:
            tracker.log(row)
        tracker.finish(RESULT)
        (folder / record.METRICS).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (line,) = sent.how_to_send(folders)
    assert line == f"W&B was offline: wandb sync '{out}'/*/wandb"
    wandb = shlex.join([sys.executable, "-m", "wandb"])
    assert "Would sync 5 run(s)" in shell(
        line.removeprefix("W&B was offline: ").replace("wandb", wandb, 1) + " --dry-run"
    )


def test_sync_of_an_offline_run_keeps_wandb_sync_from_sending_it_twice(
    folder: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch, sweep: Sweep
) -> None:
    folder, config = sweep.runs[0], sweep.configs[0]
    config.tracker.name = TrackerName.wandb
    (tracker,) = open_trackers(config, folder, None, pytest.fail)
    rows, result = record.read_rows(folder), record.read_result(folder)
    assert result is not None
    for row in rows:
        tracker.log(row)
    tracker.finish(result)
    assert sent.is_complete(folder)
    assert not sent.is_complete(folder, on_server=True)
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
