"""Sweeps that run, watched, stopped and joined from another shell."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.real_commands import LAUNCH, TIMEOUT, command

from hidden_subnet.store import files, sweeps
from hidden_subnet.store.liveness import LivenessProbe
from hidden_subnet.store.read import read_runs
from hidden_subnet.store.sweeps import live_workers

LONG = ["data=synthetic", "model.width=0.25", "tracker=none", "seed=0,1,2", "hydra.launcher.workers=1"]

pytestmark = pytest.mark.slow


def launch(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), "-m", *LONG, *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def begun(cwd: Path) -> list[Path]:
    """The runs that are an epoch in."""
    folders = [path.parents[2] for path in (cwd / "runs").glob("*/attempts/*/metrics.jsonl")]
    return [folder for folder in folders if len(files.read_rows(files.working(folder))) >= 2]


def test_stop_and_go_on(tmp_path: Path) -> None:
    sweep = launch(tmp_path, "train.epochs=100000")
    wait_until(lambda: begun(tmp_path))
    [folder] = sweeps.find(tmp_path / "runs")
    [worker] = live_workers(folder, LivenessProbe(tmp_path / "runs"))
    assert worker.holder.pid == sweep.pid

    watched = command(tmp_path, "status", folder.name[:6])
    assert "0 done, 1 running, 0 failed, 2 to go" in watched.stdout
    assert f"process {sweep.pid} (1 slot)" in watched.stdout
    refused = command(tmp_path, "rm", "--yes", "--runs", folder.name)
    assert (refused.returncode, "is being executed" in refused.stderr) == (1, True)
    assert "has workers" in command(tmp_path, "rm", "--yes", folder.name).stderr

    stopped = command(tmp_path, "stop", folder.name)
    assert stopped.returncode == 0, stopped.stderr
    assert f"process {sweep.pid}" in stopped.stdout
    assert "has stopped; the command that launched it continues it" in stopped.stdout
    said, _ = sweep.communicate(timeout=TIMEOUT)
    assert sweep.returncode == 130
    assert "requested by `python -m hidden_subnet stop`" in said
    assert sorted(run.state for run in read_runs(tmp_path / "runs")) == ["interrupted"]
    after = command(tmp_path, "status", folder.name).stdout
    assert "stopped (requested by" in after
    assert "workers: none" in after
    assert command(tmp_path, "worker", folder.name).returncode == 130

    assert command(tmp_path, "rm", "--yes", "--runs", folder.name).returncode == 0
    assert list((tmp_path / "runs").glob("synthetic-*")) == []


def test_a_worker_from_another_shell_and_a_watcher(tmp_path: Path) -> None:
    sweep = launch(tmp_path, "train.epochs=40")
    wait_until(lambda: begun(tmp_path))
    [folder] = sweeps.find(tmp_path / "runs")
    watcher = subprocess.Popen(
        [sys.executable, "-m", "hidden_subnet", "status", "--watch", folder.name],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    follower = subprocess.Popen(
        [sys.executable, "-m", "hidden_subnet", "logs", "-f", begun(tmp_path)[0].name],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    more = command(tmp_path, "worker", folder.name, "--workers", "1")
    assert more.returncode == 0, more.stderr
    assert f"worker of {folder.name}: " in more.stdout
    said, _ = sweep.communicate(timeout=TIMEOUT)
    assert sweep.returncode == 0, said
    assert {run.state for run in read_runs(tmp_path / "runs")} == {"done"}
    by = {
        files.read_result(run.folder) and (run.folder / files.PROVENANCE).read_text()
        for run in read_runs(tmp_path / "runs")
    }
    assert len(by) == 3
    seen, _ = watcher.communicate(timeout=TIMEOUT)
    assert watcher.returncode == 0
    assert "running" in seen
    assert seen.splitlines()[-1] == "3 done, 0 running, 0 failed, 0 to go"
    followed, _ = follower.communicate(timeout=TIMEOUT)
    epochs = [line.split()[0] for line in followed.splitlines() if line.startswith("epoch=")]
    assert epochs == [f"epoch={epoch}" for epoch in range(41)]
    again = command(tmp_path, "worker", folder.name)
    assert (again.returncode, "all of 3 runs are done" in again.stdout) == (0, True)


def test_ctrl_c_of_a_watcher_and_of_a_worker_is_quiet(tmp_path: Path) -> None:
    sweep = launch(tmp_path, "train.epochs=100000")
    wait_until(lambda: begun(tmp_path))
    [folder] = sweeps.find(tmp_path / "runs")
    env = {**os.environ, "HIDDEN_SUBNET_LOCKS": str(tmp_path / "locks")}  # or the worker would wait for a core
    for arguments in (["status", "--watch"], ["worker"]):
        other = subprocess.Popen(
            [sys.executable, "-m", "hidden_subnet", *arguments, folder.name],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline()
        if arguments == ["worker"]:
            wait_until(lambda: len(begun(tmp_path)) >= 2)
        os.killpg(other.pid, signal.SIGINT)
        _, error = other.communicate(timeout=TIMEOUT)
        assert other.returncode == 130
        assert "Traceback" not in error
    assert command(tmp_path, "stop", folder.name).returncode == 0
    sweep.communicate(timeout=TIMEOUT)
