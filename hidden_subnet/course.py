"""A method at work on one network: what it does at the marks of the one training loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hidden_subnet.identity import seed_of
from hidden_subnet.inits import fans
from hidden_subnet.layers import Masked, fill_scores, masked_layers
from hidden_subnet.methods import sampled
from hidden_subnet.methods.budget import Budget, GlobalBudget
from hidden_subnet.methods.method import Method
from hidden_subnet.methods.segmented import layerwise
from hidden_subnet.methods.warmup_then_prune import WarmupRule
from hidden_subnet.schedules import prune_rate_at
from hidden_subnet.settings import Config, Evaluation, PruningName, Sampled, ScoreInit, WarmupThenPrune

EVALUATIONS: dict[Evaluation, sampled.Evaluation] = {
    Evaluation.sample: "sample",
    Evaluation.threshold: "threshold",
    Evaluation.mean: "mean",
}


@dataclass(frozen=True, kw_only=True)
class Course:
    """Epochs are counted from 0 where they begin, and as finished ones where something is measured."""

    method: Method
    begin_epoch: Callable[[int], None]
    before_step: Callable[[int], None]
    """Called with the number of steps taken since the run began."""
    before_evaluation: Callable[[int], None]
    """Called with the number of finished epochs, after the scores have changed or were loaded."""
    penalty: Callable[[], Tensor] | None
    """Added to the loss of each step."""
    first_best: int
    """The number of finished epochs from which the best is chosen: those before were at another prune rate."""
    measured: Callable[[], dict[str, float]]
    """What the method alone can tell of the network as it is."""


def plain_course(method: Method) -> Course:
    return Course(
        method=method,
        begin_epoch=lambda epoch: None,
        before_step=lambda step: None,
        before_evaluation=lambda epochs: None,
        penalty=None,
        first_best=1,
        measured=dict,
    )


def masked_course(model: nn.Module, config: Config, method: Method) -> Course:
    """Give every masked layer its first scores and its rule; the network is then as before the first step."""
    layers = masked_layers(model)
    if method.stream is not None:
        fill_scores(model, seed_of(config, "scores"), method.stream)
    if isinstance(config.method, Sampled):
        course = _sampled(model, config, config.method, method)
    else:
        course = _budgeted(model, config, method, _budget(config, [layer for _, layer in layers], method))
    course.before_evaluation(0)
    return course


def _budget(config: Config, layers: Sequence[Masked], method: Method) -> Budget:
    scores = [layer.scores for layer in layers]
    if config.pruning.name is PruningName["global"]:
        fan_ins = [fans(layer.weight)[0] for layer in layers]
        return GlobalBudget(scores, fan_ins, config.prune_rate, config.pruning.floor)
    # Where the scores begin as the weights, they are what is trained and masked.
    weights = scores if method.stream is None else [layer.weight for layer in layers]
    return layerwise(scores, weights, config.prune_rate)


def _budgeted(model: nn.Module, config: Config, method: Method, budget: Budget) -> Course:
    rule, pruning = method.rule, config.pruning
    assert rule is not None
    for (_, layer), choice in zip(masked_layers(model), budget.choices(), strict=True):
        layer.rule = rule(choice)
    warm = [layer.rule for _, layer in masked_layers(model) if isinstance(layer.rule, WarmupRule)]
    dense_epochs = config.method.weight_epochs if isinstance(config.method, WarmupThenPrune) else 0
    ramp_epochs = pruning.ramp_epochs if method.follows_ramp else 0

    def begin_epoch(epoch: int) -> None:
        for each in warm:
            each.dense = epoch < dense_epochs
        rate = prune_rate_at(
            max(0, epoch - dense_epochs),
            prune_rate=config.prune_rate,
            start_rate=pruning.start_rate,
            ramp_epochs=ramp_epochs,
        )
        budget.set_rate(rate)

    def before_evaluation(epochs: int) -> None:
        begin_epoch(max(0, epochs - 1))
        budget.refresh()

    return Course(
        method=method,
        begin_epoch=begin_epoch,
        before_step=lambda step: budget.refresh(),
        before_evaluation=before_evaluation,
        penalty=None,
        first_best=1 + dense_epochs + ramp_epochs,
        measured=dict,
    )


def _sampled(model: nn.Module, config: Config, settings: Sampled, method: Method) -> Course:
    layers = masked_layers(model)
    seed = seed_of(config, "scores")
    rules = [sampled.SampledRule(seed, path, EVALUATIONS[settings.evaluation]) for path, _ in layers]
    for (_, layer), rule in zip(layers, rules, strict=True):
        layer.rule = rule
        if settings.score_init is ScoreInit.constant:
            layer.scores.detach().fill_(settings.score_constant)

    def now(training: bool, moment: int) -> None:
        for rule in rules:
            rule.training, rule.moment = training, moment

    def expected() -> Tensor:
        return torch.stack([torch.sigmoid(layer.scores).sum() for _, layer in layers]).sum()

    weights = sum(layer.scores.numel() for _, layer in layers)
    return Course(
        method=method,
        begin_epoch=lambda epoch: None,
        before_step=lambda step: now(True, step),
        before_evaluation=lambda epochs: now(False, epochs),
        penalty=(lambda: settings.penalty * expected()) if settings.penalty else None,
        first_best=1,
        measured=lambda: {"expected_density": expected().item() / weights},
    )
