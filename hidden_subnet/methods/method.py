"""What a method is: the few choices in which it differs from the shared training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from hidden_subnet.layers import Rule

Apply = Callable[[Tensor], Tensor]


class Choice(Protocol):
    """Which weights of one layer the budget keeps: K of the layer (TopKRule), or its part of K of the whole network."""

    def mask(self, scores: Tensor) -> Tensor:
        """Boolean, shaped as `scores`."""

    def decide(self, scores: Tensor) -> Apply:
        """What makes of a weight the effective weight, 0 where it is not kept; the same each time, for these scores."""


@dataclass(frozen=True, kw_only=True)
class Method:
    trains: Literal["scores", "weights", "both", "nothing"]
    """both: the scores and the weights of masked layers, of which the rule passes the gradient to one at a time."""
    masks: bool = True
    rule: Callable[[Choice], Rule] | None = None
    """A layer's rule from scores and weight to effective weight; None where the prune rate has no part in it."""
    stream: str | None = "scores"
    """The random stream of the first scores; None: they begin as the weights."""
    follows_ramp: bool = True
    """Whether the mask changes in training, so that pruning.ramp_epochs says how."""
    only_last_layer: bool = False
    """Of the weights, only those of the last conv or linear layer are trained."""
