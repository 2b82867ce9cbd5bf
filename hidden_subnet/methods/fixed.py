"""A mask that is given by mask=, on the random weights, or on those of pretrained=; nothing is trained.

So a mask of one network is measured on other weights, and masks of other programs on ours.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.random_trained import under_mask


class GivenMaskRule:
    """Keeps the weights whose score is not 0; the scores hold the mask that was given."""

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return scores != 0

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return under_mask(weight, self.mask(scores.detach()).to(weight.dtype))


@dataclass(kw_only=True, slots=True)
class FixedSettings(MethodSettings):
    """The settings of `fixed`: only its name."""

    name: str = setting("fixed", id="always")


@register(METHODS, "fixed")
class Fixed(Method):
    """Trains nothing under a mask that is given."""

    settings: ClassVar[type[MethodSettings]] = FixedSettings
    trains = "nothing"
    has_prune_rate = False
    has_given_mask = True
    score_stream = None
    changes_weights = True  # the scores, so that a checkpoint has the mask, and needs not where it came from

    @classmethod
    def weights_stay(cls) -> bool:
        """Return True: of what a checkpoint holds, only the scores are others than those that were drawn."""
        return True

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a GivenMaskRule; `selection`, which keeps all weights, is not used."""
        return GivenMaskRule()
