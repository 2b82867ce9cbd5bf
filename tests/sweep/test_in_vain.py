"""Each thing that a command asks for in vain is answered in one line, which says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hidden_subnet.config.settings import Config
from hidden_subnet.store import files
from hidden_subnet.sweep.in_vain import in_vain

Compose = Callable[..., Config]

TRACE = "train.profile=true: no trace is written of 1 run finished before; add force=true to run again with a trace"
KEEP = "checkpoint.every=2: no epoch is kept of 1 run finished before; add force=true to run again and keep them"
NOTHING = (
    "removes no weight, so method=edge_popup has nothing to choose: 1 run will only measure the random network; "
    "method=random does so without training"
)


def lines(configs: list[Config]) -> list[str]:
    return list(in_vain(configs, [files.folder_of(config) for config in configs]))


@pytest.mark.parametrize(
    ("overrides", "left", "said"),
    [
        ("", ["result.json"], []),
        ("train.profile=true", [], []),
        ("train.profile=true", ["result.json"], [TRACE]),
        ("train.profile=true", ["result.json", "profile.json"], []),
        ("train.profile=true force=true", ["result.json"], []),
        ("train.profile=true method=random", [], ["train.profile=true: method=random takes no training step to trace"]),
        ("checkpoint.every=2", ["result.json"], [KEEP]),
        ("checkpoint.every=2", ["result.json", "checkpoints/epoch_2.ckpt"], []),
        ("checkpoint.every=20", ["result.json"], []),  # after the last of 15 epochs
        ("prune_rate=0", [], [f"prune_rate=0 {NOTHING}"]),
        ("prune_rate=1e-9", [], [f"prune_rate=1e-09 {NOTHING}"]),
        ("prune_rate=1e-5", [], []),  # 3 of 367,680 weights
        ("prune_rate=0", ["result.json"], []),
        ("prune_rate=0 method=random", [], []),
        ("prune_rate=0 method=dnw init=kaiming_normal", [], []),  # which trains weights
        ("prune_rate=0 method=warmup_then_prune", [], []),
        ("prune_rate=0 method=sampled", [], []),
    ],
)
def test_lines(overrides: str, left: list[str], said: list[str], compose: Compose, tmp_path: Path) -> None:
    config = compose(*overrides.split(), f"out={tmp_path}")
    for name in left:
        path = files.folder_of(config) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert lines([config]) == said


def test_runs_of_a_sweep_share_a_line(compose: Compose) -> None:
    configs = [compose("prune_rate=0", f"seed={seed}") for seed in range(3)] + [compose("prune_rate=0.5")]
    (line,) = lines(configs)
    assert "3 runs will only measure" in line
