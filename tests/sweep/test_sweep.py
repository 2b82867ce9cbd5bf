"""Whole sweeps through the command line, as a user starts, breaks and repeats them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.forked_launch import LAUNCH, TIMEOUT, launch

from hidden_subnet.store import claims, files
from hidden_subnet.store.read import read_runs

SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none"]

pytestmark = pytest.mark.slow


def results(cwd: Path) -> list[dict[str, str]]:
    with (cwd / "runs" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if key not in ("seconds", "host", "peak_memory")}


def test_sweep_again_and_wider(tmp_path: Path) -> None:
    first = launch(tmp_path, "-m", "prune_rate=0.1,0.5", *SMALL)
    assert first.returncode == 0, first.stderr
    assert "2 runs" in first.stdout
    figures = re.findall(r"wrote (\S+\.(?:png|svg))", first.stdout)
    assert len(figures) == 2
    assert all(Path(path).stat().st_size > 1000 for path in figures)
    assert [row["state"] for row in results(tmp_path)] == ["done", "done"]
    stamps = {run.folder: (run.folder / files.RESULT).stat().st_mtime_ns for run in read_runs(tmp_path / "runs")}

    again = launch(tmp_path, "-m", "prune_rate=0.1,0.5", *SMALL)
    assert again.returncode == 0
    assert "2 of them finished before" in again.stdout

    wider = launch(tmp_path, "-m", "prune_rate=0.1,0.5,0.9", *SMALL)
    assert wider.returncode == 0
    assert "3 runs, 2 of them finished before" in wider.stdout
    assert len(results(tmp_path)) == 3
    assert all((folder / files.RESULT).stat().st_mtime_ns == stamp for folder, stamp in stamps.items())


def test_a_failing_run_does_not_stop_the_others(tmp_path: Path) -> None:
    said = launch(tmp_path, "-m", "method=dense", "train.lr=0.01,1e30,0.02", "seed=0,1", *SMALL)
    assert said.returncode == 1
    assert sorted(row["state"] for row in results(tmp_path)) == ["done"] * 4 + ["failed"] * 2
    assert "FloatingPointError" in said.stdout
    for run in read_runs(tmp_path / "runs"):
        if run.state == "failed":
            error = files.working(run.folder) / files.ERROR
            assert "diverged" in error.read_text()
            assert str(error) in said.stdout


def test_dense_is_run_once_a_seed(tmp_path: Path) -> None:
    said = launch(tmp_path, "-m", "method=dense,random", "prune_rate=0.1,0.5", *SMALL)
    assert said.returncode == 0, said.stderr
    assert "prune_rate does not matter to method=dense: 2 combinations are 1 run\n" in said.stdout
    assert len(results(tmp_path)) == 3


def test_preset_takes_overrides_from_any_directory(tmp_path: Path) -> None:
    said = launch(tmp_path, "sweep=prune_rates", "prune_rate=0.5,0.9", "seed=4", *SMALL)
    assert said.returncode == 0, said.stderr
    rows = results(tmp_path)
    assert sorted((row["method"], row["prune_rate"]) for row in rows) == [
        ("dense", ""), ("edge_popup", "0.5"), ("edge_popup", "0.9"), ("random", "0.5"), ("random", "0.9"),
    ]  # fmt: skip
    assert {row["seed"] for row in rows} == {"4"}


def start(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_rows(cwd: Path, runs: int) -> None:
    """Wait until this many runs have completed an epoch."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        folders = [path.parent for path in (cwd / "runs").glob("*/config.yaml")]
        if sum(files.count_rows(files.working(folder)) >= 2 for folder in folders) >= runs:
            return
        time.sleep(0.05)
    pytest.fail("no run got under way")


