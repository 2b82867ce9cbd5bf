"""Supermasks: each weight is kept with probability sigmoid(score), drawn in every step (Zhou et al. 2019, section 5).

Backward: the drawn mask is treated as its probability (straight-through estimator), so that a score receives the
gradient d loss / d masked weight * weight * sigmoid'(score). There is no prune rate: the density is learned.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import Config, MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Method
from hidden_subnet.seeding import derive

Evaluation = Enum("Evaluation", {"sample": "sample", "threshold": "threshold", "mean": "mean"})
ScoreInit = Enum("ScoreInit", {"uniform": "uniform", "constant": "constant"})


@dataclass(kw_only=True, slots=True)
class SampledSettings(MethodSettings):
    """The settings of `sampled`."""

    name: str = setting("sampled", id="always")
    evaluation: Evaluation = setting(Evaluation.sample, id="always")
    """The mask of an evaluation. sample: drawn once for it; threshold: sigmoid(score) > 1/2; mean: no mask, each weight
    is multiplied by sigmoid(score)."""
    score_init: ScoreInit = setting(ScoreInit.uniform, id="always")
    """uniform: within +-1/sqrt(fan_in), as for edge_popup."""
    score_constant: float = setting(0.0, id="always", within=Range(note="its sigmoid is the density at first"))
    """score_init=constant: the first score of every weight; 0 keeps half of the weights, 2 keeps 88 %."""
    penalty: float = setting(0.0, id="always", within=Range(0))
    """Factor of the expected number of kept weights, which is added to the loss to lower the density."""


def drawn(probability: Tensor, seed: int, *moment: str | int) -> Tensor:
    """Return a boolean tensor, each element True with its `probability`, of the same shape.

    The draw is a function of (seed, moment) and of the kind of device, CPU or GPU.
    """
    source = torch.Generator(probability.device).manual_seed(derive(seed, "sampled", *moment))
    # torch.rand draws in logical order, so that the mask does not depend on the memory format of the scores.
    uniform = torch.rand(probability.shape, generator=source, device=probability.device)
    mask: Tensor = uniform < probability
    return mask


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(scores, weight)
        return weight * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scores, weight = ctx.saved_tensors
        probability = torch.sigmoid(scores)
        return (1 - probability).mul_(probability).mul_(weight).mul_(grad), None, None


class SampledRule:
    """Masks the weight by a drawn mask; each layer draws from its own random stream, by its `path`."""

    def __init__(self, seed: int, path: str, evaluation: Evaluation) -> None:
        self.seed, self.path, self.evaluation = seed, path, evaluation
        self.training = False
        self.moment = 0
        """The step in training, the number of finished epochs in an evaluation; set before each of them."""

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel) of the current step or evaluation; all True for `mean`."""
        probability = torch.sigmoid(scores)
        if self.training:
            return drawn(probability, self.seed, "step", self.moment, self.path)
        if self.evaluation is Evaluation.sample:
            return drawn(probability, self.seed, "epoch", self.moment, self.path)
        return probability > (0.5 if self.evaluation is Evaluation.threshold else 0)

    def kept(self, scores: Tensor, mask: Tensor) -> float:
        """Return the number of weights that `mask` keeps; for `mean`, which removes none, the expected number."""
        if self.training or self.evaluation is not Evaluation.mean:
            return int(mask.count_nonzero())
        return torch.sigmoid(scores).sum(dtype=torch.float64).item()

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        if not self.training and self.evaluation is Evaluation.mean:
            return weight * torch.sigmoid(scores)
        masked: Tensor = _Sampled.apply(scores, weight, self.mask(scores.detach()))  # type: ignore[no-untyped-call]
        return masked


@register(METHODS, "sampled")
class Sampled(Method):
    """Trains the scores; every step and every evaluation draws its masks."""

    settings = SampledSettings
    trains = "scores"
    has_prune_rate = False
    draws_in_steps = True

    @classmethod
    def unused_settings(cls, settings: Any) -> set[str]:
        """Return score_constant unless score_init=constant."""
        return set() if settings.score_init is ScoreInit.constant else {"score_constant"}

    @classmethod
    def schema(cls, settings: Any) -> int:
        """Return 2 for `mean`, whose density was recorded as 1 before."""
        return 2 if settings.evaluation is Evaluation.mean else 1

    def __init__(self, network: nn.Module, config: Config) -> None:
        settings = _own(config)
        self.evaluation = settings.evaluation
        self.penalty_factor = settings.penalty
        super().__init__(network, config)
        if settings.score_init is ScoreInit.constant:
            for _, layer in self.layers:
                layer.scores.detach().fill_(settings.score_constant)

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a SampledRule; `selection` is not used."""
        return SampledRule(self.seed, path, self.evaluation)

    def on_step_start(self, step: int) -> None:
        """Let the rules draw the masks of `step`."""
        self._set_moment(True, step)

    def on_evaluation(self, epochs_done: int) -> None:
        """Let the rules use the mask of an evaluation after `epochs_done` epochs."""
        self._set_moment(False, epochs_done)

    def penalty(self) -> Tensor | None:
        """Return method.penalty times the expected number of kept weights, a scalar; None where the factor is 0."""
        return self.penalty_factor * self._expected_count() if self.penalty_factor else None

    def metrics(self) -> dict[str, float]:
        """Return expected_density, the mean of sigmoid(score) over all masked weights."""
        weights = sum(layer.scores.numel() for _, layer in self.layers)
        return {"expected_density": self._expected_count().item() / weights}

    def _set_moment(self, training: bool, moment: int) -> None:
        for _, layer in self.layers:
            assert isinstance(layer.rule, SampledRule)
            layer.rule.training, layer.rule.moment = training, moment

    def _expected_count(self) -> Tensor:
        return torch.stack([torch.sigmoid(layer.scores).sum() for _, layer in self.layers]).sum()


def _own(config: Config) -> SampledSettings:
    assert isinstance(config.method, SampledSettings)
    return config.method
