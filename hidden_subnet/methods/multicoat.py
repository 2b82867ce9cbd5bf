"""Multicoated supermasks: each weight is multiplied by the number of nested masks that keep it (Okoshi et al. 2022).

The first coat keeps K of the weights, and each further one the fraction method.ratio of the coat below, those with the
largest |scores|. Forward: weight times the number of its coats. Backward: that number is treated as |score|, as
edge_popup treats its mask; with one coat it is edge_popup.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.allocation import Allocation
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection, MaskWeight
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.edge_popup import EdgePopupRule


@dataclass(kw_only=True, slots=True)
class MulticoatSettings(MethodSettings):
    """The settings of `multicoat`."""

    name: str = setting("multicoat", id="always")
    coats: int = setting(
        3, id="always", help="number of nested masks, whose sum a weight is multiplied by", within=Range(1, 16)
    )
    ratio: float = setting(
        0.3,
        id="always",
        help="fraction of a coat that the next one keeps",
        within=Range(0, 1, above=True, below=True),
    )
    """The paper's three coats with 30, 7.88 and 3.15 % of the weights are about prune_rate=0.7 method.ratio=0.32."""


def coat_rates(prune_rate: float, coats: int, ratio: float) -> list[float]:
    """Return the fraction of weights that each coat removes, rising from `prune_rate`."""
    return [1 - (1 - prune_rate) * ratio**coat for coat in range(coats)]


class CoatSelection:
    """The selections of one layer in all coats; its mask is that of the first."""

    def __init__(self, coats: Sequence[LayerSelection]) -> None:
        self.coats = coats

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel) of the first coat, which holds the others."""
        return self.coats[0].mask(scores)

    def select(self, scores: Tensor) -> MaskWeight:
        """Return a function that multiplies a weight by the number of coats that keep it."""
        coats = [each.select(scores) for each in self.coats]

        def mask_weight(weight: Tensor) -> Tensor:
            total = coats[0](weight)
            for coat in coats[1:]:
                # With the strides of the first; not in place, since it may belong to the allocation.
                total = torch.add(total, coat(weight), out=torch.empty_like(total))
            return total

        return mask_weight


class CoatAllocation:
    """An allocation for each coat, under its own prune rate."""

    def __init__(self, coats: Sequence[Allocation], ratio: float) -> None:
        self.coats, self.ratio = coats, ratio

    def selections(self) -> Sequence[LayerSelection]:
        """Return a CoatSelection for each layer."""
        return [CoatSelection(each) for each in zip(*(coat.selections() for coat in self.coats), strict=True)]

    def set_rate(self, prune_rate: float) -> None:
        """Set the rate of the first coat, and with it those of the others."""
        for coat, rate in zip(self.coats, coat_rates(prune_rate, len(self.coats), self.ratio), strict=True):
            coat.set_rate(rate)

    def refresh(self) -> None:
        """Compute the masks that need the scores of all layers."""
        for coat in self.coats:
            coat.refresh()


@register(METHODS, "multicoat")
class Multicoat(Method):
    """Trains the scores of frozen random weights, which the highest ones also enlarge."""

    settings = MulticoatSettings
    trains = "scores"
    prunes_in_rounds = True
    has_controls = True

    @classmethod
    def bits_per_kept(cls, settings: Any) -> float:
        """Return the entropy of the number of coats of a kept weight."""
        assert isinstance(settings, MulticoatSettings)
        at_least = [settings.ratio**coat for coat in range(settings.coats)] + [0.0]
        shares = [one - more for one, more in pairwise(at_least)]
        return -sum(share * math.log2(share) for share in shares)

    def _allocate(self, prune_rate: float) -> Allocation:
        settings = self.config.method
        assert isinstance(settings, MulticoatSettings)
        rates = coat_rates(prune_rate, settings.coats, settings.ratio)
        allocate = super()._allocate
        return CoatAllocation([allocate(rate) for rate in rates], settings.ratio)

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return an EdgePopupRule over the coats of the layer."""
        return EdgePopupRule(selection)