LONG = ["data=synthetic", "model.width=0.5", "train.epochs=25", "tracker=none", "prune_rate=0.3,0.7", "seed=0,1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_goes_on_to_the_same_bits(number: signal.Signals, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert launch(whole, "-m", *LONG).returncode == 0
    sweep = start(broken, "-m", *LONG)
    wait_for_rows(broken, 2)
    os.killpg(sweep.pid, number)  # as a terminal or a scheduler does: to every process of it
    said, _ = sweep.communicate(timeout=TIMEOUT)
    assert sweep.returncode == 130, said
    assert "the same command resumes the runs" in said
    interrupted = [run for run in read_runs(broken / "runs") if run.state == "interrupted"]
    assert interrupted
    assert launch(broken, "-m", *LONG).returncode == 0
    assert any("resumes after epoch" in (run.folder / files.LOG).read_text() for run in interrupted)
    assert [without_times(row) for row in results(broken)] == [without_times(row) for row in results(whole)]


def test_killed_run_is_reported_and_the_others_finish(tmp_path: Path) -> None:
    sweep = start(tmp_path, "-m", *LONG, "hydra.launcher.workers=2")
    wait_for_rows(tmp_path, 2)
    victim = next(run for run in read_runs(tmp_path / "runs") if run.state == "running")
    pid = claims.holder_pid(files.working(victim.folder))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    said, _ = sweep.communicate(timeout=TIMEOUT)
    assert sweep.returncode == 1
    assert f"lost: {victim.name}: the process of the run died of SIGKILL (out of memory?)" in said
    states = {row["name"]: row["state"] for row in results(tmp_path)}
    assert states.pop(victim.name) == "lost"
    assert list(states.values()) == ["done"] * 3
    assert launch(tmp_path, "-m", *LONG).returncode == 0
    assert {row["state"] for row in results(tmp_path)} == {"done"}
    attempts = json.loads((victim.folder / files.PROVENANCE).read_text())["attempts"]
    assert [(entry["number"], entry["state"]) for entry in attempts] == [(1, "lost"), (2, "done")]


@pytest.mark.parametrize("seconds", [2, 4, 6])
def test_ctrl_c_while_the_sweep_is_starting(seconds: float, tmp_path: Path) -> None:
    sweep = start(tmp_path, "-m", *LONG)
    time.sleep(seconds)
    os.killpg(sweep.pid, signal.SIGINT)
    said, _ = sweep.communicate(timeout=TIMEOUT)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said


def test_runs_save_and_stop_when_the_launcher_is_killed(tmp_path: Path) -> None:
    sweep = start(tmp_path, "-m", *LONG, "train.epochs=2000")
    wait_for_rows(tmp_path, 2)
    sweep.kill()
    sweep.wait()
    end = time.monotonic() + TIMEOUT
    while {run.state for run in read_runs(tmp_path / "runs")} != {"interrupted"}:
        assert time.monotonic() < end
        time.sleep(0.1)
    for run in read_runs(tmp_path / "runs"):
        assert (files.working(run.folder) / "checkpoints" / files.RESUME).exists()


def test_forced_run_that_cannot_start_is_not_reported_as_done(tmp_path: Path) -> None:
    assert launch(tmp_path, "-m", "prune_rate=0.5", *SMALL).returncode == 0
    [run] = read_runs(tmp_path / "runs")
    settings = run.folder / files.CONFIG
    settings.write_text(settings.read_text().replace("prune_rate: 0.5", "prune_rate: 0.6"))
    said = launch(tmp_path, "-m", "prune_rate=0.5", "force=true", *SMALL)
    assert said.returncode == 1
    assert "does not describe the run" in said.stdout
    assert "Traceback" not in said.stderr


def test_many_runs_need_few_file_descriptors(tmp_path: Path) -> None:
    sweep = ["-m", "method=random", "prune_rate=range(0.01,0.61,0.01)", *SMALL]
    said = subprocess.run(
        ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", sys.executable, LAUNCH, *sweep],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(results(tmp_path)) == 60


def test_a_failing_job_does_not_stop_hydras_own_launcher(tmp_path: Path) -> None:
    said = launch(tmp_path, "-m", "hydra/launcher=basic", "method=dense", "train.lr=1e30,0.1", *SMALL)
    assert said.returncode == 1
    assert sorted(row["state"] for row in results(tmp_path)) == ["done", "failed"]


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_stock_launchers_work(launcher: str, tmp_path: Path) -> None:
    said = launch(tmp_path, "-m", f"hydra/launcher={launcher}", "prune_rate=0.1,0.5", *SMALL)
    assert said.returncode == 0, said.stderr
    assert {row["state"] for row in results(tmp_path)} == {"done"}
    assert sorted(row["prune_rate"] for row in results(tmp_path)) == ["0.1", "0.5"]


def test_single_run_and_again(tmp_path: Path) -> None:
    said = launch(tmp_path, *SMALL)
    assert said.returncode == 0, said.stderr
    assert "epoch 2/2" in said.stdout
    again = launch(tmp_path, *SMALL)
    assert again.returncode == 0
    assert "finished before" in again.stdout
    failed = launch(tmp_path, *SMALL, "method=dense", "train.lr=1e30")
    assert failed.returncode == 1
    assert "diverged" in failed.stdout
    assert "Traceback" not in failed.stderr
