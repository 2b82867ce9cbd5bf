"""Submissions at difficult moments: Ctrl-C while sbatch runs, and a new launch while stopped workers still leave."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.real_commands import ROOT, TIMEOUT
from helpers.slurm_cluster import NODES, Cluster, slurm
from helpers.slurm_runs import (
    ENDLESS,
    LONG,
    ON_SLURM,
    clean,
    environment,
    launch,
    start,
    states,
    tasks,
    wait_until,
)

__all__ = ["clean", "slurm"]
pytestmark = pytest.mark.slow

SWEEP = ["prune_rate=0.1,0.3", *ON_SLURM, *ENDLESS]


def interrupted(cluster: Cluster, cwd: Path, script: str) -> tuple[int, str]:
    """Launch the sweep and type Ctrl-C when the script, which replaces sbatch, has made the file `now`."""
    real, now = shutil.which("sbatch", path=environment(cluster)["PATH"]), cwd / "now"
    path = cwd / "bin" / "sbatch"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n".replace("SBATCH", f'{real} "$@"').replace("NOW", f"touch {now}"))
    path.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), "-m", *SWEEP],
        cwd=cwd,
        env={**environment(cluster), "PATH": f"{path.parent}:{environment(cluster)['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_until(now.exists, "sbatch", cwd)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in said
    return process.returncode, said


def test_after_slurm_has_taken_the_workers(slurm: Cluster, tmp_path: Path) -> None:
    code, said = interrupted(slurm, tmp_path, "trap '' INT; SBATCH; NOW; sleep 1")
    assert code == 130
    assert "the workers continue; the same command watches them again" in said
    assert len(tasks(tmp_path)) == 2
    assert f"scancel {tasks(tmp_path)[0].split('_')[0]}" in said
    again = start(slurm, tmp_path, *SWEEP)
    known = f"2 workers of this sweep in the queue already: {' '.join(tasks(tmp_path))}"
    wait_until(lambda: known in (tmp_path / "said").read_text(), "the same command", tmp_path)
    slurm.run("scancel", *tasks(tmp_path))
    assert again.wait(TIMEOUT) == 1
    assert len(tasks(tmp_path)) == 2


def test_before_slurm_has_heard_of_them(slurm: Cluster, tmp_path: Path) -> None:
    before = slurm.squeue().keys()
    code, said = interrupted(slurm, tmp_path, "NOW; sleep 60; SBATCH")
    assert code == 130
    assert "interrupted; the same command" in said.rstrip().splitlines()[-1]
    assert tasks(tmp_path) == []
    assert slurm.squeue().keys() <= before


def processes_of_workers(cluster: Cluster) -> list[int]:
    found = [pid for node in NODES for pid, line in cluster.processes_on(node).items() if " worker " in line]
    return found if len(found) >= 2 else []


def test_launch_directly_after_a_stop(slurm: Cluster, tmp_path: Path) -> None:
    """The stop comes while the workers are still loading torch; the new launch waits until they have left."""
    sweep = ["prune_rate=0.1,0.3", *ON_SLURM, *LONG]
    assert launch(slurm, tmp_path, *sweep, "hydra.launcher.detach=true").returncode == 0
    [folder] = (tmp_path / "runs" / ".sweeps").iterdir()
    first = tasks(tmp_path)
    workers = wait_until(lambda: processes_of_workers(slurm), "the workers", tmp_path)
    for pid in workers:  # or they might be gone before the new launch looks
        os.kill(pid, signal.SIGSTOP)
    stop = [sys.executable, "-m", "hidden_subnet", "stop", str(folder), "--no-wait"]
    said = subprocess.run(stop, cwd=tmp_path, env=environment(slurm), capture_output=True, text=True, timeout=TIMEOUT)
    assert (said.returncode, "was asked to stop" in said.stdout) == (0, True), said.stdout + said.stderr
    again = start(slurm, tmp_path, *sweep)
    waits = "the sweep was stopped: waiting until 2 workers have saved and left"
    wait_until(lambda: waits in (tmp_path / "said").read_text(), "the new launch", tmp_path)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    assert again.wait(TIMEOUT) == 0, (tmp_path / "said").read_text()
    assert set(states(tmp_path).values()) == {"done"}
    assert set(first) < set(tasks(tmp_path))
