"""Files that W&B keeps as artifacts, read back from what its real client sends to a stand-in for its server."""

import csv
import hashlib
import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.wandb_server import Artifact, StandIn, of_type, open_trackers, records, report_sweep, sync

from hidden_subnet import load, load_masks
from hidden_subnet.config.settings import Artifacts, Config
from hidden_subnet.report.figure import draw
from hidden_subnet.store import files, sweeps
from hidden_subnet.store.read import read_run
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.trackers import sent

pytest_plugins = ["helpers.wandb_server"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]
QUIET = RunObserver(lambda row: None, lambda *step: None, lambda text: None)
Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path, compose: Callable[..., Config]) -> Start:
    """Return a function that executes a small run, tracked on W&B, and returns its folder."""

    def started(*overrides: str) -> Path:
        small = ["data=synthetic", "model.width=0.125", "train.epochs=2", f"out={tmp_path / 'runs'}"]
        outcome = execute(compose(*small, *overrides), QUIET, open_trackers=open_trackers)
        assert outcome.state == "done", outcome.message
        return outcome.folder

    return started


@pytest.fixture
def key(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


def written(artifact: Artifact, to: Path) -> Path:
    """Write the files as who downloads them has them, each found in the manifest by its digest."""
    entries = json.loads(artifact.manifest)["contents"]
    assert entries.keys() == artifact.files.keys()
    for name, content in artifact.files.items():
        assert entries[name]["digest"] == b64encode(hashlib.md5(content).digest()).decode()
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(content)
    return to


def test_nothing_is_kept_unless_asked_for(start: Start, key: StandIn) -> None:
    assert sent.is_complete(start())
    assert key.artifacts == {}


def test_mask_file_arrives(start: Start, key: StandIn, tmp_path: Path) -> None:
    folder = start("tracker.artifacts=mask")
    assert sent.is_complete(folder)
    artifact = key.artifacts[folder.name]
    assert (artifact.type, artifact.state, artifact.run) == ("mask", "COMMITTED", sent.run_id(folder))
    file = written(artifact, tmp_path / "got") / "last.mask"
    mine, theirs = load_masks(folder), load_masks(file)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mask, theirs[name]) for name, mask in mine.items())


def test_best_checkpoint_arrives_with_what_loads_it(start: Start, key: StandIn, tmp_path: Path) -> None:
    folder = start("tracker.artifacts=best")
    got = written(key.artifacts[folder.name], tmp_path / "got")
    texts = (got / files.CONFIG).read_text() + (got / files.RESULT).read_text()
    assert str(tmp_path) not in texts
    assert f'"{socket.gethostname()}"' not in texts
    state = load(got, "best").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load(folder, "best").state_dict().items())


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (["tracker.artifacts=mask", "method=dense"], "method=dense: changes weights"),
        (["tracker.artifacts=best", "data.validation=0"], "no best checkpoint"),
    ],
)
def test_a_run_without_the_file_arrives_without_it(start: Start, key: StandIn, typed: list[str], why: str) -> None:
    folder = start(*typed)
    assert sent.is_complete(folder)
    assert key.artifacts == {}
    (run,) = key.runs.values()
    assert why in run.summary["no_artifact"]
    assert run.exit_code == 0


def test_sync_keeps_what_was_offline_once(start: Start, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, W&B's file names the mask file; `sync` sends the run with it, and then nothing more."""
    folder = start("tracker.artifacts=mask")
    (found,) = records(folder)
    (artifact,) = of_type(found, "artifact")
    (entry,) = artifact["manifest"]["contents"]
    assert (artifact["name"], entry["path"]) == (folder.name, "last.mask")
    assert Path(entry["local_path"]).read_bytes().startswith(b"PK")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    for _ in range(2):
        assert sync([folder], said.append) == 0
    assert said == ["sent 1 run", "W&B has everything: 1 run complete"]
    assert server.artifacts[folder.name].files.keys() == {"last.mask"}
    (folder / sent.SENT).unlink()
    before = server.operations.count("CommitArtifact")
    assert sync([folder], said.append) == 0
    assert server.operations.count("CommitArtifact") == before


def test_wandb_sync_keeps_it_too(start: Start, server: StandIn, tmp_path: Path) -> None:
    folder = start("tracker.artifacts=best")
    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(folder / "wandb")],
        env={**os.environ, **server.environment()}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    got = written(server.artifacts[folder.name], tmp_path / "got")
    assert (got / "checkpoints" / files.BEST).read_bytes() == (folder / "checkpoints" / files.BEST).read_bytes()


def test_force_makes_the_file_again(start: Start, key: StandIn) -> None:
    folder = start("tracker.artifacts=mask")
    start("tracker.artifacts=mask", "force=true")
    written_files = sorted(path.stem for path in (folder / "wandb").glob("*.mask"))
    assert written_files == sorted(key.runs)
    assert len(written_files) == 2


def test_an_artifact_that_is_refused_costs_a_line_and_sync_sends_it(start: Start, key: StandIn) -> None:
    key.refused = {"CreateArtifact"}
    folder = start("tracker.artifacts=mask")
    assert "W&B is off for this run" in (folder / files.LOG).read_text()
    assert not sent.is_complete(folder)
    key.refused = set()
    said: list[str] = []
    assert sync([folder], said.append) == 0
    assert said == ["sent 1 run"]
    assert key.artifacts[folder.name].state == "COMMITTED"


def test_results_of_a_sweep_arrive(start: Start, key: StandIn, tmp_path: Path) -> None:
    chosen = [start("tracker.artifacts=best", f"prune_rate={rate}") for rate in (0.3, 0.7)]
    configs = [files.load_config(folder / files.CONFIG) for folder in chosen]
    sweep = sweeps.write(sweeps.plan(configs, "rates"), {})
    runs = [read_run(folder) for folder in sweep.runs]
    figures = draw(runs, sweep.out / "figures" / sweep.name)
    assert report_sweep(configs[0], sweep.name, sweep.folder, runs, figures, pytest.fail)
    artifact = key.artifacts[sweep.name]
    assert artifact.type == "sweep"
    got = written(artifact, tmp_path / "got")
    assert sorted(path.name for path in got.iterdir()) == ["figure.png", "results.csv", "table.md", "table.tex"]
    (figure,) = [path for path in figures if path.suffix == ".png"]
    assert (got / "figure.png").read_bytes() == figure.read_bytes()
    lines = (got / "results.csv").read_text().splitlines()
    assert {row["host"] for row in csv.DictReader(lines)} == {""}
    assert sorted(line.partition(",")[0] for line in lines[1:]) == sorted(folder.name for folder in chosen)
    assert not report_sweep(configs[0], sweep.name, sweep.folder, runs, figures, pytest.fail)
    for config in configs:
        config.tracker.artifacts = Artifacts.none
    assert report_sweep(configs[0], sweep.name, sweep.folder, runs, figures, pytest.fail)
