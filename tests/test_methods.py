"""Each method on four numbers with the answer written out, and what of a network may move under it."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from hidden_subnet.course import Course
from hidden_subnet.inits import fill
from hidden_subnet.layers import masked_layers
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.dnw import DnwRule
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.methods.random_trained import FixedMaskRule, under_mask
from hidden_subnet.methods.sampled import Evaluation as Evaluated
from hidden_subnet.methods.sampled import SampledRule, drawn
from hidden_subnet.methods.warmup_then_prune import WarmupRule
from hidden_subnet.models.build import build
from hidden_subnet.settings import (
    METHODS,
    Config,
    Data,
    DataName,
    Evaluation,
    Init,
    InitName,
    Model,
    Pruning,
    PruningName,
    Sampled,
    ScoreInit,
    WarmupThenPrune,
)
from hidden_subnet.subnetwork import current_masks, put_masks, random_network
from hidden_subnet.training import Sums, evaluate, train_epoch

WEIGHT = [[1.0, -2.0], [3.0, -4.0]]


def tensors(scores: list[list[float]]) -> tuple[Tensor, Tensor]:
    return torch.tensor(scores, requires_grad=True), torch.tensor(WEIGHT, requires_grad=True)


def gradients(effective: Tensor, *leaves: Tensor) -> list[list[list[float]] | None]:
    """Of sum(c * effective) with c = 1, 10, 100, 1000."""
    effective.backward(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    return [None if leaf.grad is None else leaf.grad.tolist() for leaf in leaves]


def test_random_trained_written_out() -> None:
    assert under_mask(torch.tensor(WEIGHT), torch.tensor([[1, 0], [0, 1]])).tolist() == [[1, 0], [0, -4]]
    scores, weight = tensors([[0.9, -0.1], [0.2, -0.8]])
    rule = FixedMaskRule(TopKRule(2, Scratch()))
    effective = rule(scores, weight)
    assert effective.tolist() == [[1, 0], [0, -4]]
    assert gradients(effective, scores, weight) == [None, [[1, 0], [0, 1000]]]
    weight.detach()[0, 1] = 77.0  # whatever a removed weight becomes has no effect
    assert rule(scores, weight).tolist() == [[1, 0], [0, -4]]


def test_dnw_written_out() -> None:
    trained, weight = tensors([[0.5, -3.0], [2.0, -1.0]])
    effective = DnwRule(TopKRule(2, Scratch()))(trained, weight)
    assert effective.tolist() == [[0, -3], [2, 0]]  # the two largest magnitudes of what is trained
    assert gradients(effective, trained, weight) == [[[1, 10], [100, 1000]], None]  # to all, as if none were removed


def test_warmup_then_prune_written_out() -> None:
    scores, weight = tensors([[0.9, -0.1], [0.2, -0.8]])
    rule = WarmupRule(TopKRule(2, Scratch()))
    assert rule.mask(scores).all()
    effective = rule(scores, weight)
    assert effective.tolist() == WEIGHT
    assert gradients(effective * 1, scores, weight) == [None, [[1, 10], [100, 1000]]]
    rule.dense, weight.grad = False, None
    effective = rule(scores, weight)
    assert effective.tolist() == [[1, 0], [0, -4]]
    # gradient * weight * sign(score): edge-popup's.
    assert gradients(effective, scores, weight) == [[[1, 20], [300, 4000]], None]


def sampled(evaluation: Evaluated, training: bool = False, moment: int = 0) -> SampledRule:
    rule = SampledRule(0, "layer", evaluation)
    rule.training, rule.moment = training, moment
    return rule


def test_sampled_written_out() -> None:
    log3 = math.log(3)
    scores, weight = tensors([[99.0, -99.0], [0.0, log3]])
    rule = sampled("sample", training=True)
    mask = rule.mask(scores.detach())
    assert mask.tolist()[0] == [True, False]
    effective = rule(scores, weight)
    assert torch.equal(effective, weight * mask)
    # gradient * weight * p (1 - p): 1/4 at p = 1/2, 3/16 at p = 3/4, whether the weight was drawn or not.
    [found, of_weight] = gradients(effective, scores, weight)
    assert of_weight is None
    assert found == [[0, 0], [pytest.approx(100 * 3 / 4), pytest.approx(1000 * -4 * 3 / 16)]]
    assert sampled("threshold")(scores, weight).tolist() == [[1, 0], [0, -4]]
    assert sampled("mean")(scores, weight)[1].tolist() == pytest.approx([1.5, -3])
    assert sampled("mean").mask(torch.tensor(WEIGHT)).all()


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


def network(config: Config) -> tuple[nn.Module, Course]:
    model = build(config.model.name, 1 / 16, (1, 16, 16), 10)
    fill(model, config.init.name.name, "fan_in", 1.0, seed=0)
    return model, put_masks(model, config)


def a_config(method: str, pruning: str = "layerwise", model: str = "conv4", init: str = "kaiming_normal") -> Config:
    return Config(
        model=Model(name=model, width=0.125),
        init=Init(name=InitName[init]),
        data=Data(name=DataName.synthetic),
        pruning=Pruning(name=PruningName[pruning]),
        method=METHODS[method](),
    )


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(seed)), torch.arange(20) % 10


def step(model: nn.Module, course: Course, optimizer: SGD, number: int) -> None:
    sums = Sums("cpu")
    marks = {"before_step": lambda: course.before_step(number), "penalty": course.penalty}
    train_epoch(model, [batch(number)], optimizer, 0.0, sums, lambda: None, **marks)  # type: ignore[arg-type]
    assert sums.means().loss > 0


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def optimizer_of(model: nn.Module, lr: float = 0.1, weight_decay: float = 0.01) -> SGD:
    trained = [value for value in model.parameters() if value.requires_grad]
    return SGD(trained, lr=lr, momentum=0.9, weight_decay=weight_decay)


INITS = itertools.cycle(InitName)


@pytest.mark.parametrize(
    ("method", "pruning", "model", "init"),
    [
        (method, pruning.name, model, next(INITS).name)
        for model in ("fc", "conv2", "conv4", "conv6", "conv8", "cifar_resnet18")
        for pruning in PruningName
        for method in METHODS
    ],
)
def test_every_method_and_pruning_runs_and_moves_what_it_may(method: str, pruning: str, model: str, init: str) -> None:
    config = a_config(method, pruning, model, init)
    net, course = network(config)
    scores, weights = ({f"{path}.{name}" for path, _ in masked_layers(net)} for name in ("scores", "weight"))
    before, first = values(net), evaluate(net, [batch()], "cpu")
    moves = {
        "edge_popup": scores,
        "sampled": scores,
        "dense": set(before),
        "random": set(),
        "random_trained": weights,
        "dnw": scores,
        "warmup_then_prune": weights,
        "last_layer": {list(before)[-1]},
    }[method]
    trained = {name for name, value in net.named_parameters() if value.requires_grad}
    assert trained == (scores | weights if method == "warmup_then_prune" else moves)
    if trained:
        optimizer = optimizer_of(net)
        course.begin_epoch(0)
        for number in range(2):
            step(net, course, optimizer, number)
    course.before_evaluation(1)
    assert evaluate(net, [batch()], "cpu").loss >= 0  # and so not nan
    after = values(net)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed <= moves
    assert bool(changed) == bool(trained)
    masks = current_masks(net)
    if method in ("edge_popup", "random", "random_trained", "dnw"):
        total = sum(int(mask.count_nonzero()) for mask in masks.values())
        if pruning == "global":
            assert total == kept_count(sum(mask.numel() for mask in masks.values()), 0.5)
        else:
            assert all(int(mask.count_nonzero()) == kept_count(mask.numel(), 0.5) for mask in masks.values())
    if method == "random":
        assert evaluate(net, [batch()], "cpu") == first


@pytest.mark.parametrize("pruning", list(PruningName), ids=lambda pruning: pruning.name)
def test_random_trained_has_the_mask_of_random_and_removed_weights_rest(pruning: PruningName) -> None:
    fixed, _ = network(a_config("random", pruning.name))
    net, course = network(a_config("random_trained", pruning.name))
    masks, before = current_masks(net), values(net)
    assert all(torch.equal(mask, current_masks(fixed)[path]) for path, mask in masks.items())
    optimizer = optimizer_of(net, weight_decay=0.0)
    for number in range(3):
        step(net, course, optimizer, number)
    for path, layer in masked_layers(net):
        assert torch.equal(layer.weight[~masks[path]], before[f"{path}.weight"][~masks[path]])
        assert torch.equal(layer.effective_weight() != 0, masks[path])
    assert any(not torch.equal(layer.weight, before[f"{path}.weight"]) for path, layer in masked_layers(net))


def test_warmup_trains_weights_then_scores() -> None:
    config = a_config("warmup_then_prune")
    assert isinstance(config.method, WarmupThenPrune)
    config.method.weight_epochs = 2
    net, course = network(config)
    optimizer, moved = optimizer_of(net), []
    for epoch in range(4):
        before = values(net)
        course.begin_epoch(epoch)
        step(net, course, optimizer, epoch)
        moved.append(
            {name.rpartition(".")[2] for name, old in before.items() if not torch.equal(values(net)[name], old)}
        )
        course.before_evaluation(epoch + 1)
        kept = sum(int(mask.count_nonzero()) for mask in current_masks(net).values())
        total = sum(mask.numel() for mask in current_masks(net).values())
        assert (kept < total) == (epoch >= 2)
    assert moved == [{"weight"}, {"weight"}, {"scores"}, {"scores"}]
    assert course.first_best == 3


@pytest.mark.parametrize("evaluation", list(Evaluation), ids=lambda each: each.name)
def test_sampled_draws_anew_in_each_step_and_each_evaluation(evaluation: Evaluation) -> None:
    config = a_config("sampled")
    config.method = Sampled(evaluation=evaluation)
    net, course = network(config)

    def weights() -> Tensor:
        return torch.cat([layer.effective_weight().detach().flatten() for _, layer in masked_layers(net)])

    course.before_step(0)
    first = weights()
    assert torch.equal(weights(), first)
    course.before_step(1)
    assert not torch.equal(weights(), first)
    course.before_evaluation(1)
    one = weights()
    course.before_evaluation(2)
    assert torch.equal(weights(), one) == (evaluation is not Evaluation.sample)
    course.before_evaluation(1)
    assert torch.equal(weights(), one)
    assert torch.equal(one != 0, torch.cat([mask.flatten() for mask in current_masks(net).values()]))


def test_sampled_constant_scores_and_penalty() -> None:
    config = a_config("sampled")
    config.method = Sampled(score_init=ScoreInit.constant, score_constant=math.log(3), penalty=0.01)
    net, course = network(config)
    total = sum(layer.scores.numel() for _, layer in masked_layers(net))
    assert course.measured() == {"expected_density": pytest.approx(0.75)}
    assert course.penalty is not None
    loss = course.penalty()
    assert loss.item() == pytest.approx(0.01 * 0.75 * total, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    for _, layer in masked_layers(net):
        assert layer.scores.grad is not None
        assert layer.scores.grad.unique().tolist() == pytest.approx([0.01 * 3 / 16])


def test_a_penalty_lowers_the_density() -> None:
    densities = []
    for penalty in (0.0, 0.01):
        config = a_config("sampled")
        config.method = Sampled(penalty=penalty)
        net, course = network(config)
        optimizer = optimizer_of(net, lr=10.0, weight_decay=0.0)
        for number in range(5):
            step(net, course, optimizer, number)
        densities.append(course.measured()["expected_density"])
    assert densities[1] < densities[0] - 0.05


def test_dnw_begins_with_the_random_weights() -> None:
    config = a_config("dnw")
    model = random_network(config)
    before = {path: layer.weight.detach().clone() for path, layer in model.named_modules() if hasattr(layer, "weight")}
    put_masks(model, config)
    for path, layer in masked_layers(model):
        assert torch.equal(layer.scores, before[path])


@pytest.mark.parametrize("pruning", list(PruningName), ids=lambda pruning: pruning.name)
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("random", "sampled")])
def test_a_step_never_reads_from_the_device(method: str, pruning: PruningName) -> None:
    """Tensors on torch's meta device have no values: whatever waits for one (item, nonzero, a branch) raises."""
    model = build("conv2", 0.25, (1, 8, 8), 10).to("meta")
    course = put_masks(model, a_config(method, pruning.name))
    images, labels = torch.empty(4, 1, 8, 8, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    optimizer, steps = optimizer_of(model), itertools.count()
    for epoch in (0, 8):  # on both sides of a warm-up
        course.begin_epoch(epoch)
        for _ in range(2):
            train_epoch(
                model,
                [(images, labels)],
                optimizer,
                0.1,
                Sums("meta"),
                lambda: None,
                before_step=lambda: course.before_step(next(steps)),
                penalty=course.penalty,
            )
    assert next(steps) == 4
