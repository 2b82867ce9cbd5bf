"""Weights train densely, then edge-popup searches them: the rule on four numbers, and what moves in which phase."""

import torch
from helpers.methods import config_of, network_of, take_step, trainer_of, values

from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.warmup_then_prune import WarmupRule

WEIGHT = [[1.0, -2.0], [3.0, -4.0]]


def test_written_out() -> None:
    scores = torch.tensor([[0.9, -0.1], [0.2, -0.8]], requires_grad=True)
    weight = torch.tensor(WEIGHT, requires_grad=True)
    gradient = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    rule = WarmupRule(TopKSelection(2))
    assert rule.mask(scores).all()
    effective = rule(scores, weight)
    assert effective.tolist() == WEIGHT
    (effective * 1).backward(gradient)
    assert scores.grad is None
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 10], [100, 1000]]
    rule.dense, weight.grad = False, None
    effective = rule(scores, weight)
    assert effective.tolist() == [[1, 0], [0, -4]]
    assert rule.mask(scores).tolist() == [[True, False], [False, True]]
    effective.backward(gradient)
    assert weight.grad is None
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1, 20], [300, 4000]]  # gradient * weight * sign(score): edge-popup's


def test_weights_train_and_then_scores() -> None:
    network, method = network_of(config_of("warmup_then_prune", weight_epochs=2))
    trainer, moved = trainer_of(network, method), []
    for epoch in range(4):
        before = values(network)
        method.on_epoch_start(epoch)
        take_step(trainer)
        after = values(network)
        moved.append({name.rpartition(".")[2] for name, old in before.items() if not torch.equal(after[name], old)})
        method.on_evaluation(epoch + 1)
        kept = sum(int(mask.count_nonzero()) for mask in current_masks(network).values())
        total = sum(mask.numel() for mask in current_masks(network).values())
        assert (kept < total) == (epoch >= 2)
    assert moved == [{"weight"}, {"weight"}, {"scores"}, {"scores"}]
    assert method.first_rated_epoch == 3
