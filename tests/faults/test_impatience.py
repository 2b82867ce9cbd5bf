"""Impatient users of a sweep: they close its pipe, press Ctrl-C twice or at once, kill what it runs in."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.real_commands import (
    LAUNCH,
    LONG,
    SMALL,
    ended,
    figure,
    folders,
    holder_pid,
    rows,
    start,
    status_of,
    surroundings,
    wait_until,
)

pytestmark = pytest.mark.slow
ENDLESS = ["-m", "seed=0,1", "hydra.launcher.workers=2", *LONG, "train.epochs=100000", "checkpoint.minutes=60"]


def endless(cwd: Path) -> "subprocess.Popen[str]":
    sweep = start(cwd, str(LAUNCH), *ENDLESS)
    wait_until(lambda: sum(rows(folder) >= 3 for folder in folders(cwd)) == 2, "two runs")
    return sweep


def children(pid: int, word: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
            if parent == str(pid) and word in (path.parent / "cmdline").read_text():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_nobody_reads_what_a_sweep_says(tmp_path: Path) -> None:
    command = f"{sys.executable} {LAUNCH} -m seed=0,1 {' '.join(SMALL)} | head -1"
    said = subprocess.run(command, shell=True, cwd=tmp_path, env=surroundings(), capture_output=True, text=True)
    assert said.stdout.startswith("sweep seed-")
    assert "Traceback" not in said.stderr
    wait_until(lambda: (tmp_path / "runs" / "results.csv").exists(), "the end of the sweep")
    assert {status_of(folder).state for folder in folders(tmp_path)} == {"done"}
    figure("F27 its output is closed (| head -1): the sweep goes on to its end 1/1")


def test_second_ctrl_c_kills_and_says_so(tmp_path: Path) -> None:
    sweep = endless(tmp_path)
    for folder in folders(tmp_path):
        os.kill(holder_pid(folder), signal.SIGSTOP)  # so that they cannot save in between
    sweep.send_signal(signal.SIGINT)
    assert sweep.stdout is not None
    wait_until(lambda: "Ctrl-C again kills them" in sweep.stdout.readline(), "the answer to the first")
    sweep.send_signal(signal.SIGINT)
    said = ended(sweep)
    assert sweep.returncode == 130, said
    assert "lost" not in said
    assert {status_of(folder).state for folder in folders(tmp_path)} == {"interrupted"}
    figure("F27 a second Ctrl-C: ends at once, runs are interrupted and not lost, exit code 130, 1/1")


def test_ctrl_c_while_torch_is_loading_ends_at_once(tmp_path: Path) -> None:
    sweep = start(tmp_path, "-u", str(LAUNCH), *ENDLESS)
    wait_until(lambda: children(sweep.pid, "forkserver"), "the fork server")
    os.killpg(sweep.pid, signal.SIGINT)
    said = ended(sweep)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert "the same command" in said
    figure("F27 Ctrl-C while torch loads: no traceback, exit code 130, 1/1")


def test_runs_survive_the_fork_server(tmp_path: Path) -> None:
    sweep = endless(tmp_path)
    [server] = children(sweep.pid, "forkserver")
    os.kill(server, signal.SIGKILL)
    before = [rows(folder) for folder in folders(tmp_path)]
    wait_until(lambda: all(rows(f) > b for f, b in zip(folders(tmp_path), before, strict=True)), "further epochs")
    sweep.send_signal(signal.SIGINT)
    said = ended(sweep)
    assert sweep.returncode == 130, said
    assert {status_of(folder).state for folder in folders(tmp_path)} == {"interrupted"}
    figure("F27 the fork server SIGKILLed: its runs go on, save and stop when asked to, 1/1")


def test_nohup(tmp_path: Path) -> None:
    endless = [*LONG, "train.epochs=100000", "checkpoint.minutes=60"]
    become = "import os, sys; os.execvp('nohup', ['nohup', sys.executable, *sys.argv[1:]])"
    run = start(tmp_path, "-c", become, str(LAUNCH), *endless)
    wait_until(lambda: folders(tmp_path) and rows(folders(tmp_path)[0]) >= 3, "three epochs")
    run.send_signal(signal.SIGHUP)
    before = rows(folders(tmp_path)[0])
    wait_until(lambda: rows(folders(tmp_path)[0]) > before + 2, "further epochs")
    run.send_signal(signal.SIGTERM)
    assert "the same command" in ended(run)  # its output is a pipe, so nohup.out is not made
    assert run.returncode == 130
    figure("F27 nohup and HUP: goes on 1/1")
