"""Whether a trained network guesses, and which of its layers is dead."""

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hidden_subnet.config.settings import Config
from hidden_subnet.store import files
from hidden_subnet.training.callbacks import Callbacks
from hidden_subnet.training.collapse import at_chance, chance, dead_layer
from hidden_subnet.training.run import run


@pytest.mark.parametrize(
    ("top1", "images", "expected"),
    # 100 images of 10 classes: chance 0.1, deviation sqrt(0.09 / 100) = 0.03, so the bound is 0.19.
    [(0.0, 100, True), (0.1, 100, True), (0.19, 100, True), (0.2, 100, False), (0.11, 10_000, False)],
)
def test_at_chance(top1: float, images: int, expected: bool) -> None:
    assert at_chance(top1, 0.1, images) is expected


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 1, 2, 3], 4, 0.25),
        ([0, 1, 1, 1], 2, 0.75),  # whoever always says 1 is right three times in four
        ([0, 0, 0, 1], 10, 0.75),
        ([0, 1, 2, 3], 10, 0.25),  # classes without a test image
    ],
)
def test_chance_is_at_least_the_share_of_the_largest_class(labels: list[int], classes: int, expected: float) -> None:
    assert chance(torch.tensor(labels), classes) == expected


def network(first: list[list[float]], second: list[list[float]]) -> nn.Sequential:
    layers = [nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)]
    for layer, weight in zip(layers, (first, second), strict=True):
        layer.weight = nn.Parameter(torch.tensor(weight))
    return nn.Sequential(OrderedDict(a=layers[0], a_relu=nn.ReLU(), b=layers[1]))


def images(*pixels: tuple[float, float]) -> list[tuple[Tensor, Tensor]]:
    """Give each image as a batch of its own: what is constant within the batches may differ between them."""
    return [(torch.tensor([each]), torch.tensor([0])) for each in pixels]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], None),
        ([[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], "a"),
        # Never positive on images with positive pixels: the ReLU behind it is 0.
        ([[-1.0, 0.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, 1.0]], "a"),
        ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], "b"),
        # One unit is dead, the other is not.
        ([[-1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]], None),
        # ... and the next layer looks at the dead one alone.
        ([[-1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [2.0, 0.0]], "b"),
    ],
)
def test_the_first_dead_layer_is_named(
    first: list[list[float]], second: list[list[float]], expected: str | None
) -> None:
    model = network(first, second)
    assert dead_layer(model, images((1.0, 2.0), (2.0, 1.0), (3.0, 5.0))) == expected
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_sees_a_constant_pixel_alone_is_dead() -> None:
    model = network([[0.3, 0.0], [0.7, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    assert dead_layer(model, images((math.pi, 2.0), (math.pi, 1.0))) == "a"
    assert dead_layer(model, images((math.pi, 2.0), (3.0, 1.0))) is None


COLLAPSING = ("data=synthetic", "model=fc", "train.epochs=1", "tracker=none")


def test_a_run_with_next_to_no_weights_collapses(compose: Callable[..., Config], tmp_path: Path) -> None:
    # Layers of 30, 10 and 10 units: the second keeps one of its 300 weights.
    config = compose(*COLLAPSING, "model.width=0.1", "prune_rate=0.999")
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    result = run(config, folder, Callbacks())
    assert (result["collapsed"], result["dead_layer"]) == (True, "fc2")
    assert files.read_result(folder) == result


@pytest.mark.parametrize(("method", "rate"), [("edge_popup", "0.5"), ("random", "0.999")])
def test_a_run_that_learns_or_is_not_trained_has_not_collapsed(
    compose: Callable[..., Config], tmp_path: Path, method: str, rate: str
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    result = run(compose(*COLLAPSING, f"method={method}", f"prune_rate={rate}"), folder, Callbacks())
    assert (result["collapsed"], result["dead_layer"]) == (False, None)
