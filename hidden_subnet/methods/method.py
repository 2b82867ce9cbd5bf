"""What a method is: the few choices in which it differs from the shared training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hidden_subnet.layers import Rule
from hidden_subnet.masks import Scratch


@dataclass(frozen=True, kw_only=True)
class Method:
    trains: Literal["scores", "weights", "nothing"]
    rule: Callable[[int, Scratch], Rule] | None
    """(kept weights, scratch) -> a layer's rule from scores and weight to effective weight; None masks nothing."""
    stream: str = "scores"
    """The random stream of the first scores."""
    only_last_layer: bool = False
    """Of the weights, only those of the last conv or linear layer are trained."""
