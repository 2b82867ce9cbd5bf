"""Supermasks: a weight is kept with probability sigmoid(score), drawn anew in every step (Zhou et al. 2019, section 5).

Backward: the drawn mask counts as its probability (straight-through), so a score receives
d loss / d effective weight * weight * sigmoid'(score). No rate: how many weights are kept is an outcome.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.methods.method import Method
from hidden_subnet.seeding import derive

Evaluation = Literal["sample", "threshold", "mean"]


def drawn(probability: Tensor, seed: int, *moment: str | int) -> Tensor:
    """Boolean: each True with its probability; the bits are those of (seed, moment), and of the kind of device."""
    source = torch.Generator(probability.device).manual_seed(derive(seed, "sampled", *moment))
    # Drawn in logical order, whatever the memory format.
    uniform = torch.rand(probability.shape, generator=source, device=probability.device)
    mask: Tensor = uniform < probability
    return mask


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(scores, weight)
        return weight * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scores, weight = ctx.saved_tensors
        probability = torch.sigmoid(scores)
        return (1 - probability).mul_(probability).mul_(weight).mul_(grad), None, None


class SampledRule:
    """One layer's; `path` tells its stream from those of other layers."""

    def __init__(self, seed: int, path: str, evaluation: Evaluation) -> None:
        self.seed, self.path, self.evaluation = seed, path, evaluation
        self.training = False
        self.moment = 0
        """The step in training, else the number of finished epochs; set before each."""

    def mask(self, scores: Tensor) -> Tensor:
        """What the present step, or the present evaluation, keeps; `mean` keeps all."""
        probability = torch.sigmoid(scores)
        if self.training:
            return drawn(probability, self.seed, "step", self.moment, self.path)
        if self.evaluation == "sample":
            return drawn(probability, self.seed, "epoch", self.moment, self.path)
        return probability > (0.5 if self.evaluation == "threshold" else 0)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        if not self.training and self.evaluation == "mean":
            return weight * torch.sigmoid(scores)
        effective: Tensor = _Sampled.apply(scores, weight, self.mask(scores.detach()))  # type: ignore[no-untyped-call]
        return effective


SAMPLED = Method(trains="scores")
