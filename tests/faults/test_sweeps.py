"""Sweeps again, wider, broken at random, started twice, and ending all at once."""

import os
import random
import signal
import subprocess
import sys
import time
from csv import DictReader
from pathlib import Path

import pytest
from helpers.real_commands import (
    FULL,
    LAUNCH,
    SMALL,
    TIMEOUT,
    assert_settled,
    attempts,
    difference,
    ended,
    figure,
    folders,
    holder_pid,
    launch,
    start,
    surroundings,
)

from hidden_subnet.report.results import FIRST, OUTCOME
from hidden_subnet.store import files

pytestmark = pytest.mark.slow


def stamps(cwd: Path) -> dict[str, tuple[int, int]]:
    """By run, which result.json it has: no other file has this inode and time."""
    found = {}
    for path in (cwd / "runs").glob(f"*/{files.RESULT}"):
        stat = path.stat()
        found[path.parent.name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def test_f09_f10_again_and_wider(tmp_path: Path) -> None:
    sweep = ["method=random", *SMALL]
    first = launch(tmp_path, "-m", "prune_rate=range(0.03,0.83,0.03)", *sweep)
    assert first.returncode == 0, first.stdout + first.stderr
    before, table = stamps(tmp_path), (tmp_path / "runs" / "results.csv").read_bytes()
    assert len(before) == 27
    began = time.monotonic()
    again = launch(tmp_path, "-m", "prune_rate=range(0.03,0.83,0.03)", *sweep)
    seconds = time.monotonic() - began
    assert again.returncode == 0
    assert stamps(tmp_path) == before
    same = (tmp_path / "runs" / "results.csv").read_bytes() == table
    figure(f"F9: 27 runs again: 0 run, results.csv byte-identical {int(same)}/1, {seconds:.1f} s")
    assert same

    wider = launch(tmp_path, "-m", "prune_rate=range(0.03,0.86,0.03)", *sweep)
    assert wider.returncode == 0
    after = stamps(tmp_path)
    new = len(after.keys() - before.keys())
    assert all(after[name] == stamp for name, stamp in before.items())
    operational = ["train.threads=2", "checkpoint.minutes=1", "claim.silent_seconds=60", "tracker=tensorboard"]
    assert launch(
        tmp_path, "-m", "prune_rate=range(0.03,0.86,0.03)", "method=random", *SMALL[:3], *operational
    ).returncode == 0  # fmt: skip
    changed = sum(stamps(tmp_path)[name] != stamp for name, stamp in after.items())
    extra = len(stamps(tmp_path)) - len(after)
    figure(f"F10: extended by one value: {new} run; {len(operational)} operational keys changed: {changed + extra} run")
    assert (new, changed, extra) == (1, 0, 0)


RUNS = ["data=synthetic", "model.width=0.25", "train.epochs=30", "train.threads=1", "tracker=none"]
RUNS += ["prune_rate=0.3,0.7", "seed=0,1", "checkpoint.minutes=0.0005", "claim.silent_seconds=20"]


def test_f11_killed_at_random_and_rerun(tmp_path: Path) -> None:
    trials, kills = 20 if FULL else 2, 0
    rng = random.Random(11)
    assert launch(tmp_path / "whole", "-m", *RUNS).returncode == 0
    once = same = 0
    for trial in range(trials):
        cwd, seen = tmp_path / str(trial), dict[str, set[tuple[int, int]]]()
        for launches in range(9):
            sweep = start(cwd, str(LAUNCH), "-m", *RUNS, "hydra.launcher.workers=2")
            # The first import torch, and the runs last some seconds: all of it is hit. The last ones are left alone.
            at = time.monotonic() + (rng.uniform(2, 9) if launches < 3 else TIMEOUT)
            while sweep.poll() is None:
                for name, stamp in stamps(cwd).items():
                    seen.setdefault(name, set()).add(stamp)
                if time.monotonic() > at:
                    runs = [pid for folder in folders(cwd) if (pid := holder_pid(folder)) and _lives(pid)]
                    victim = rng.choice([sweep.pid, *runs])
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
                    at = time.monotonic() + (rng.uniform(0.1, 3) if victim != sweep.pid else TIMEOUT)
                time.sleep(0.005)
            said = ended(sweep)
            # Where the launcher died while it started a run, Python's fork server complains.
            assert "Traceback" not in said or sweep.returncode == -signal.SIGKILL, said
            if sweep.returncode == 0:
                break
        assert sweep.returncode == 0, said
        for name, stamp in stamps(cwd).items():
            seen.setdefault(name, set()).add(stamp)
        done = [[state for _, state in attempts(folder)].count("done") for folder in folders(cwd)]
        once += done == [1] * 4 and all(len(each) == 1 for each in seen.values()) and len(seen) == 4
        pairs = list(zip(folders(cwd), folders(tmp_path / "whole"), strict=True))
        same += all(difference(mine, undisturbed) == "" for mine, undisturbed in pairs)
        for folder in folders(cwd):
            assert_settled(folder)
    figure(
        f"F11: launcher and runs SIGKILLed at random ({kills} kills), rerun until done: "
        f"each run committed exactly once {once}/{trials}, results those of an undisturbed sweep {same}/{trials}"
    )
    assert once == same == trials


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_f12_two_launchers_at_once(tmp_path: Path) -> None:
    trials, right = 10 if FULL else 2, 0
    for trial in range(trials):
        cwd = tmp_path / str(trial)
        both = [start(cwd, str(LAUNCH), "-m", "prune_rate=0.2,0.4,0.6", "seed=0,1", *SMALL) for _ in range(2)]
        said = [ended(each) for each in both]
        assert [each.returncode for each in both] == [0, 0], said
        assert len(folders(cwd)) == 6
        for folder in folders(cwd):
            assert attempts(folder) == [(1, "done")]
            assert_settled(folder)
        right += 1
    figure(f"F12: two launchers at once: no run executed twice, none missing, both exit 0 {right}/{trials}")
    assert right == trials


def test_f13_runs_that_end_together(tmp_path: Path) -> None:
    count, gate = 64 if FULL else 24, tmp_path / "gate"
    gate.mkdir()
    env = surroundings(
        # Each waits before its commit until all are there.
        {"do": "together", "event": "os.link", "path": r"/result\.json$", "folder": str(gate), "count": count}
    )
    sweep = ["-m", f"seed=range(0,{count})", "method=random", *SMALL, f"hydra.launcher.workers={count}"]
    first = start(tmp_path, str(LAUNCH), *sweep, env=env)
    whole = True
    while first.poll() is None:  # whoever reads meanwhile sees whole rows
        with_results = (tmp_path / "runs").is_dir() and folders(tmp_path)
        if with_results:
            command = [sys.executable, "-m", "hidden_subnet", "results", "runs"]
            subprocess.run(command, cwd=tmp_path, env=surroundings(), capture_output=True, check=True)
            whole &= _is_whole(tmp_path / "runs" / "results.csv")
        time.sleep(0.05)
    said = ended(first)
    assert first.returncode == 0, said
    assert len(os.listdir(gate)) == count
    with (tmp_path / "runs" / "results.csv").open(newline="") as file:
        rows = list(DictReader(file))
    done = sum(row["state"] == "done" for row in rows)
    torn = 0 if whole and _is_whole(tmp_path / "runs" / "results.csv") else 1
    figure(f"F13: {count} runs ending together: {len(rows)} rows, {done} done, {torn} torn")
    assert len(rows) == done == count == len({row["name"] for row in rows})
    assert torn == 0


def _is_whole(path: Path) -> bool:
    with path.open(newline="") as file:
        rows = list(DictReader(file))
    return all({*FIRST, *OUTCOME} <= row.keys() and None not in row.values() for row in rows)
