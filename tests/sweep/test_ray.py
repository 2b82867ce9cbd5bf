"""hydra/launcher=ray on a Ray that the command starts on this machine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hidden_subnet.store.files import RESULT
from hidden_subnet.store.read import read_runs

pytestmark = pytest.mark.slow
pytest.importorskip("hydra_plugins.hydra_ray_launcher")

LAUNCH = Path(__file__).parents[2] / "launch.py"
SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none", "method=dense"]
RAY = ["-m", "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=1"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Ray's own files in a folder of the test; the paths of its sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {**os.environ, "HOME": str(tmp_path), "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}


def test_the_same_command_again_runs_what_failed(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, str(LAUNCH), *RAY, "+hydra.launcher.ray.init.include_dashboard=false", *SMALL]
    written: list[dict[str, int]] = []
    for _ in range(2):
        said = subprocess.run(
            [*command, "train.lr=0.1,0.05,1e30"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert said.returncode == 1, said.stdout + said.stderr
        runs = read_runs(tmp_path / "runs")
        assert sorted(run.state for run in runs) == ["done", "done", "failed"]
        assert "Traceback" not in said.stderr
        written.append({run.name: (run.folder / RESULT).stat().st_mtime_ns for run in runs if run.state == "done"})
    assert written[0] == written[1]
