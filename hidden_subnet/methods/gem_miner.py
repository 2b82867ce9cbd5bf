"""Gem-Miner: scores within [0, 1], of which the lowest are frozen at 0 until K are left (Sreenivasan et al. 2022).

Forward: a weight is kept where its score is above 1/2. Backward: the mask is treated as the score, and a frozen score
has no gradient. After each step the scores are clipped to [0, 1]. At the start of an epoch the lowest of those that are
not frozen are frozen at 0, so that the number of the others falls geometrically from n to K. Once K are left, all of
them are kept, so that a run ends with exactly K weights.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hidden_subnet.config.layer_rates import final_rate
from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import Config, MethodSettings, Ramp, setting
from hidden_subnet.masks.allocation import prune_rate_at
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import FixedThreshold, LayerSelection, MaskWeight
from hidden_subnet.methods.base import Method
from hidden_subnet.models.inits import fans

LEAST = torch.finfo(torch.float32).tiny
"""Lower limit of a score that is not frozen: 0 is for the frozen ones."""
ROUNDS_UP = 0.5


@dataclass(kw_only=True, slots=True)
class GemMinerSettings(MethodSettings):
    """The settings of `gem_miner`."""

    name: str = setting("gem_miner", id="always")
    every: int = setting(1, id="always", help="epochs between two rounds of freezing", within=Range(1))
    """The authors freeze every 5 of 150 epochs."""


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask_weight: MaskWeight) -> Tensor:
        ctx.save_for_backward(scores, weight)
        return mask_weight(weight.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scores, weight = ctx.saved_tensors
        return FixedThreshold(0.0).select(scores)(weight * grad), None, None


class GemMinerRule:
    """Keeps the weights whose score is above `threshold`, or where it is None, those of the selection."""

    def __init__(self, selection: LayerSelection) -> None:
        self.selection = selection
        self.threshold: float | None = ROUNDS_UP

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return self._chosen().mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        mask_weight = self._chosen().select(scores.detach())
        masked: Tensor = _Rounded.apply(scores, weight, mask_weight)  # type: ignore[no-untyped-call]
        return masked

    def _chosen(self) -> LayerSelection:
        return self.selection if self.threshold is None else FixedThreshold(self.threshold)


def clip(scores: Tensor, alive: Tensor) -> None:
    """Clip scores to [LEAST, 1] where `alive` is 1, and set them to 0 where it is 0, in place; all of one shape."""
    scores.clamp_(LEAST, 1).mul_(alive)


@register(METHODS, "gem_miner")
class GemMiner(Method):
    """Trains scores within [0, 1], and freezes the lowest ones."""

    settings = GemMinerSettings
    trains = "scores"
    scores_by_fan_in = False
    prunes_in_rounds = True
    has_controls = True

    def __init__(self, network: nn.Module, config: Config) -> None:
        self._rules: list[GemMinerRule] = []
        super().__init__(network, config)
        with torch.no_grad():
            for _, layer in self.layers:  # from +-1/sqrt(fan_in) to [0, 1]
                layer.scores.mul_(fans(layer.weight)[0] ** 0.5).add_(1).div_(2).clamp_(LEAST, 1)
        self._alive = [torch.ones_like(layer.scores) for _, layer in self.layers]

    @property
    def ramp_epochs(self) -> int:
        """The epoch, counted from 0, from which on K are left: pruning.ramp_epochs, by default the last one."""
        return self.config.pruning.ramp_epochs or self.config.train.epochs - 1

    def rate_in(self, epoch: int) -> float:
        settings, pruning = self.config.method, self.config.pruning
        assert isinstance(settings, GemMinerSettings)
        if epoch < self.ramp_epochs:
            epoch -= epoch % settings.every
        return prune_rate_at(
            epoch,
            prune_rate=final_rate(self.config),
            start_rate=pruning.start_rate,
            ramp_epochs=self.ramp_epochs,
            ramp=Ramp.geometric,
        )

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a GemMinerRule, whose selection says which scores of the layer are not frozen."""
        self._rules.append(GemMinerRule(selection))
        return self._rules[-1]

    def on_epoch_start(self, epoch: int) -> None:
        """Freeze the lowest scores; a second call in the same epoch freezes no more."""
        super().on_epoch_start(epoch)
        assert self.allocation is not None
        self.allocation.refresh()
        self._alive = [
            rule.selection.mask(layer.scores.detach()).to(layer.scores)
            for rule, (_, layer) in zip(self._rules, self.layers, strict=True)
        ]
        for alive, (_, layer) in zip(self._alive, self.layers, strict=True):
            layer.scores.detach().mul_(alive)
        self._set_threshold(0.0 if epoch >= self.ramp_epochs else ROUNDS_UP)

    def on_step_start(self, step: int) -> None:
        """Do nothing: the masks of a step need no other scores than those of their weights."""

    def on_step_end(self, step: int) -> None:
        """Clip the scores."""
        for alive, (_, layer) in zip(self._alive, self.layers, strict=True):
            clip(layer.scores.detach(), alive)

    def on_evaluation(self, epochs_done: int) -> None:
        """Set the masks to those after `epochs_done` epochs, without freezing a score."""
        epoch = max(0, epochs_done - 1)
        super().on_epoch_start(epoch)
        assert self.allocation is not None
        self.allocation.refresh()
        self._set_threshold(None if epoch >= self.ramp_epochs else ROUNDS_UP)

    def _set_threshold(self, threshold: float | None) -> None:
        for rule in self._rules:
            rule.threshold = threshold
