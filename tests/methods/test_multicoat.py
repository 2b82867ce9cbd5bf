"""Multicoated supermasks: nested masks on a few numbers, and that one coat is edge_popup."""

from itertools import pairwise

import pytest
import torch
from helpers.methods import after_steps, config_of, network_of

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.edge_popup import EdgePopupRule
from hidden_subnet.methods.multicoat import CoatSelection, coat_rates

SCORES = [0.1, -0.9, 0.5, 0.0]
WEIGHT = [1.0, 2.0, -3.0, 4.0]


@pytest.mark.parametrize(
    ("keeps", "scores", "expected"),
    [
        ([2], SCORES, [0, 2, -3, 0]),
        ([2, 1], SCORES, [0, 4, -3, 0]),
        ([4, 2, 1], SCORES, [1, 6, -6, 4]),
        ([1, 1, 1], SCORES, [0, 6, 0, 0]),
        ([4, 4], SCORES, [2, 4, -6, 8]),
        ([3, 1], [0.5, 0.5, 0.5, 0.5], [0, 2, -3, 8]),  # of equal ones the last are kept, in every coat
    ],
)
def test_forward_and_gradient_written_out(keeps: list[int], scores: list[float], expected: list[float]) -> None:
    learned = torch.tensor(scores, requires_grad=True)
    rule = EdgePopupRule(CoatSelection([TopKSelection(keep) for keep in keeps]))
    effective = rule(learned, torch.tensor(WEIGHT))
    assert effective.tolist() == expected
    assert rule.mask(learned.detach()).tolist() == [each != 0 for each in expected]
    effective.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert learned.grad is not None
    signs = torch.sign(learned.detach()).tolist()
    assert learned.grad.tolist() == [g * w * s for g, w, s in zip([1, 10, 100, 1000], WEIGHT, signs, strict=True)]


def test_coat_rates() -> None:
    assert coat_rates(0.7, 3, 0.5) == pytest.approx([0.7, 0.85, 0.925])
    assert coat_rates(0.7, 1, 0.5) == pytest.approx([0.7])
    assert coat_rates(0.0, 2, 0.1) == pytest.approx([0, 0.9])


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_one_coat_is_edge_popup(pruning: str) -> None:
    first = after_steps(config_of("multicoat", pruning, coats=1), 2)
    second = after_steps(config_of("edge_popup", pruning), 2)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_each_coat_keeps_its_share_of_the_one_below(pruning: str) -> None:
    network, method = network_of(config_of("multicoat", pruning, init="signed_constant", coats=3, ratio=0.2))
    counts = [0, 0, 0]
    total = 0
    for _, layer in masked_layers(network):
        worn = (layer.effective_weight() / layer.weight).detach().round()
        assert torch.equal(layer.effective_weight().detach(), worn * layer.weight)
        coats = [worn > coat for coat in range(3)]
        assert torch.equal(coats[0], layer.rule.mask(layer.scores.detach()))
        for below, above in pairwise(coats):
            assert not (above & ~below).any()
        if pruning == "layerwise":
            expected = [kept_count(worn.numel(), rate) for rate in coat_rates(0.5, 3, 0.2)]
            assert [int(coat.sum()) for coat in coats] == expected
        counts = [count + int(coat.sum()) for count, coat in zip(counts, coats, strict=True)]
        total += worn.numel()
    if pruning == "global":
        assert counts == [kept_count(total, rate) for rate in coat_rates(0.5, 3, 0.2)]
    method.on_epoch_start(0)
