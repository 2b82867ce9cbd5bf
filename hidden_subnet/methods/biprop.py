"""biprop: binary weights under the mask of edge-popup, MPT-1/32 (Diffenderfer and Kailkhura 2021, Algorithm 1).

Forward: a kept weight is alpha * sign(weight), where alpha is the mean of |weight| over the kept weights of the layer.
Backward: the gradient of edge-popup, d loss / d masked weight * weight * sign(score). Where all weights of a layer have
one magnitude (init=signed_constant), biprop is edge_popup to the bit.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.recompute import recomputed_weight
from hidden_subnet.masks.selection import LayerSelection, MaskWeight, TopKSelection
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.edge_popup import score_gradient


def binary_weight(weight: Tensor, mask_weight: MaskWeight, kept: int | Tensor) -> Tensor:
    """Return alpha * sign(weight) where the weight is kept and 0 elsewhere, (out, in, *kernel).

    kept: number of kept weights K, by which alpha = sum |kept weight| / K divides; at least 1. The sum is in float64,
    so that of K equal magnitudes alpha is the same magnitude to the bit.
    """
    masked = mask_weight(weight)
    alpha = masked.abs().sum(dtype=torch.float64) / kept
    return torch.sign(masked).mul_(alpha.to(weight.dtype))


class _Binary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask_weight: MaskWeight, kept: int | Tensor) -> Tensor:
        ctx.save_for_backward(scores, weight)
        return binary_weight(weight.detach(), mask_weight, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        scores, weight = ctx.saved_tensors
        return score_gradient(scores, weight, grad), None, None, None


class BipropRule:
    """Masks the signs of the weight by the selection of the layer, and scales them by its alpha."""

    def __init__(self, selection: LayerSelection) -> None:
        self.selection = selection

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return self.selection.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return self._masked(scores, weight, self.selection.select(scores.detach()), self._kept(scores.detach()))

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """Give the masked weight; the backward pass recomputes it with the same selection."""
        mask_weight, kept = self.selection.select(scores.detach()), self._kept(scores.detach())
        return recomputed_weight(
            self._masked(scores, weight, mask_weight, kept),
            lambda: binary_weight(weight.detach(), mask_weight, kept),
            scores,
            weight,
        )

    def _kept(self, scores: Tensor) -> int | Tensor:
        selection = self.selection
        return selection.keep if isinstance(selection, TopKSelection) else selection.mask(scores).count_nonzero()

    def _masked(self, scores: Tensor, weight: Tensor, mask_weight: MaskWeight, kept: int | Tensor) -> Tensor:
        masked: Tensor = _Binary.apply(scores, weight, mask_weight, kept)  # type: ignore[no-untyped-call]
        return masked


@dataclass(kw_only=True, slots=True)
class BipropSettings(MethodSettings):
    """The settings of `biprop`: only its name."""

    name: str = setting("biprop", id="always")


@register(METHODS, "biprop")
class Biprop(Method):
    """Trains the scores of frozen random weights, of which only the signs and one scale a layer are used."""

    settings = BipropSettings
    trains = "scores"
    has_controls = True

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a BipropRule over the selection of the layer."""
        return BipropRule(selection)
