"""train.profile: the trace holds the steps that it says, and the run is the one without it."""

import json
from pathlib import Path

import pytest
from helpers.runs import QUIET, assert_same_run, interrupt, small

from hidden_subnet.store import files
from hidden_subnet.sweep.execute import RunObserver, execute


@pytest.mark.parametrize(
    ("train", "said", "steps"),
    [
        ({"epochs": 1}, "steps 3 to 5", 3),
        ({"epochs": 1, "batch_size": 300}, "steps 1 to 2", 2),
        ({"epochs": 2, "batch_size": 300}, "steps 2 to 4", 3),
    ],
)
def test_a_trace_of_a_few_steps(tmp_path: Path, train: dict[str, int], said: str, steps: int) -> None:
    config = small(tmp_path / "profiled", **train)
    config.train.profile = True
    lines: list[str] = []
    folder = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, lines.append)).folder
    assert [line for line in lines if files.PROFILE in line and line.startswith(said)]
    events = json.loads((folder / files.PROFILE).read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("_StraightThroughBackward") == 5 * steps  # conv2 has five masked layers
    assert names.count("_StraightThrough") >= 5 * steps
    assert "Optimizer.step#SGD.step" in names
    assert_same_run(execute(small(tmp_path / "plain", **train), QUIET).folder, folder)


def test_what_a_stopped_run_traced_is_written(tmp_path: Path) -> None:
    config = small(tmp_path)
    config.train.profile = True
    attempt = interrupt(config, 3)
    events = json.loads((attempt / files.PROFILE).read_text())["traceEvents"]
    assert [event.get("name") for event in events].count("_StraightThrough") == 5
    assert (execute(config, QUIET).folder / files.PROFILE).exists()
    folder = execute(small(tmp_path / "plain"), QUIET).folder
    assert not (folder / files.PROFILE).exists()
