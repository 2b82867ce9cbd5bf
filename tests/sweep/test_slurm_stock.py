"""Every launcher gives the same run, including Hydra's own launcher for Slurm."""

from pathlib import Path

import pytest
from helpers.real_commands import figure, scores_of
from helpers.slurm_cluster import Cluster, slurm
from helpers.slurm_runs import TINY, launch, states, without_times

__all__ = ["slurm"]
pytestmark = pytest.mark.slow

LAUNCHERS = {
    "basic": [],
    "local": [],
    "submitit_local": ["hydra.launcher.timeout_min=60"],
    "slurm": [],
    "submitit_slurm": ["hydra.launcher.cpus_per_task=1"],
}


def test_f18_one_run_under_every_launcher(slurm: Cluster, tmp_path: Path) -> None:
    hashes, results = {}, []
    for launcher, settings in LAUNCHERS.items():
        here = tmp_path / launcher
        here.mkdir()
        said = launch(slurm, here, f"hydra/launcher={launcher}", *settings, "prune_rate=0.3", "data.crop=1", *TINY)
        assert said.returncode == 0, said.stdout + said.stderr
        assert list(states(here).values()) == ["done"]
        [folder] = [path.parent for path in (here / "runs").glob("*/config.yaml")]
        hashes[launcher] = scores_of(folder)
        results.append(without_times(folder))
    assert len(set(hashes.values())) == 1, hashes
    assert all(result == results[0] for result in results)
    figure(f"F18: one run under {', '.join(LAUNCHERS)}: {len(set(hashes.values()))} hash of its scores")
