"""The rule of edge-popup on four numbers: the masked weight, and the gradient that passes straight through."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.methods import config_of, network_of, take_step, trainer_of
from torch import Tensor

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.edge_popup import EdgePopupRule, Transform, masked_weight


def by_call(scores: Tensor, weight: Tensor) -> Tensor:
    return EdgePopupRule(TopKSelection(2))(scores, weight)


def recomputed(scores: Tensor, weight: Tensor) -> Tensor:
    with EdgePopupRule(TopKSelection(2)).recomputed(scores, weight) as effective:
        return effective * 1


def one_operation(scores: Tensor, weight: Tensor) -> Tensor:
    """The rule as torch.compile sees it."""
    masked: Tensor = masked_weight(scores, weight, 2)
    return masked


@pytest.mark.parametrize("rule", [by_call, recomputed, one_operation])
def test_forward_and_straight_through_gradient_written_out(rule: Callable[[Tensor, Tensor], Tensor]) -> None:
    scores = torch.tensor([0.1, -0.9, 0.5, 0.0], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, -3.0, 4.0])
    effective = rule(scores, weight)
    assert effective.tolist() == [0, 2, -3, 0]
    effective.backward(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    assert scores.grad is not None
    # gradient * weight * sign(score), for the removed weights too
    assert scores.grad.tolist() == [1, -2, -3, 0]


def test_its_mask_is_that_of_the_selection() -> None:
    rule = EdgePopupRule(TopKSelection(2))
    assert rule.mask(torch.tensor([0.1, -0.9, 0.5, 0.0])).tolist() == [False, True, True, False]


def test_a_layer_used_twice_before_the_backward() -> None:
    """The second use must not overwrite the effective weight that the first one's gradient needs."""
    scores = torch.tensor([[0.1, -0.9], [0.5, 0.2]], requires_grad=True)
    rule, weight = EdgePopupRule(TopKSelection(2)), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = torch.tensor([[1.0, -1.0]])
    for _ in range(2):  # a later step as well
        scores.grad = None
        F.linear(F.linear(x, rule(scores, weight)), rule(scores, weight)).sum().backward()
        plain = torch.tensor([[0.0, 2.0], [3.0, 0.0]], requires_grad=True)
        F.linear(F.linear(x, plain), plain).sum().backward()
        assert scores.grad is not None
        assert plain.grad is not None
        assert torch.equal(scores.grad, plain.grad * weight * torch.sign(scores.detach()))


@pytest.mark.parametrize(
    ("transform", "gradient"),
    [
        (Transform.abs, [1, -2, -3, 0]),
        (Transform.identity, [1, 2, -3, 4]),
        (Transform.sigmoid, [0.25, 0.375, -0.75, 1]),  # times p (1 - p), with p = 1/2, 3/4, 1/2, 1/2
    ],
)
def test_each_transform_written_out(transform: Transform, gradient: list[float]) -> None:
    learned = {
        Transform.abs: [0.1, -0.9, 0.5, 0.0],
        Transform.identity: [0.1, -0.9, 0.5, 0.0],
        Transform.sigmoid: [0.0, math.log(3), 0.0, 0.0],
    }[transform]
    scores = torch.tensor(learned, requires_grad=True)
    rule = EdgePopupRule(TopKSelection(2, by_value=transform is not Transform.abs), transform)
    effective = rule(scores, torch.tensor([1.0, 2.0, -3.0, 4.0]))
    kept = {
        Transform.abs: [0, 2, -3, 0],
        Transform.identity: [1, 0, -3, 0],
        Transform.sigmoid: [0, 2, 0, 4],  # of equal ones the last
    }[transform]
    assert effective.tolist() == kept
    effective.backward(torch.ones(4))
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx(gradient)


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
@pytest.mark.parametrize("transform", [Transform.identity, Transform.sigmoid])
def test_other_transforms_keep_the_highest_scores(transform: Transform, pruning: str) -> None:
    network, method = network_of(config_of("edge_popup", pruning, prune_rate=0.7, transform=transform))
    trainer = trainer_of(network, method)
    for _ in range(2):
        take_step(trainer)
    method.on_evaluation(1)
    total = 0
    for _, layer in masked_layers(network):
        scores = layer.scores.detach()
        mask = layer.rule.mask(scores)
        assert scores[mask].min() >= scores[~mask].max()
        assert torch.equal(layer.effective_weight() != 0, mask)
        total += int(mask.count_nonzero())
    sizes = [layer.scores.numel() for _, layer in masked_layers(network)]
    each = sum(kept_count(size, 0.7) for size in sizes)
    assert total == (kept_count(sum(sizes), 0.7) if pruning == "global" else each)
