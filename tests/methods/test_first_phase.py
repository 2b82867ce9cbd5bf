"""SNIP, GraSP and SynFlow: their scores on a few numbers, and what they leave as it was; magnitude pruning."""

import math

import pytest
import torch
from helpers.methods import batch, config_of, network_of, take_step, trainer_of, values
from torch import Tensor, nn

from hidden_subnet.masks.layers import mask_layers, masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.first_phase import set_scores
from hidden_subnet.methods.grasp import grasp_scores
from hidden_subnet.methods.magnitude import MagnitudeRule
from hidden_subnet.methods.snip import snip_scores
from hidden_subnet.methods.synflow import synflow_scores

LN3 = math.log(3)
IMAGE, LABEL = torch.ones(1, 1), torch.tensor([0])


def two_logits(*weights: float) -> nn.Module:
    """Logits are the two weights times the pixel."""
    network = nn.Sequential(nn.Linear(1, 2, bias=False))
    network[0].weight.detach().copy_(torch.tensor(weights)[:, None])  # type: ignore[operator]
    mask_layers(network)
    masked_layers(network)[0][1].weight.requires_grad_()
    return network


def test_snip_written_out() -> None:
    """softmax(1 + ln 3, 1) = (3/4, 1/4), so that the gradient for label 0 is (-1/4, 1/4)."""
    network = two_logits(1 + LN3, 1.0)
    [scores] = snip_scores(network, masked_layers(network), [(IMAGE, LABEL)])
    assert scores.flatten().tolist() == pytest.approx([(1 + LN3) / 4, 1 / 4])
    [both] = snip_scores(network, masked_layers(network), [(IMAGE, LABEL), (IMAGE, torch.tensor([1]))])
    assert both.flatten().tolist() == pytest.approx([(1 + LN3) / 2, 1 / 2])  # (-1/4, 1/4) + (3/4, -3/4)
    assert snip_scores(two_logits(0.0, 0.0), masked_layers(two_logits(0.0, 0.0)), [])[0].tolist() == [[0], [0]]


def test_grasp_written_out() -> None:
    """H = 3/16 (1, -1; -1, 1) and g = (-1/4, 1/4), so that H g = (-3/32, 3/32)."""
    network = two_logits(1 + LN3, 1.0)
    [scores] = grasp_scores(network, masked_layers(network), [(IMAGE, LABEL)], 1.0)
    assert scores.flatten().tolist() == pytest.approx([-3 / 32 * (1 + LN3), 3 / 32])
    halved = two_logits(
        2 * (1 + LN3), 2.0
    )  # the same logits at temperature 2: H g has a factor of 1/8, the weights of 2
    [scores] = grasp_scores(halved, masked_layers(halved), [(IMAGE, LABEL)], 2.0)
    assert scores.flatten().tolist() == pytest.approx([-3 / 32 * (1 + LN3) / 4, 3 / 32 / 4])


def test_synflow_written_out() -> None:
    """With |weights|, an image of ones gives (3, 3) and then 1 * 3 + 4 * 3 = 15, which each layer shares out."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
        network[2].weight.copy_(torch.tensor([[1.0, -4.0]]))
    mask_layers(network)
    layers = masked_layers(network)
    for _, layer in layers:
        layer.weight.requires_grad_()
    everything = [torch.ones_like(layer.weight, dtype=torch.bool) for _, layer in layers]
    one, two = synflow_scores(network, layers, everything, torch.ones(1, 2))
    assert one.tolist() == [[1, 2], [12, 0]]
    assert two.tolist() == [[3, 12]]
    everything[0][0, 1] = False
    one, two = synflow_scores(network, layers, everything, torch.ones(1, 2))
    assert one.tolist() == [[1, 0], [12, 0]]
    assert two.tolist() == [[1, 12]]
    assert [layer.weight.tolist() for _, layer in layers] == [[[1, -2], [3, 0]], [[1, -4]]]


def test_scores_are_divided_by_the_largest() -> None:
    network = two_logits(1.0, 1.0)
    set_scores(masked_layers(network), [torch.tensor([[1e300], [-5e299]], dtype=torch.float64)])
    assert masked_layers(network)[0][1].scores.tolist() == [[1], [-0.5]]
    set_scores(masked_layers(network), [torch.zeros(2, 1)])
    assert masked_layers(network)[0][1].scores.tolist() == [[0], [0]]


@pytest.mark.parametrize("pruning", ["layerwise", "global", "erk"])
@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_a_first_phase_leaves_all_but_the_mask(name: str, pruning: str) -> None:
    settings = {"rounds": 5} if name == "synflow" else {"batches": 2}
    config = config_of(name, pruning, "cifar_resnet18" if pruning == "global" else "conv2", prune_rate=0.8, **settings)
    network, method = network_of(config)
    before, buffers = values(network), [each.clone() for each in network.buffers()]
    first = current_masks(network)
    method.prepare(iter([batch(0), batch(1), batch(2)]))
    method.on_evaluation(0)
    masks = current_masks(network)
    sizes = [mask.numel() for mask in masks.values()]
    total = sum(int(mask.count_nonzero()) for mask in masks.values())
    each = sum(kept_count(size, 0.8) for size in sizes)
    assert total == (each if pruning == "layerwise" else kept_count(sum(sizes), 0.8))
    assert not all(torch.equal(mask, first[path]) for path, mask in masks.items())
    after = values(network)
    assert all(torch.equal(after[key], value) for key, value in before.items() if not key.endswith("scores"))
    assert all(value.dtype == torch.float32 for value in after.values())
    assert all(map(torch.equal, network.buffers(), buffers))
    trainer = trainer_of(network, method)
    take_step(trainer)
    assert all(torch.equal(mask, masks[path]) for path, mask in current_masks(network).items())
    for path, layer in masked_layers(network):
        assert torch.equal(layer.effective_weight() != 0, masks[path] & (layer.weight != 0))


def test_magnitude_rule_written_out() -> None:
    scores, weight = torch.tensor([0.5, -3.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    rule = MagnitudeRule(TopKSelection(2))
    assert rule(scores, weight).tolist() == [1, 2, 3, 4]
    assert rule.mask(scores).tolist() == [True] * 4
    rule.set_phase(dense=False)
    effective: Tensor = rule(scores, weight)
    assert effective.tolist() == [0, 2, 3, 0]
    effective.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("pruning", ["layerwise", "global"])
def test_magnitude_prunes_once_what_training_made_small(pruning: str) -> None:
    network, method = network_of(config_of("magnitude", pruning, prune_rate=0.7, weight_epochs=2))
    trainer = trainer_of(network, method)
    layers = dict(masked_layers(network))

    def epoch(number: int) -> None:
        method.on_epoch_start(number)
        for _ in range(2):
            take_step(trainer)
        method.on_evaluation(number + 1)

    for number in (0, 1):
        epoch(number)
        assert all(mask.all() for mask in current_masks(network).values())
    weights = torch.cat([layer.weight.detach().abs().flatten() for layer in layers.values()])
    epoch(2)
    masks = current_masks(network)
    if pruning == "global":
        flat = torch.cat([mask.flatten() for mask in masks.values()])
        assert int(flat.sum()) == kept_count(flat.numel(), 0.7)
    epoch(3)
    assert all(torch.equal(mask, masks[path]) for path, mask in current_masks(network).items())
    first = 0
    for mask in masks.values():
        size = weights[first : first + mask.numel()].view(mask.shape)
        assert size[mask].min() >= size[~mask].max()
        first += mask.numel()
    assert method.first_rated_epoch == 3
