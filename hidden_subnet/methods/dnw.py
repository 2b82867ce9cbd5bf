"""Discovering neural wirings: train all weights, use the K of largest magnitude (Wortsman et al. 2019, section 3.2).

Here a layer's scores are its trained weights, which begin as the random ones. The gradient goes straight through to
all of them, so that a weight that is not in use can grow until it is. The authors' configs name it DNWConv; its code
is lost there.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.methods.method import Apply, Choice, Method
from hidden_subnet.remade import remade


class _KeepLargest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trained: Tensor, apply: Apply) -> Tensor:
        return apply(trained.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.clone(), None  # a copy: autograd may write into what it is given


def _effective(trained: Tensor, apply: Apply) -> Tensor:
    effective: Tensor = _KeepLargest.apply(trained, apply)  # type: ignore[no-untyped-call]
    return effective


class DnwRule:
    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def mask(self, scores: Tensor) -> Tensor:
        return self.choice.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return _effective(scores, self.choice.decide(scores.detach()))

    def lend(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        apply = self.choice.decide(scores.detach())
        return remade(_effective(scores, apply), lambda: apply(scores.detach()), scores)


DNW = Method(trains="scores", rule=DnwRule, stream=None)
