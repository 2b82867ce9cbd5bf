"""Optimizer steps, written out; the authors' recipe for ImageNet in a whole run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs import QUIET
from torch import nn

from hidden_subnet.config.registries import OPTIMIZERS
from hidden_subnet.config.settings import Config, Train
from hidden_subnet.masks.layers import mask_layers
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.optim import make_optimizer, parameter_groups

Compose = Callable[..., Config]
SCHEDULES = json.loads((Path(__file__).parents[1] / "data" / "training.json").read_text())["lr_schedules"]


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.LayerNorm(3)
    )


def decays(model: nn.Module, norm_decay: bool) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.5, norm_decay)
    return {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}


def test_without_norm_decay_scales_shifts_and_biases_are_left_alone() -> None:
    model = normed()
    assert decays(model, norm_decay=True) == dict.fromkeys(dict(model.named_parameters()), 0.5)
    weights = {"0.weight": 0.5, "4.weight": 0.5}
    vectors = dict.fromkeys(["1.weight", "1.bias", "4.bias", "5.weight", "5.bias"], 0.0)
    assert decays(model, norm_decay=False) == weights | vectors


def test_scores_decay_and_what_is_frozen_is_in_no_group() -> None:
    model = normed()
    mask_layers(model)
    assert decays(model, norm_decay=False) == {"0.scores": 0.5, "4.scores": 0.5}
    assert len(parameter_groups(model, 0.5, norm_decay=False)) == 1  # no empty group


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_step_without_gradient_only_decays(optimizer: str) -> None:
    model = normed()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    train = Train(lr=0.1, weight_decay=0.5, momentum=0.0, optimizer=optimizer, norm_decay=False)
    make_optimizer(model, train).step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"0.weight", "4.weight"}
    if optimizer == "sgd":
        torch.testing.assert_close(model[0].weight.detach(), before["0.weight"] * (1 - 0.1 * 0.5))


@pytest.mark.parametrize(
    ("nesterov", "steps"),
    [
        # v = 0.875 v + g with g = 1 throughout; heavy ball moves by lr v, Nesterov by lr (g + 0.875 v)
        (False, [1.0, 1.875, 2.640625]),
        (True, [1.875, 2.640625, 3.310546875]),
    ],
)
def test_momentum_written_out(nesterov: bool, steps: list[float]) -> None:
    layer = nn.Linear(1, 1, bias=False)
    train = Train(lr=0.5, momentum=0.875, nesterov=nesterov, weight_decay=0.0)
    optimizer = make_optimizer(layer, train)
    moved = []
    for _ in steps:
        before = layer.weight.item()
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
        moved.append((before - layer.weight.item()) / 0.5)
    assert moved == pytest.approx(steps, rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "moved"),
    [
        # one step with gradient 1, at lr 0.5
        ("sgd", {}, 0.5),
        ("adam", {}, 0.5),
        ("adamw", {"eps": 1.0}, 0.25),  # lr g / (|g| + eps)
        ("adagrad", {"initial_accumulator_value": 3.0}, 0.25),  # lr g / sqrt(3 + g^2)
        ("rmsprop", {"alpha": 0.75}, 1.0),  # lr g / sqrt(0.25 g^2)
    ],
)
def test_arguments_of_an_optimizer(optimizer: str, arguments: dict[str, float], moved: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    train = Train(lr=0.5, momentum=0.0, weight_decay=0.0, optimizer=optimizer, optimizer_args=dict(arguments))
    made = make_optimizer(layer, train)
    before = layer.weight.item()
    layer.weight.grad = torch.ones(1, 1)
    made.step()
    assert before - layer.weight.item() == pytest.approx(moved, rel=1e-4)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_goes_on_from_its_state_with_the_same_bits(optimizer: str) -> None:
    train = Train(lr=0.01, weight_decay=0.01, optimizer=optimizer)

    def steps(layer: nn.Linear, made: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            layer.weight.grad = torch.randn(3, 2, generator=torch.Generator().manual_seed(step))
            made.step()

    whole, half, rest = (nn.Linear(2, 3, bias=False) for _ in range(3))
    half.load_state_dict(whole.state_dict())
    steps(whole, make_optimizer(whole, train), 0, 6)
    first = make_optimizer(half, train)
    steps(half, first, 0, 3)
    rest.load_state_dict(half.state_dict())
    second = make_optimizer(rest, train)
    second.load_state_dict(first.state_dict())
    steps(rest, second, 3, 6)
    assert torch.equal(rest.weight, whole.weight)


def test_the_imagenet_recipe_has_the_authors_learning_rates(compose: Compose, tmp_path: Path) -> None:
    """Five epochs of warm-up, then cosine, in a run's own record; with its momentum, decay and label smoothing."""
    [case] = [each for each in SCHEDULES if each["warmup_epochs"] == 5]
    config = compose(
        "data=synthetic", "data.validation=0", "model=fc", "model.width=0.1", "tracker=none", f"out={tmp_path}",
        "train.epochs=100", "train.batch_size=512", "train.lr=0.256", "train.warmup_epochs=5", "train.momentum=0.875",
        "train.weight_decay=3.0517578125e-05", "train.label_smoothing=0.1",
    )  # fmt: skip
    folder = execute(config, QUIET).folder
    rows = files.read_rows(folder)[1:]
    assert [row["lr"] for row in rows] == pytest.approx(case["values"], rel=1e-6)
    assert rows[-1]["train/loss"] > 0.5  # smoothing over ten classes: no loss is below its entropy, 0.5 nats
