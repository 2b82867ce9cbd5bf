"""Gem-Miner: the rule and the clipping on a few numbers, and scores that are frozen until exactly K are left."""

from dataclasses import replace

import pytest
import torch
from helpers.methods import config_of, network_of, take_step, trainer_of

from hidden_subnet.config.settings import Config, Pruning, Train
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.gem_miner import LEAST, GemMinerRule, clip

SCORES = [0.2, 0.9, 0.5, 0.0]
WEIGHT = [1.0, 2.0, -3.0, 4.0]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.5, [0, 2, 0, 0]), (0.0, [1, 2, -3, 0]), (None, [0, 2, -3, 0])],  # None: the selection, here the two largest
)
def test_forward_and_gradient_written_out(threshold: float | None, expected: list[float]) -> None:
    learned = torch.tensor(SCORES, requires_grad=True)
    rule = GemMinerRule(TopKSelection(2))
    rule.threshold = threshold
    effective = rule(learned, torch.tensor(WEIGHT))
    assert effective.tolist() == expected
    assert rule.mask(learned.detach()).tolist() == [each != 0 for each in expected]
    effective.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert learned.grad is not None
    assert learned.grad.tolist() == [1, 20, -300, 0]  # gradient * weight; a frozen score has none


def test_scores_are_clipped_and_frozen_ones_stay() -> None:
    scores = torch.tensor([1.5, -0.3, 0.4, 0.7])
    clip(scores, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert scores[[0, 3]].tolist() == [1, 0]
    assert scores[2].item() == pytest.approx(0.4)
    assert scores[1].item() == LEAST


def four_epochs(pruning: str, every: int = 1, **more: int) -> Config:
    config = config_of("gem_miner", pruning, prune_rate=0.973, every=every)
    return replace(config, train=Train(epochs=4), pruning=Pruning(name=pruning, **more))


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
@pytest.mark.parametrize("every", [1, 2])
def test_the_scores_that_are_left_fall_geometrically_to_k(pruning: str, every: int) -> None:
    """0.027 is 0.3 cubed, so that each of the epochs 1, 2, 3 leaves three in ten."""
    network, method = network_of(four_epochs(pruning, every))
    trainer = trainer_of(network, method, lr=10.0)
    layers = dict(masked_layers(network))
    sizes = {path: layer.scores.numel() for path, layer in layers.items()}
    frozen = {path: torch.zeros_like(layer.scores, dtype=torch.bool) for path, layer in layers.items()}
    for epoch in range(4):
        method.on_epoch_start(epoch)
        for _ in range(2):
            take_step(trainer)
            method.on_epoch_start(epoch)  # as a resumed run does
            rate = 1 - 0.3 ** (epoch - epoch % every if epoch < 3 else 3)
            left = {path: int(layer.scores.count_nonzero()) for path, layer in layers.items()}
            if pruning == "layerwise":
                assert left == {path: kept_count(size, rate) for path, size in sizes.items()}
            else:
                assert sum(left.values()) == kept_count(sum(sizes.values()), rate)
            for path, layer in layers.items():
                assert not layer.scores[frozen[path]].any()
                assert layer.scores.min() >= 0
                assert layer.scores.max() <= 1
        frozen = {path: layer.scores == 0 for path, layer in layers.items()}
        method.on_evaluation(epoch + 1)
        for path, mask in current_masks(network).items():
            assert torch.equal(mask, ~frozen[path] if epoch == 3 else layers[path].scores > 0.5)
    assert method.first_rated_epoch == 4


def test_the_first_scores_are_uniform_and_an_evaluation_freezes_none() -> None:
    network, method = network_of(four_epochs("global"))
    for _, layer in masked_layers(network):
        assert layer.scores.min() > 0
        assert layer.scores.max() <= 1
        if layer.scores.numel() > 1000:
            assert layer.scores.mean().item() == pytest.approx(0.5, abs=0.05)
            assert layer.scores.std().item() == pytest.approx(12**-0.5, abs=0.02)
    before = {path: layer.scores.detach().clone() for path, layer in masked_layers(network)}
    method.on_evaluation(4)
    sizes = [value.numel() for value in before.values()]
    assert sum(int(mask.sum()) for mask in current_masks(network).values()) == kept_count(sum(sizes), 0.973)
    method.on_evaluation(0)
    for path, layer in masked_layers(network):
        assert torch.equal(layer.scores, before[path])
        assert torch.equal(layer.rule.mask(layer.scores.detach()), before[path] > 0.5)


def test_a_ramp_says_when_k_is_reached() -> None:
    network, method = network_of(four_epochs("layerwise", ramp_epochs=1))
    assert method.first_rated_epoch == 2
    method.on_epoch_start(1)
    for _, layer in masked_layers(network):
        assert int(layer.scores.count_nonzero()) == kept_count(layer.scores.numel(), 0.973)
