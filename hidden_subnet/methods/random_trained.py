"""A baseline: weights trained under a fixed random mask, that of `random` with the same seed.

It shows the accuracy of any sparse network of that density. The configs of Ramanujan et al. name this method RGConv;
their code does not contain it.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Method


def under_mask(weight: Tensor, mask: Tensor) -> Tensor:
    """Return weight * mask, both (out, in, *kernel); the gradient of pruned weights is 0."""
    return weight * mask


class FixedMaskRule:
    """Masks the weight by a mask that is computed in the first forward pass and kept, since scores never change."""

    def __init__(self, selection: LayerSelection) -> None:
        self.selection = selection
        self._fixed: Tensor | None = None

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return self.selection.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        if self._fixed is None:
            self._fixed = self.mask(scores.detach()).to(weight.dtype)
        return under_mask(weight, self._fixed)


@dataclass(kw_only=True, slots=True)
class RandomTrainedSettings(MethodSettings):
    """The settings of `random_trained`: only its name."""

    name: str = setting("random_trained", id="always")


@register(METHODS, "random_trained")
class RandomTrained(Method):
    """Trains the weights under the mask of `random`."""

    settings: ClassVar[type[MethodSettings]] = RandomTrainedSettings
    trains = "weights"
    follows_ramp = False
    score_stream = "mask"

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a FixedMaskRule over the selection of the layer."""
        return FixedMaskRule(selection)
