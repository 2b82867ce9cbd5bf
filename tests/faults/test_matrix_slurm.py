"""The same bad ends of one run of four, executed by workers of a real Slurm."""

from pathlib import Path

import pytest
from helpers.bad_ends import ENDS, SWEEP, WHERE, the_bad_run
from helpers.real_commands import figure, launch, surroundings
from helpers.slurm_cluster import Cluster, slurm

from hidden_subnet.store import files

__all__ = ["slurm"]
pytestmark = pytest.mark.slow

FAULTS = ["exception", "unpicklable", "sys.exit", "memory", "SIGKILL", "segfault"]


def test_f08_every_bad_end_on_slurm(slurm: Cluster, tmp_path: Path) -> None:
    right = 0
    for number, fault in enumerate(FAULTS):
        cwd, once = tmp_path / str(number), str(tmp_path / f"once {number}")
        env = surroundings({"do": fault, **WHERE, "once": once}, SLURM_CONF=slurm.environment["SLURM_CONF"])
        said = launch(cwd, *SWEEP, "hydra/launcher=slurm", "hydra.launcher.workers=2", env=env)
        bad = the_bad_run(cwd, said, fault)
        assert (ENDS[fault][0] == "failed") == (files.working(bad) / files.ERROR).exists()
        right += 1
    count = f"{right}/{len(FAULTS)}"
    figure(f"F8 Slurm: {', '.join(FAULTS)}: the others finish, state, summary and exit code are right {count}")
