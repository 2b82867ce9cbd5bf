"""Weights trained under a fixed random mask: the rule on four numbers, and the mask of `random`."""

import pytest
import torch
from helpers.methods import config_of, network_of, take_step, trainer_of, values

from hidden_subnet.config.registries import ALLOCATIONS
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.random_trained import FixedMaskRule, under_mask

WEIGHT = [[1.0, -2.0], [3.0, -4.0]]


def test_written_out() -> None:
    assert under_mask(torch.tensor(WEIGHT), torch.tensor([[1, 0], [0, 1]])).tolist() == [[1, 0], [0, -4]]
    scores = torch.tensor([[0.9, -0.1], [0.2, -0.8]], requires_grad=True)
    weight = torch.tensor(WEIGHT, requires_grad=True)
    rule = FixedMaskRule(TopKSelection(2))
    effective = rule(scores, weight)
    assert effective.tolist() == [[1, 0], [0, -4]]
    effective.backward(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    assert scores.grad is None
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 0], [0, 1000]]
    weight.detach()[0, 1] = 77.0  # whatever a removed weight becomes has no effect
    assert rule(scores, weight).tolist() == [[1, 0], [0, -4]]


@pytest.mark.parametrize("pruning", ALLOCATIONS)
def test_it_has_the_mask_of_random_and_removed_weights_rest(pruning: str) -> None:
    fixed, _ = network_of(config_of("random", pruning))
    network, method = network_of(config_of("random_trained", pruning))
    masks, before = current_masks(network), values(network)
    assert all(torch.equal(mask, current_masks(fixed)[path]) for path, mask in masks.items())
    trainer = trainer_of(network, method, weight_decay=0.0)
    for _ in range(3):
        take_step(trainer)
    for path, layer in masked_layers(network):
        assert torch.equal(layer.weight[~masks[path]], before[f"{path}.weight"][~masks[path]])
        assert torch.equal(layer.effective_weight() != 0, masks[path])
    assert any(not torch.equal(layer.weight, before[f"{path}.weight"]) for path, layer in masked_layers(network))
