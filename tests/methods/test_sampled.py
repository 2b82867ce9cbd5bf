"""Supermasks: the rule on four numbers, what is drawn when, and the penalty."""

import math

import pytest
import torch
from helpers.methods import config_of, network_of, take_step, trainer_of
from torch import Tensor

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.sampled import Evaluation, SampledRule, ScoreInit, drawn

WEIGHT = [[1.0, -2.0], [3.0, -4.0]]


def rule_of(evaluation: Evaluation, training: bool = False) -> SampledRule:
    rule = SampledRule(0, "layer", evaluation)
    rule.training = training
    return rule


def test_written_out() -> None:
    scores = torch.tensor([[99.0, -99.0], [0.0, math.log(3)]], requires_grad=True)
    weight = torch.tensor(WEIGHT, requires_grad=True)
    rule = rule_of(Evaluation.sample, training=True)
    mask = rule.mask(scores.detach())
    assert mask.tolist()[0] == [True, False]
    effective = rule(scores, weight)
    assert torch.equal(effective, weight * mask)
    effective.backward(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    assert weight.grad is None
    assert scores.grad is not None
    # gradient * weight * p (1 - p): 1/4 at p = 1/2, 3/16 at p = 3/4, whether the weight was drawn or not.
    assert scores.grad.tolist() == [[0, 0], [pytest.approx(100 * 3 / 4), pytest.approx(1000 * -4 * 3 / 16)]]
    assert rule_of(Evaluation.threshold)(scores, weight).tolist() == [[1, 0], [0, -4]]
    assert rule_of(Evaluation.mean)(scores, weight)[1].tolist() == pytest.approx([1.5, -3])
    assert rule_of(Evaluation.mean).mask(torch.tensor(WEIGHT)).all()


def test_drawn_has_its_probability_and_is_of_its_moment() -> None:
    probability = torch.tensor([0.0, 0.2, 0.7, 1.0])[:, None].expand(4, 20_000)
    mask = drawn(probability, 0, "step", 3, "layer")
    shares = mask.double().mean(dim=1).tolist()
    assert shares[0] == 0
    assert shares[3] == 1
    assert shares[1:3] == pytest.approx([0.2, 0.7], abs=5 * 0.5 / math.sqrt(20_000))
    assert torch.equal(mask, drawn(probability, 0, "step", 3, "layer"))
    for other in [(1, "step", 3, "layer"), (0, "step", 4, "layer"), (0, "epoch", 3, "layer"), (0, "step", 3, "other")]:
        assert not torch.equal(mask, drawn(probability, *other))


@pytest.mark.parametrize("evaluation", list(Evaluation), ids=lambda each: each.name)
def test_each_step_and_each_evaluation_draws_its_own_mask(evaluation: Evaluation) -> None:
    network, method = network_of(config_of("sampled", evaluation=evaluation))

    def weights() -> Tensor:
        return torch.cat([layer.effective_weight().detach().flatten() for _, layer in masked_layers(network)])

    method.on_step_start(0)
    first = weights()
    assert torch.equal(weights(), first)
    method.on_step_start(1)
    assert not torch.equal(weights(), first)
    method.on_evaluation(1)
    one = weights()
    method.on_evaluation(2)
    assert torch.equal(weights(), one) == (evaluation is not Evaluation.sample)
    method.on_evaluation(1)
    assert torch.equal(weights(), one)
    assert torch.equal(one != 0, torch.cat([mask.flatten() for mask in current_masks(network).values()]))


def test_constant_scores_and_penalty() -> None:
    config = config_of("sampled", score_init=ScoreInit.constant, score_constant=math.log(3), penalty=0.01)
    network, method = network_of(config)
    total = sum(layer.scores.numel() for _, layer in masked_layers(network))
    assert method.metrics() == {"expected_density": pytest.approx(0.75)}
    penalty = method.penalty()
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.01 * 0.75 * total, rel=1e-5)
    penalty.backward()  # type: ignore[no-untyped-call]
    for _, layer in masked_layers(network):
        assert layer.scores.grad is not None
        assert layer.scores.grad.unique().tolist() == pytest.approx([0.01 * 3 / 16])


def test_a_penalty_lowers_the_density() -> None:
    densities = []
    for penalty in (0.0, 0.01):
        network, method = network_of(config_of("sampled", penalty=penalty))
        assert (method.penalty() is None) == (penalty == 0)
        trainer = trainer_of(network, method, lr=10.0, weight_decay=0.0)
        for _ in range(5):
            take_step(trainer)
        densities.append(method.metrics()["expected_density"])
    assert densities[1] < densities[0] - 0.05
