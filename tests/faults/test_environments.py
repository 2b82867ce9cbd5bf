"""The first command, a resume and a run on folders of images in hostile environments: right, or refused in one line."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.hostile_environments import ENVIRONMENTS, Environment
from helpers.image_folders import make_folder
from helpers.real_commands import LAUNCH, difference, figure, launch
from helpers.runs import interrupt

from hidden_subnet.config.settings import Config

pytestmark = pytest.mark.slow
COMMON = ["model=fc", "model.width=0.125", "train.epochs=2", "train.threads=1", "tracker=none"]
DIGITS = ["data=digits", *COMMON]
SWEEP = ["-m", "prune_rate=0.1,0.3,0.5", *DIGITS]
TIMEOUT = 300
"""Seconds after which a command hangs."""


def images(root: Path) -> list[str]:
    small = ["data.size=64", "data.crop=2", "data.workers=1", "train.batch_size=16"]
    return ["data=tiny_imagenet", f"data.root={root}", *small, *COMMON]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., Config]) -> Path:
    """Images, the runs as they are in a friendly environment, and a run that was interrupted."""
    folder = tmp_path_factory.mktemp("prepared")
    make_folder(folder / "images", classes=2)
    assert launch(folder, *SWEEP).returncode == 0
    assert launch(folder, *images(folder / "images")).returncode == 0
    config = compose("prune_rate=0.3", *DIGITS)
    config.out = str(folder / "interrupted")
    interrupt(config, 5)
    return folder


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> Environment:
    if os.geteuid() != 0:
        pytest.skip("mounts and other users need root")
    return ENVIRONMENTS[request.param]


def run_in(environment: Environment, folder: Path, arguments: list[str]) -> tuple[int, str]:
    """Return the exit code and the output of launch.py in the environment; whatever it leaves running is killed."""
    command = environment.command(folder, [sys.executable, str(LAUNCH), *arguments])
    process = subprocess.Popen(
        command, cwd=folder, env=environment.variables(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"it hung: {process.communicate()[0]}")
    return process.returncode, said


def test_f28_environments(
    environment: Environment, prepared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment.prepare(tmp_path)
    shutil.copytree(prepared / "interrupted", tmp_path / "runs")
    ends = []
    for arguments, refusal in ((SWEEP, environment.sweep), (images(prepared / "images"), environment.images)):
        code, said = run_in(environment, tmp_path, arguments)
        assert "Traceback" not in said, said
        assert (code != 0) == bool(refusal), said
        assert refusal in said
        ends.append("refused in a line" if refusal else "right")
    finished = [path.parent for path in (tmp_path / "runs").glob("*/result.json")]
    assert len(finished) >= 3 * (not environment.sweep) + (not environment.images)
    assert [name for run in finished if (name := difference(run, prepared / "runs" / run.name))] == []
    if not environment.sweep:
        assert (tmp_path / "runs" / "results.csv").exists()
    figure(f"F28 {request.node.callspec.params['environment']}: sweep with a resume {ends[0]}, images {ends[1]}")
