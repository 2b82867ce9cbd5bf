"""Whole runs on folders of images: they resume bit for bit, come back, and leave no process."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.folder_runs import SMALL, Compose, small
from helpers.image_folders import make_folder
from helpers.runs import QUIET

from hidden_subnet.analysis import load as loading
from hidden_subnet.config.settings import Config
from hidden_subnet.store import files
from hidden_subnet.store.files import load_config
from hidden_subnet.sweep.execute import execute

LAUNCH = Path(__file__).parents[2] / "launch.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes, 24 images to train on and 12 to test, in the layout of ImageFolder."""
    return make_folder(tmp_path_factory.mktemp("folder"))


def interrupted(config: Config, steps: int) -> None:
    taken: list[int] = []
    observer = replace(QUIET, on_step=lambda epoch, batch, batches: taken.append(batch))
    assert execute(config, observer, stopped=lambda: len(taken) >= steps).state == "interrupted"
    assert multiprocessing.active_children() == []


def result_of(folder: Path) -> dict[str, Any]:
    result = files.read_result(folder)
    assert result is not None
    return {key: value for key, value in result.items() if key not in ("seconds", "environment")}


def checkpoints_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random"])
def test_a_run_resumes_bit_for_bit_and_comes_back(compose: Compose, tmp_path: Path, folder: Path, method: str) -> None:
    overrides = [f"method={method}", "data.workers=1"]
    whole = execute(small(compose, folder, *overrides, f"out={tmp_path / 'whole'}"), QUIET)
    assert whole.state == "done", whole.message
    if method != "random":
        config = small(compose, folder, *overrides, f"out={tmp_path / 'broken'}")
        interrupted(config, 2)
        interrupted(config, 4)
        broken = execute(config, QUIET)
        assert result_of(broken.folder) == result_of(whole.folder)
        assert checkpoints_of(broken.folder) == checkpoints_of(whole.folder)
    images, labels = loading.test_images(whole.folder)
    assert images.shape == (12, 3, 12, 12)
    top1 = (loading.load(whole.folder)(images).argmax(1) == labels).double().mean().item()
    assert top1 == result_of(whole.folder)["last"]["test"]["top1"]
    assert load_config(whole.folder / files.CONFIG).data.found.classes == 3


def test_the_network_comes_back_without_its_images(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images")
    done = execute(small(compose, root, "train.epochs=1", f"out={tmp_path / 'runs'}"), QUIET)
    shutil.rmtree(root)
    assert loading.load(done.folder)(torch.zeros(2, 3, 12, 12)).shape == (2, 3)


def processes_of(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = path.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, sid = rest.rpartition(")")[2].split()[:4]
        if int(sid) == session and state != "Z":
            found.append(int(pid))
    return found


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("how", ["Ctrl-C", "TERM of every process", "KILL of the run"])
def test_a_signal_to_all_saves_and_leaves_no_process(tmp_path: Path, compose: Compose, how: str) -> None:
    """As a terminal sends Ctrl-C, and Slurm its signals: to the workers too."""
    root = make_folder(tmp_path / "images", train=60)
    settings = [*SMALL, "train.batch_size=2", "train.epochs=40", "data.workers=2", "train.threads=1"]
    command = [sys.executable, str(LAUNCH), "data=tiny_imagenet", f"data.root={root}", *settings]
    whole = execute(compose(*command[2:], f"out={tmp_path / 'whole'}"), QUIET)
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    folder = tmp_path / "runs" / whole.folder.name
    until(lambda: folder.exists() and files.count_rows(files.working(folder)) >= 2)
    assert len(processes_of(process.pid)) == 3
    begun = time.monotonic()
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    elif how == "KILL of the run":
        process.kill()
    else:
        for each in sorted(processes_of(process.pid), reverse=True):  # the workers first
            os.kill(each, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    print(f"{how}: ended after {time.monotonic() - begun:.2f} s")
    until(lambda: processes_of(process.pid) == [])
    assert process.returncode == (-9 if how == "KILL of the run" else 130)
    assert "Traceback" not in said
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert result_of(folder) == result_of(whole.folder)
    assert checkpoints_of(folder) == checkpoints_of(whole.folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_sweep_reads_in_workers_and_is_stopped(tmp_path: Path) -> None:
    """There a run is itself the child of a fork server, whose signals are blocked."""
    root = make_folder(tmp_path / "images", train=60)
    settings = [*SMALL, "train.batch_size=2", "train.epochs=40", "data.workers=2"]
    command = [sys.executable, str(LAUNCH), "-m", "data=tiny_imagenet", f"data.root={root}", *settings, "seed=0,1"]

    def readers() -> list[int]:
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/environ")
            if _environment(path).find(f"FOLDERS_TEST={tmp_path}".encode()) >= 0
        ]

    environment = {**os.environ, "FOLDERS_TEST": str(tmp_path)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    rows = tmp_path / "runs"
    until(lambda: any(files.count_rows(files.working(each)) >= 2 for each in rows.glob("tiny*")))
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, said = process.communicate(timeout=60)
    print(f"sweep: ended after {time.monotonic() - begun:.2f} s")
    assert process.returncode == 130
    until(lambda: readers() == [])
    assert "Traceback" not in said
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert len(list(rows.glob(f"*/{files.RESULT}"))) == 2


def _environment(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
