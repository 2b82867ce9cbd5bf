"""Discovering neural wirings: train all weights, keep the K of largest magnitude (Wortsman et al. 2019, section 3.2).

The scores of a layer are its trained weights here, and start as the random ones. The straight-through estimator passes
the gradient to all of them, so that a pruned weight can grow until it is kept. The configs of Ramanujan et al. name
this method DNWConv; their code does not contain it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.config.registries import INITS, METHODS, register
from hidden_subnet.config.settings import Config, MethodSettings, setting
from hidden_subnet.errors import problem
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.recompute import recomputed_weight
from hidden_subnet.masks.selection import LayerSelection, MaskWeight
from hidden_subnet.methods.base import Method


class _KeepLargest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trained: Tensor, mask_weight: MaskWeight) -> Tensor:
        return mask_weight(trained.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.clone(), None  # a copy, since autograd may write into the returned tensor


def _masked(trained: Tensor, mask_weight: MaskWeight) -> Tensor:
    masked: Tensor = _KeepLargest.apply(trained, mask_weight)  # type: ignore[no-untyped-call]
    return masked


class DnwRule:
    """Masks the scores, which are the trained weights; `weight`, the random one, is not used."""

    def __init__(self, selection: LayerSelection) -> None:
        self.selection = selection

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return self.selection.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return _masked(scores, self.selection.select(scores.detach()))

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """Give the masked weight; the backward pass recomputes it with the same selection."""
        mask_weight = self.selection.select(scores.detach())
        return recomputed_weight(_masked(scores, mask_weight), lambda: mask_weight(scores.detach()), scores)


@dataclass(kw_only=True, slots=True)
class DnwSettings(MethodSettings):
    """The settings of `dnw`: only its name."""

    name: str = setting("dnw", id="always")


@register(METHODS, "dnw")
class Dnw(Method):
    """Trains the scores, which start as copies of the random weights."""

    settings = DnwSettings
    trains = "scores"
    score_stream = None

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Refuse inits that give all weights of a layer one magnitude, among which none is the largest."""
        if INITS[config.init.name].same_magnitude:
            rule = (
                "method=dnw keeps the weights of largest magnitude, and this init gives all weights of a layer the same"
            )
            yield problem(f"init={config.init.name}", rule, "init=kaiming_normal")

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a DnwRule over the selection of the layer."""
        return DnwRule(selection)
