"""IteRand: which weights are drawn again, when, and that this follows from the seed, the step and the layer alone."""

import math

import pytest
import torch
from helpers.methods import after_steps, config_of, network_of
from torch import Tensor, nn

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.edge_popup import Transform
from hidden_subnet.methods.iterand import redrawn


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, [1, 2, 3, 4]), (0.2, [1, 2, 3, 40]), (0.6, [1, 2, 30, 40]), (1.0, [1, 20, 30, 40])],
)
def test_written_out(fraction: float, expected: list[float]) -> None:
    weight, fresh = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 20.0, 30.0, 40.0])
    mask = torch.tensor([True, False, False, False])
    chance = torch.tensor([0.0, 0.9, 0.5, 0.1])
    assert redrawn(weight, mask, chance, fraction, fresh).tolist() == expected


def prepared(pruning: str = "layerwise", **settings: float) -> tuple[nn.Module, Method, dict[str, Tensor]]:
    network, method = network_of(config_of("iterand", pruning, every=3, **settings))
    weights = {path: layer.weight.detach().clone() for path, layer in masked_layers(network)}
    return network, method, weights


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_removed_weights_are_drawn_again_after_every_third_step(pruning: str) -> None:
    network, method, before = prepared(pruning, fraction=1.0)
    for step in (0, 1):
        method.on_step_end(step)
    layers = dict(masked_layers(network))
    assert all(torch.equal(layer.weight, before[path]) for path, layer in layers.items())
    method.on_step_end(2)
    masks = current_masks(network)
    for path, layer in layers.items():
        assert torch.equal(layer.weight[masks[path]], before[path][masks[path]])
        assert not (layer.weight == before[path])[~masks[path]].any()
        assert layer.weight[~masks[path]].std() == pytest.approx(before[path].std(), rel=0.5)


def test_a_weight_is_drawn_again_with_its_probability() -> None:
    network, method, before = prepared(fraction=0.1)
    method.on_step_end(2)
    masks, layers = current_masks(network), dict(masked_layers(network))
    removed = sum(int((~mask).sum()) for mask in masks.values())
    changed = sum(int((layer.weight != before[path]).sum()) for path, layer in layers.items())
    assert changed / removed == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / removed))


def test_the_draws_are_those_of_the_step_and_the_layer() -> None:
    found = []
    for steps in [(2,), (2,), (5,), (2, 2)]:
        network, method, _ = prepared(fraction=0.5)
        for step in steps:
            method.on_step_end(step)
        found.append([layer.weight.detach() for _, layer in masked_layers(network)])
    first, again, later, twice = found
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, first, twice))
    assert not any(map(torch.equal, first, later))


def test_without_a_draw_it_is_edge_popup_without_the_absolute_value() -> None:
    first = after_steps(config_of("iterand", every=100), 2)
    second = after_steps(config_of("edge_popup", transform=Transform.identity), 2)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
