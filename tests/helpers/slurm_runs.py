"""Sweeps that are launched on the Slurm of the tests, and what they leave in their folder."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import forked_launch
from helpers.real_commands import ROOT, TIMEOUT
from helpers.slurm_cluster import Cluster

from hidden_subnet.store import files
from hidden_subnet.store.read import read_runs

TINY = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none", "train.threads=1"]
LONG = [*TINY[:2], "train.epochs=600", *TINY[3:]]
"""A run of about 25 s."""
ENDLESS = [*LONG, "train.epochs=100000"]
ON_SLURM = ["hydra/launcher=slurm", "hydra.launcher.workers=2"]
SECRET = "canary-b1946ac92492d2347c6235b4d2611184"
"""A key in the environment, which must not appear in any file."""


def environment(cluster: Cluster) -> dict[str, str]:
    return {**cluster.environment, "OMP_NUM_THREADS": "1", "WANDB_API_KEY": SECRET}


def launch(cluster: Cluster, cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return forked_launch.launch(cwd, "-m", *arguments, env=environment(cluster))


def start(cluster: Cluster, cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the launcher in the background; its output goes to the file `said`."""
    (cwd / "runs").mkdir(exist_ok=True)  # to be read at once
    with (cwd / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-u", str(ROOT / "launch.py"), "-m", *arguments],
            cwd=cwd,
            env=environment(cluster),
            stdout=said,
            stderr=said,
            text=True,
        )


def wait_until(reached: Callable[[], Any], what: str, cwd: Path) -> Any:
    end = time.monotonic() + TIMEOUT
    while not (value := reached()):
        if time.monotonic() > end:
            said = (cwd / "said").read_text() if (cwd / "said").exists() else ""
            pytest.fail(f"waited in vain for {what}; {said}")
        time.sleep(0.05)
    return value


def states(cwd: Path) -> dict[str, str]:
    return {run.name: run.state for run in read_runs(cwd / "runs")}


def tasks(cwd: Path) -> list[str]:
    """Slurm tasks of all workers that were submitted for the only sweep."""
    return [
        task
        for path in sorted((cwd / "runs").glob(".sweeps/*/slurm/jobs-*.json"))
        for task in json.loads(path.read_text())["tasks"]
    ]


def newest_claim(folder: Path) -> dict[str, Any]:
    """claim.json of the newest attempt."""
    claim: dict[str, Any] = json.loads((files.working(folder) / "claim.json").read_text())
    return claim


def only_run(cwd: Path) -> Path:
    [folder] = [path.parent for path in (cwd / "runs").glob("*/config.yaml")]
    return folder


def attempts(folder: Path) -> list[tuple[int, str]]:
    entries = json.loads((folder / files.PROVENANCE).read_text())["attempts"]
    return [(entry["number"], entry["state"]) for entry in entries]


def without_times(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / files.RESULT).read_text())
    return {key: value for key, value in result.items() if key not in ("seconds", "environment")}


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait at the end of each test until its jobs have ended; launchers that wait for them end too."""
    yield
    for name in ("slurm", "slurm_with_accounting"):
        if name in request.fixturenames:
            request.getfixturevalue(name).wait_until_empty()
