"""Signed supermasks: a weight is kept, removed, or kept with its sign turned (Koster et al. 2022).

Forward: the mask is sign(score) where |score| is among the K largest of the layer, or above a fixed threshold as in the
paper, and 0 elsewhere; a score of 0 counts as positive. Backward: the mask is treated as the score itself
(straight-through estimator), so that every score receives the gradient d loss / d masked weight * weight.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.recompute import recomputed_weight
from hidden_subnet.masks.selection import FixedThreshold, LayerSelection, MaskWeight
from hidden_subnet.methods.base import Method


def signed_weight(scores: Tensor, weight: Tensor, mask_weight: MaskWeight) -> Tensor:
    """Return the masked weight, with the opposite sign where the score is below 0; all (out, in, *kernel)."""
    masked = mask_weight(weight)
    # The strides are those of `masked` (masks/selection.py), which is not overwritten: it may belong to the allocation.
    # A third of the time of torch.where(scores < 0, -masked, masked), with the same bits; + 0 makes 0 of -0.
    signs = torch.add(scores, 0.0, out=torch.empty_like(masked)).mul_(masked)
    return torch.copysign(masked, signs, out=signs)


class _Signed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask_weight: MaskWeight) -> Tensor:
        ctx.save_for_backward(weight)
        return signed_weight(scores.detach(), weight.detach(), mask_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return weight * grad, None, None


def _signed(scores: Tensor, weight: Tensor, mask_weight: MaskWeight) -> Tensor:
    masked: Tensor = _Signed.apply(scores, weight, mask_weight)  # type: ignore[no-untyped-call]
    return masked


class SignedRule:
    """Masks the weight by the selection of the layer, and turns signs by those of the scores."""

    def __init__(self, selection: LayerSelection) -> None:
        self.selection = selection

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel), True where the weight is kept with either sign."""
        return self.selection.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return _signed(scores, weight, self.selection.select(scores.detach()))

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """Give the masked weight; the backward pass recomputes it with the same selection."""
        mask_weight = self.selection.select(scores.detach())
        return recomputed_weight(
            _signed(scores, weight, mask_weight),
            lambda: signed_weight(scores.detach(), weight.detach(), mask_weight),
            scores,
            weight,
        )


@dataclass(kw_only=True, slots=True)
class SignedSettings(MethodSettings):
    """The settings of `signed`."""

    name: str = setting("signed", id="always")
    threshold: float | None = setting(
        None,
        id="always",
        help="keep the weights whose |score| is above it; null: as many as prune_rate says",
        within=Range(0, note="null keeps as many weights as prune_rate says"),
    )
    """With a number, prune_rate and pruning have no effect, and the density is learned."""


@register(METHODS, "signed")
class Signed(Method):
    """Trains the scores of frozen random weights, whose signs they may turn."""

    settings = SignedSettings
    trains = "scores"
    has_controls = True

    @classmethod
    def prunes_by_rate(cls, settings: Any) -> bool:
        """Return False with a fixed threshold, under which the density is learned."""
        return not isinstance(settings, SignedSettings) or settings.threshold is None

    @classmethod
    def bits_per_kept(cls, settings: Any) -> float:
        """Return 1, for the sign."""
        return 1.0

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a SignedRule over the selection of the layer, or over a fixed threshold."""
        settings = self.config.method
        assert isinstance(settings, SignedSettings)
        return SignedRule(selection if settings.threshold is None else FixedThreshold(settings.threshold))
