"""Weights trained under a fixed random mask, that of `random` at the same seed: what does any sparse network reach?

The authors' configs name it RGConv; its code is lost there.
"""

from torch import Tensor

from hidden_subnet.methods.method import Choice, Method


def under_mask(weight: Tensor, mask: Tensor) -> Tensor:
    """The kept weights, others 0; so is the gradient of the removed ones."""
    return weight * mask


class FixedMaskRule:
    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self._fixed: Tensor | None = None

    def mask(self, scores: Tensor) -> Tensor:
        return self.choice.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        if self._fixed is None:  # the scores never change
            self._fixed = self.mask(scores.detach()).to(weight.dtype)
        return under_mask(weight, self._fixed)


RANDOM_TRAINED = Method(trains="weights", rule=FixedMaskRule, stream="mask", follows_ramp=False)
