"""Chains that are broken at random, on slots and on Slurm: each run is committed once, with the undisturbed results."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers.real_commands import (
    FULL,
    LAUNCH,
    TIMEOUT,
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
from helpers.slurm_cluster import NODES, Cluster, slurm
from helpers.slurm_runs import clean

from hidden_subnet.store import files

__all__ = ["clean", "slurm"]
pytestmark = pytest.mark.slow

CHAINS = ["-m", "method=imp", "method.per_round=0.5", "method.rewind_epochs=1", "prune_rate=0.75,0.4", "seed=0,1"]
CHAINS += ["data=synthetic", "model.width=0.25", "train.epochs=10", "train.threads=1", "tracker=none"]
CHAINS += ["checkpoint.minutes=0.0005", "claim.silent_seconds=20"]
RUNS = 8
"""For each seed the dense network, its two children, and the child of one of these."""


def assert_same(cwd: Path, whole: Path) -> None:
    mine, undisturbed = folders(cwd), folders(whole)
    assert [folder.name for folder in mine] == [folder.name for folder in undisturbed]
    assert len(mine) == RUNS
    for one, other in zip(mine, undisturbed, strict=True):
        assert difference(one, other) == "", one.name
        assert [state for _, state in attempts(one)].count("done") == 1
        assert not (one / files.ATTEMPTS).exists()


def runs(cwd: Path) -> list[int]:
    """Ids of the processes that execute runs."""
    found = [holder_pid(folder) for folder in folders(cwd) if not files.is_done(folder)]
    return [pid for pid in found if pid and Path(f"/proc/{pid}").exists()]


def test_f39_chains_killed_at_random_and_rerun(tmp_path: Path) -> None:
    trials, kills, rng = 20 if FULL else 2, 0, random.Random(19)
    whole = tmp_path / "whole"
    assert launch(whole, *CHAINS).returncode == 0
    for trial in range(trials):
        cwd = tmp_path / str(trial)
        for launches in range(6):
            sweep = start(cwd, str(LAUNCH), *CHAINS, "hydra.launcher.workers=2")
            at = time.monotonic() + (rng.uniform(2, 7) if launches < 2 else TIMEOUT)
            while sweep.poll() is None:
                if time.monotonic() > at:
                    victim = rng.choice([sweep.pid, *runs(cwd)])
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
                    at = time.monotonic() + (rng.uniform(0.1, 2) if victim != sweep.pid else TIMEOUT)
                time.sleep(0.005)
            said = ended(sweep)
            if sweep.returncode == 0:
                break
        assert sweep.returncode == 0, said
        assert_same(cwd, whole)
    figure(
        f"F39: chains, launcher and runs SIGKILLed at random ({kills} kills), rerun until done: each run committed "
        f"once, results those of an undisturbed sweep {trials}/{trials}"
    )


def test_f40_chains_killed_at_random_on_slurm(slurm: Cluster, tmp_path: Path) -> None:
    trials, kills, rng = 20 if FULL else 2, 0, random.Random(20)
    whole = tmp_path / "whole"
    assert launch(whole, *CHAINS).returncode == 0
    env = surroundings(SLURM_CONF=slurm.environment["SLURM_CONF"])
    words = [*CHAINS, "hydra/launcher=slurm", "hydra.launcher.workers=2"]
    for trial in range(trials):
        cwd = tmp_path / str(trial)
        for launches in range(6):
            sweep = start(cwd, str(LAUNCH), *words, env=env)
            at = time.monotonic() + (rng.uniform(4, 12) if launches < 2 else TIMEOUT)
            while sweep.poll() is None:
                if time.monotonic() > at:
                    if going := processes(slurm):
                        os.kill(rng.choice(going), signal.SIGKILL)
                        kills += 1
                    at = time.monotonic() + rng.uniform(0.5, 3)
                time.sleep(0.02)
            said = ended(sweep)
            slurm.wait_until_empty()
            if sweep.returncode == 0:
                break
        assert sweep.returncode == 0, said
        assert_same(cwd, whole)
    figure(
        f"F40: chains on Slurm, workers and runs SIGKILLed at random ({kills} kills), rerun until done: each run "
        f"committed once, results those of an undisturbed sweep {trials}/{trials}"
    )


def processes(slurm: Cluster) -> list[int]:
    """Ids of the processes of workers and runs on all nodes."""
    found = [slurm.processes_on(name) for name in NODES]
    return [
        pid for each in found for pid, line in each.items() if "hidden_subnet worker" in line or "forkserver" in line
    ]
