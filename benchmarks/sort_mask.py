"""The mask by a full sort, as the authors' code makes it: what ours is compared with."""

from typing import Any

import torch
from torch import Tensor


def sorted_mask(magnitudes: Tensor, keep: int) -> Tensor:
    """Zeros and ones as floats."""
    order = magnitudes.flatten().sort().indices
    mask = torch.empty_like(magnitudes)
    flat = mask.view(-1)
    flat[order[: order.numel() - keep]] = 0
    flat[order[order.numel() - keep :]] = 1
    return mask


class _SortedMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, magnitudes: Tensor, keep: int) -> Tensor:
        return sorted_mask(magnitudes, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class SortRule:
    """A layer's rule: autograd works out the gradient, with the mask as the identity."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        mask: Tensor = _SortedMask.apply(scores.abs(), self.keep)  # type: ignore[no-untyped-call]
        return weight * mask

    def mask(self, scores: Tensor) -> Tensor:
        return sorted_mask(scores.abs(), self.keep).bool()
