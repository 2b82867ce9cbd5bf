"""The time of runs that nobody has done yet."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hidden_subnet.config.settings import Config
from hidden_subnet.report import estimate
from hidden_subnet.report.estimate import EPOCH_SECONDS, estimates, seconds
from hidden_subnet.report.plan import print_plan
from hidden_subnet.training.speed import Speed, look

Compose = Callable[..., Config]
SPEED = Speed(trained=1.0, evaluated=0.01)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # digits: 1,437 training images, of which 144 are held out, and 360 test images
        (["train.epochs=1"], 1293 + 1.44 + 0.03 + 4 * 3.60),
        (["train.epochs=3"], 3 * (1293 + 1.44 + 0.03) + 4 * 3.60),
        (["train.epochs=1", "data.validation=0"], 1437 + 0.03 + 4 * 3.60),
        (["train.epochs=1", "data.fraction=0.5"], 646 + 1.44 + 0.03 + 4 * 3.60),
        (["train.epochs=1", "data.one_batch=true"], 64 + 1.44 + 0.03 + 4 * 3.60),
        (["method=random"], 2 * 3.60),  # nothing is trained
    ],
)
def test_seconds_are_those_of_all_images(compose: Compose, asked: list[str], expected: float) -> None:
    assert seconds(compose("data=digits", *asked), SPEED) == pytest.approx(expected)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hidden_subnet" / "speed.json"


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random", "snip", "gem_miner", "multicoat"])
@pytest.mark.parametrize(("model", "pruning"), [("fc", "global"), ("cifar_resnet18", "layerwise")])
def test_every_step_takes_time(compose: Compose, method: str, model: str, pruning: str) -> None:
    speed = look(
        compose(f"model={model}", f"pruning={pruning}", "model.width=0.1", f"method={method}", "train.batch_size=8"),
        "cpu",
    )
    assert 0 < speed.evaluated < 1
    assert 0 < speed.trained < 1 or method == "random"


def test_a_network_is_measured_once(compose: Compose, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [compose("model.width=0.1", f"seed={seed}") for seed in range(3)]
    first = estimates(configs, 1)
    assert first[0] is not None
    assert first == [first[0]] * 3
    monkeypatch.setattr(estimate, "look", None)  # would be an error
    assert estimates(configs, 1) == first
    assert estimates([compose("model.width=0.1", "train.epochs=30")], 1)[0] == pytest.approx(2 * first[0], rel=0.2)
    own_cache.write_text("[damaged")
    assert estimates(configs, 1) == [None] * 3


def test_networks_that_there_is_no_time_for_follow_from_their_operations(
    compose: Compose, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (compose(f"model.width={width}", "train.epochs=100") for width in (0.1, 0.4))
    [alone] = estimates([small], 1)
    assert alone is not None
    monkeypatch.setattr(estimate, "MOST_SECONDS", 0.0)
    both = estimates([small, large], 1)
    assert both[0] == alone
    assert both[1] is not None
    # Of conv2, most operations are in its second conv layer: nearly 16 times as many at 4 times the width.
    fixed = 100 * EPOCH_SECONDS
    assert 10 < (both[1] - fixed) / (alone - fixed) < 16


def test_a_run_on_several_devices_has_none(compose: Compose, own_cache: Path) -> None:
    assert estimates([compose("model.width=0.1", "train.devices=2")], 1) == [None]


def test_a_network_that_cannot_be_measured_has_none(
    compose: Compose, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(config: Config, device: str) -> Speed:
        raise MemoryError

    monkeypatch.setattr(estimate, "look", too_large)
    assert estimates([compose("model.width=0.1")], 1) == [None]


def test_a_plan_marks_it(compose: Compose, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan([compose(f"out={own_cache.parent / 'runs'}", "model.width=0.1")])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 run to execute; estimated from a few steps (~): 1 at a time " in said
    assert " ~" in said


def test_a_cluster_is_not_this_machine(compose: Compose, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configs = [compose(f"out={own_cache.parent / 'runs'}", f"seed={seed}") for seed in (0, 1)]
    print_plan(configs, 2, lambda tasks: "Slurm: tasks")
    assert "there is no similar finished run to estimate the time from" in capsys.readouterr().out
    assert not os.path.exists(own_cache)
