"""biprop: the rule on four numbers, its alpha, and that it is edge_popup where all weights have one magnitude."""

import pytest
import torch
from helpers.methods import batch, config_of, network_of, take_step, trainer_of, values
from torch import Tensor

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.methods.biprop import BipropRule, binary_weight

SCORES = [0.1, -0.9, 0.5, 0.0]
WEIGHT = [1.0, 2.0, -3.0, 4.0]


@pytest.mark.parametrize(
    ("keep", "scores", "expected"),
    [
        (1, SCORES, [0, 2, 0, 0]),
        (2, SCORES, [0, 2.5, -2.5, 0]),  # (2 + 3) / 2
        (4, SCORES, [2.5, 2.5, -2.5, 2.5]),
        (2, [0.5, -0.5, 0.5, -0.5], [0, 0, -3.5, 3.5]),  # of equal ones the last are kept
    ],
)
def test_forward_and_gradient_written_out(keep: int, scores: list[float], expected: list[float]) -> None:
    learned, weight = torch.tensor(scores, requires_grad=True), torch.tensor(WEIGHT)
    rule = BipropRule(TopKSelection(keep))
    effective = rule(learned, weight)
    assert effective.tolist() == expected
    assert rule.mask(learned.detach()).tolist() == [each != 0 for each in expected]
    effective.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert learned.grad is not None
    # gradient * weight * sign(score), the same for kept and removed weights: alpha has no part in it
    signs = torch.sign(learned.detach()).tolist()
    assert learned.grad.tolist() == [g * w * s for g, w, s in zip([1, 10, 100, 1000], WEIGHT, signs, strict=True)]


def test_a_dead_layer_stays_finite() -> None:
    """Kept weights of 0 have alpha 0, and 0 weights among the kept ones count for K."""
    keep_first = torch.tensor([1.0, 1.0, 0.0])
    assert binary_weight(torch.zeros(3), lambda weight: weight * keep_first, 2).tolist() == [0, 0, 0]
    assert binary_weight(torch.tensor([0.0, -3.0, 5.0]), lambda w: w * keep_first, 2).tolist() == [0, -1.5, 0]


def test_alpha_of_many_equal_weights_is_their_magnitude() -> None:
    """In float32, the sum of 2^20 times 0.1 is off by more than a thousandth."""
    weight = torch.full((1 << 20,), 0.1)
    assert torch.equal(binary_weight(weight, lambda each: each, 1 << 20), weight)


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_it_is_edge_popup_where_all_weights_have_one_magnitude(pruning: str) -> None:
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for name in ("edge_popup", "biprop"):
        network, method = network_of(config_of(name, pruning, init="signed_constant", prune_rate=0.7))
        trainer = trainer_of(network, method)
        method.on_epoch_start(0)
        for _ in range(3):
            take_step(trainer)
        method.on_evaluation(1)
        found.append((network(batch()[0]), values(network)))
    (logits, scores), (other, others) = found
    assert torch.equal(logits, other)
    assert all(torch.equal(value, others[name]) for name, value in scores.items())


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_each_layer_has_two_magnitudes(pruning: str) -> None:
    network, _ = network_of(config_of("biprop", pruning, init="kaiming_normal"))
    for _, layer in masked_layers(network):
        kept = layer.rule.mask(layer.scores.detach())
        effective = layer.effective_weight().detach()
        expected = layer.weight[kept].abs().double().mean().float()
        assert torch.equal(effective, torch.where(kept, expected * torch.sign(layer.weight), 0.0))
