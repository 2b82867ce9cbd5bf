"""A folder of runs that is shared with a group: Slurm's workers never execute what another member puts there."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hostile_environments import as_user
from helpers.real_commands import LAUNCH, TIMEOUT, figure
from helpers.slurm_cluster import Cluster, slurm
from helpers.slurm_runs import ON_SLURM, TINY, clean, environment, states, tasks, wait_until

__all__ = ["clean", "slurm"]
pytestmark = pytest.mark.slow
STRANGER, GROUP = 12346, 20200
PLANTED = "open({mark!r}, 'a').write(__name__)\nraise SystemExit(1)\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place that all may enter, with root's home and a folder of runs that is shared with a group."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        (folder / "runs").mkdir()
        os.chown(folder / "runs", 0, GROUP)
        (folder / "runs").chmod(0o2775)
        yield folder


def command(cluster: Cluster, folder: Path, *line: str) -> str:
    said = subprocess.run(
        ["sh", "-c", 'umask 002; exec "$@"', "sh", *line],
        cwd=folder / "home", env={**environment(cluster), "HOME": f"{folder}/home"}, capture_output=True, text=True,
        timeout=TIMEOUT,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def plant(cluster: Cluster, folder: Path, sweep: Path, vessels: list[Path]) -> None:
    """As the stranger, exchange the sweep's folder for one in which code and submissions are ours.

    The folders with the planted code are the victim's own: two runs, to which the group may write.
    """
    code = PLANTED.format(mark=f"{folder}/executed")
    aside = sweep.with_name("aside")
    script = [f"mv {sweep} {aside}", f"mkdir {sweep}", f"cp {aside}/manifest.json {sweep}"]
    codes = [path.name for path in sweep.glob("code-*")] or ["code-1"]
    for vessel, name in zip(vessels, (codes[0], "slurm"), strict=True):
        script += [f"mkdir -p {vessel}/hidden_subnet {vessel}/submitit", f"cp -r {aside}/{name}/* {vessel} || :"]
        for package in ("hidden_subnet", "submitit"):
            script += [f"printf %s {shlex.quote(code)} > {vessel}/{package}/__init__.py"]
        script += [f"mv {vessel} {sweep}/{name}"]
    command(cluster, folder, *as_user(STRANGER, GROUP), "sh", "-c", "set -e\n" + "\n".join(script))


def test_f33_code_that_another_user_exchanges_is_not_executed(slurm: Cluster, folder: Path) -> None:
    out, launch = f"out={folder}/runs", [sys.executable, str(LAUNCH)]
    for seed in (1, 2):
        command(slurm, folder, *launch, *TINY, f"seed={seed}", out)
    vessels = sorted(folder.glob("runs/synthetic-*"))
    held = ["+hydra.launcher.additional_parameters={hold: true}", "hydra.launcher.detach=true"]
    sweep = ["-m", "prune_rate=0.1,0.3", *ON_SLURM, *TINY, out]
    said = command(slurm, folder, *launch, *sweep, *held)
    [place] = (folder / "runs" / ".sweeps").iterdir()
    logs = next((folder / "home" / ".hidden_subnet").glob(f"{place.name}-*")) / "slurm"
    assert f"2 workers, logs in {logs}" in said
    submitted = tasks(folder)
    plant(slurm, folder, place, vessels)
    for task in submitted:
        slurm.run("scontrol", "release", task)
    wait_until(lambda: list(states(folder).values()).count("done") == 2, "the runs", folder)
    assert not (folder / "executed").exists()
    assert (logs / f"{submitted[0]}_0_log.out").exists()
    shutil.rmtree(place)
    (place.parent / "aside").rename(place)
    command(slurm, folder, sys.executable, "-m", "hidden_subnet", "rm", str(place), "--yes", "--out", "../runs")
    assert not logs.parent.exists()
    figure("F33 a sweep on Slurm whose folder another user exchanges: 2 runs done, 0 lines of the other's executed")
