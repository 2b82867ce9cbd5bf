"""Histograms of scores and losses of steps: on disk, on W&B and in TensorBoard, once each and in order."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.wandb_server import Received, StandIn, open_trackers, sync
from PIL import Image

from hidden_subnet.config.settings import Config
from hidden_subnet.store import checkpoints, files
from hidden_subnet.store.folders import read_text
from hidden_subnet.sweep.execute import Outcome, RunObserver, execute
from hidden_subnet.trackers import sent

pytest_plugins = ["helpers.wandb_server"]
pytestmark = pytest.mark.usefixtures("clean")

SMALL = ["data=synthetic", "model=fc", "model.width=0.1", "train.epochs=3", "train.threads=1", "train.batch_size=100"]
ASKED = ["tracker.histograms=2", "tracker.step_loss=3"]
Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, compose: Callable[..., Config]) -> Run:
    """Return a function that executes the run, `stop_at` steps of it."""

    def executed(*words: str, out: str = "runs", stop_at: int = 10**9) -> Outcome:
        steps = 0

        def on_step(epoch: int, batch: int, batches: int) -> None:
            nonlocal steps
            steps += 1

        observer = RunObserver(lambda row: None, on_step, lambda text: None)
        config = compose(*SMALL, *words, f"out={tmp_path / out}")
        return execute(config, observer, stopped=lambda: steps >= stop_at, open_trackers=open_trackers)

    return executed


def lines(folder: Path) -> list[dict[str, Any]]:
    return files.read_tracked(files.working(folder))


def computed(folder: Path) -> tuple[Any, ...]:
    """Return rows and scores, without what a clock says."""
    last = checkpoints.load(folder / "checkpoints" / files.LAST, "cpu")["trained"]
    rows = [
        {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
        for row in files.read_rows(folder)
    ]
    return rows, {name: value.tolist() for name, value in last.items()}


def test_the_lines_and_that_nothing_else_changes(run: Run) -> None:
    plain, asked = run("tracker=none", out="plain"), run("tracker=tensorboard", *ASKED)
    assert lines(plain.folder) == []
    assert not (plain.folder / files.TRACKED).exists()
    assert computed(plain.folder) == computed(asked.folder)
    rows, found = files.read_rows(asked.folder), lines(asked.folder)
    steps = int(rows[-1]["step"])
    assert [line["step"] for line in found if "loss" in line] == list(range(3, steps + 1, 3))
    assert [(line["epoch"], line["step"]) for line in found if "layers" in line] == [
        (row["epoch"], row["step"]) for row in rows if row["epoch"] % 2 == 0
    ]
    of_last = [line for line in found if "layers" in line][-1]["layers"]
    assert asked.result is not None
    for layer in asked.result["layers"]:
        histogram = of_last[layer["name"]]
        assert len(histogram["edges"]) == len(histogram["kept"]) + 1
        assert sum(histogram["kept"]) + sum(histogram["removed"]) == layer["weights"]


def test_the_mean_of_all_steps_is_the_loss_of_the_epoch(run: Run) -> None:
    folder = run("tracker=tensorboard", "tracker.step_loss=1").folder
    row = files.read_rows(folder)[1]
    losses = [line["loss"] for line in lines(folder) if line["step"] <= row["step"]]
    images = round(row["images_per_second"] * row["seconds"])
    batches = [100] * (len(losses) - 1) + [images - 100 * (len(losses) - 1)]
    assert np.average(losses, weights=batches) == pytest.approx(row["train/loss"], rel=1e-9)


def test_a_resumed_run_has_each_line_once(run: Run) -> None:
    whole = run("tracker=tensorboard", *ASKED, out="whole")
    total = int(files.read_rows(whole.folder)[-1]["step"])
    parts = [run("tracker=tensorboard", *ASKED, stop_at=total // 3 + 1) for _ in range(2)]
    assert [part.state for part in parts] == ["interrupted", "interrupted"]
    done = run("tracker=tensorboard", *ASKED)
    assert done.state == "done"
    assert lines(done.folder) == lines(whole.folder)


def test_a_cut_line_is_skipped(run: Run) -> None:
    folder = run("tracker=tensorboard", *ASKED).folder
    before = lines(folder)
    with (folder / files.TRACKED).open("a") as file:
        file.write('{"step": 99999, "lo')
    assert lines(folder) == before


def test_nothing_is_written_where_nothing_gets_it(run: Run) -> None:
    assert not (run("tracker=none", *ASKED).folder / files.TRACKED).exists()


def test_tensorboard_has_histograms_and_losses(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run("tracker=tensorboard", *ASKED).folder
    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"histograms": 0, "images": 0})
    reader.Reload()
    found = lines(folder)
    losses = [(line["step"], line["loss"]) for line in found if "loss" in line]
    read = [(event.step, event.value) for event in reader.Scalars("train/step_loss")]
    assert [step for step, _ in read] == [step for step, _ in losses]
    assert [value for _, value in read] == pytest.approx([loss for _, loss in losses])
    layers = [line["layers"] for line in found if "layers" in line]
    for path in layers[0]:
        events = reader.Histograms(f"scores/{path}")
        assert [event.step for event in events] == [0, 2]
        assert events[-1].histogram_value.num == sum(layers[-1][path]["kept"]) + sum(layers[-1][path]["removed"])
        kept = reader.Histograms(f"scores_kept/{path}")[-1].histogram_value
        assert kept.num == sum(layers[-1][path]["kept"])
    images = reader.Images("scores")
    assert [image.step for image in images] == [0, 2]
    assert Image.open(io.BytesIO(images[-1].encoded_image_string)).size == (images[-1].width, images[-1].height)


def in_order(received: Received, folder: Path) -> None:
    """Assert that W&B has the rows, histograms with their epochs, and losses with their steps, once and in order."""
    found, rows = [json.loads(line) for line in received.history], files.read_rows(folder)
    # W&B's client adds the last epoch to the row of a step.
    assert [row["epoch"] for row in found if "train/step_loss" not in row] == [row["epoch"] for row in rows]
    assert [row["epoch"] for row in found if "layers" in row] == [0, 2]
    layers = [line["layers"] for line in lines(folder) if "layers" in line]
    for row, of_epoch in zip([row for row in found if "layers" in row], layers, strict=True):
        for path, layer in of_epoch.items():
            sums = [kept + removed for kept, removed in zip(layer["kept"], layer["removed"], strict=True)]
            assert row[f"scores/{path}"]["values"] == sums
            assert row[f"scores/{path}"]["bins"] == pytest.approx(layer["edges"])
            assert row[f"scores_kept/{path}"]["values"] == layer["kept"]
    losses = [line for line in lines(folder) if "loss" in line]
    assert [(row["step"], row["train/step_loss"]) for row in found if "train/step_loss" in row] == [
        (line["step"], pytest.approx(line["loss"])) for line in losses
    ]
    assert [row["step"] for row in found] == sorted(row["step"] for row in found)


@pytest.mark.slow
def test_wandb_has_them_with_an_interruption(run: Run, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    total = int(files.read_rows(run("tracker=none", out="whole").folder)[-1]["step"])
    assert run("tracker=wandb", *ASKED, stop_at=total // 2).state == "interrupted"
    done = run("tracker=wandb", *ASKED)
    assert done.state == "done"
    (received,) = server.runs.values()
    in_order(received, done.folder)
    table = next(json.loads(text) for name, text in received.files.items() if "media/table/layers" in name)
    assert table["columns"] == ["layer", "weights", "kept", "density", "score_mean", "score_std"]


@pytest.mark.slow
def test_sync_sends_them_all(run: Run, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run("tracker=wandb", *ASKED).folder  # offline, for want of a key
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert sync([folder], print) == 0
    (received,) = server.runs.values()
    in_order(received, folder)
    (folder / sent.SENT).unlink()
    assert sync([folder], print) == 0
    in_order(received, folder)
    assert read_text(folder / files.TRACKED).count("\n") == len(lines(folder))
