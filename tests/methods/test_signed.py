"""Signed supermasks: the rule on a few numbers, exact K, and the fixed threshold of the paper."""

import pytest
import torch
from helpers.methods import config_of, network_of
from torch import Tensor

from hidden_subnet.config.identity import projection
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import FixedThreshold, LayerSelection, TopKSelection
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.signed import SignedRule, signed_weight

SCORES = [0.1, -0.9, 0.5, 0.0]
WEIGHT = [1.0, 2.0, -3.0, 4.0]


@pytest.mark.parametrize(
    ("selection", "scores", "expected"),
    [
        (TopKSelection(1), SCORES, [0, -2, 0, 0]),
        (TopKSelection(2), SCORES, [0, -2, -3, 0]),
        (TopKSelection(4), SCORES, [1, -2, -3, 4]),  # 0 counts as positive
        (TopKSelection(2), [-0.5, 0.5, -0.5, 0.5], [0, 0, 3, 4]),  # of equal ones the last are kept
        (FixedThreshold(0.1), SCORES, [0, -2, -3, 0]),  # 0.1 is not above it
        (FixedThreshold(0.0), SCORES, [1, -2, -3, 0]),
        (FixedThreshold(1.0), SCORES, [0, 0, 0, 0]),
    ],
)
def test_forward_and_gradient_written_out(
    selection: LayerSelection, scores: list[float], expected: list[float]
) -> None:
    learned, weight = torch.tensor(scores, requires_grad=True), torch.tensor(WEIGHT)
    effective = SignedRule(selection)(learned, weight)
    assert effective.tolist() == expected
    assert SignedRule(selection).mask(learned.detach()).tolist() == [each != 0 for each in expected]
    effective.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert learned.grad is not None
    assert learned.grad.tolist() == [1, 20, -300, 4000]  # gradient * weight, whatever is kept


def effective(method: str, **settings: float) -> dict[str, Tensor]:
    network, _ = network_of(config_of(method, init="signed_constant", **settings))
    return {path: layer.effective_weight().detach() for path, layer in masked_layers(network)}


def test_it_keeps_what_edge_popup_keeps_and_turns_the_signs_of_the_scores() -> None:
    plain, signed = effective("edge_popup"), effective("signed")
    network, _ = network_of(config_of("signed"))
    for path, layer in masked_layers(network):
        assert torch.equal(signed[path], plain[path] * torch.sign(layer.scores))


def test_a_fixed_threshold_has_no_prune_rate() -> None:
    config = config_of("signed", threshold=0.05)
    network, method = network_of(config)
    assert method.allocation is None
    assert {"prune_rate", "pruning"}.isdisjoint(projection(config))
    assert {"prune_rate", "pruning"} <= projection(config_of("signed")).keys()
    for path, mask in current_masks(network).items():
        assert torch.equal(mask, dict(masked_layers(network))[path].scores.abs() > 0.05)


def test_the_sign_of_a_score_turns_that_of_the_weight_to_the_bit() -> None:
    scores = torch.tensor([0.5, -0.5, 0.0, -0.0, -1e-45, -2.0, -2.0, -3e38])
    weight = torch.tensor([1.0, 1.0, -1.0, -1.0, 1e-45, 0.0, -0.0, 3e38])
    found = signed_weight(scores, weight, lambda weight: weight)
    expected = torch.tensor([1.0, -1.0, -1.0, -1.0, -1e-45, -0.0, 0.0, -3e38])
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
