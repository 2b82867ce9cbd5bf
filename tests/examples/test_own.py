"""examples/own_*.py and small_vit.py: each runs, the page shows them, and IteRand does what its paper says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_parts import composed, forgotten
from helpers.runs import QUIET

import hidden_subnet as hs
from hidden_subnet.config.own_parts import import_own_parts
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute

__all__ = ["forgotten"]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = ("own_network", "own_data", "own_method", "own_metric")
QUICK = ("train.epochs=1", "train.batch_size=300", "model=conv2", "model.width=0.125", "data=digits")


def of_example(name: str, *arguments: str) -> Any:
    path = str(EXAMPLES / f"{name}.py")
    import_own_parts([path])
    return composed([path], *QUICK, *arguments)


def test_the_page_shows_the_files() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), flags=re.DOTALL)
    assert blocks == [(EXAMPLES / f"{name}.py").read_text() for name in NAMES]


def test_their_length_is_as_promised() -> None:
    lines = {name: len((EXAMPLES / f"{name}.py").read_text().splitlines()) for name in (*NAMES, "own_parts")}
    assert lines["own_method"] < 60
    assert lines["own_parts"] <= 80


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("own_network", ["model=my_net", "model.width=1"]),
        ("own_data", ["data=my_images"]),
        ("own_method", ["method=my_iterand", "method.every=2"]),
        ("own_metric", ["metrics=[calibration]"]),
        ("small_vit", ["model=small_vit", "model.width=1", "model.features=16", "init.attention_scale=2"]),
    ],
)
def test_each_example_runs(forgotten: None, tmp_path: Path, name: str, chosen: list[str]) -> None:
    outcome = execute(of_example(name, *chosen, f"out={tmp_path}"), QUIET)
    assert outcome.state == "done", outcome.message
    assert ("validation/calibration" in files.last_row(outcome.folder)) == (name == "own_metric")


@pytest.mark.slow
def test_iterand_resumes_to_the_same_bits(forgotten: None) -> None:
    hs.assert_resumes("method=my_iterand", "method.every=2", use=str(EXAMPLES / "own_method.py"))


@pytest.mark.parametrize("step", [0, 1])
def test_iterand_draws_pruned_weights_again_at_every_second_step(forgotten: None, step: int) -> None:
    config = of_example("own_method", "method=my_iterand", "method.every=2", "method.fraction=1", "init=kaiming_normal")
    layer = torch.nn.Linear(4, 50)
    method = apply_method(torch.nn.Sequential(layer), config)
    [(_, masked)] = method.layers
    before = masked.weight.clone()
    method.on_step_end(step)
    changed = masked.weight != before
    kept = masked.rule.mask(masked.scores.detach())
    assert not (changed & kept).any()
    assert set(masked.weight.flatten().tolist()) <= set(before.flatten().tolist())
    assert int(changed.sum()) == 0 if step == 0 else int(changed.sum()) > 90  # of 100 pruned weights
