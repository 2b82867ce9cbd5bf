"""First the weights train densely, then they freeze and edge-popup searches them: the authors' lottery trainer."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from hidden_subnet.methods.edge_popup import EdgePopupRule
from hidden_subnet.methods.method import Choice, Method


class WarmupRule:
    """In either phase the gradient reaches one of the two only, so the optimizer leaves the other as it is."""

    def __init__(self, choice: Choice) -> None:
        self.search = EdgePopupRule(choice)
        self.dense = True
        """Set at the beginning of each epoch."""

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return weight if self.dense else self.search(scores, weight)

    def lend(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        return nullcontext(weight) if self.dense else self.search.lend(scores, weight)

    def mask(self, scores: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool) if self.dense else self.search.mask(scores)


WARMUP_THEN_PRUNE = Method(trains="both", rule=WarmupRule)
