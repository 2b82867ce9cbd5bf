"""edge-popup: learn which random weights to keep (Ramanujan et al. 2020, section 3.2).

Forward: the K weights of a layer with the largest |score|, the others 0. Backward: the mask counts as the identity
(straight-through estimator), so every score, kept or not, receives d loss / d effective weight * weight * sign(score).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.masks import Scratch, select, surplus, topk_mask
from hidden_subnet.methods.method import Method


class _TopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, rule: "TopKRule") -> Tensor:
        ctx.save_for_backward(scores, weight)
        return rule.apply_mask(scores.detach(), weight.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scores, weight = ctx.saved_tensors
        return torch.sign(scores).mul_(weight).mul_(grad), None, None


class TopKRule:
    """The rule of one layer; it reuses its buffers, so a forward pass must not follow another before its backward."""

    def __init__(self, keep: int, scratch: Scratch) -> None:
        self.keep = keep
        self.scratch = scratch
        self._effective: Tensor | None = None

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        effective: Tensor = _TopK.apply(scores, weight, self)  # type: ignore[no-untyped-call]
        return effective

    def mask(self, scores: Tensor) -> Tensor:
        return topk_mask(scores, self.keep, self.scratch)

    def apply_mask(self, scores: Tensor, weight: Tensor) -> Tensor:
        if scores.device.type != "cpu" or scores.dtype != torch.float32 or scores.stride() != weight.stride():
            return weight * self.mask(scores)
        if self._effective is None:
            self._effective = torch.empty_like(weight)
        # detach() shares the version counter: if the buffer is overwritten before a backward pass that needs it,
        # autograd raises instead of computing a wrong gradient.
        out = self._effective.detach()
        threshold, tied = select(scores, self.keep, self.scratch)
        # hardshrink's backward is "weight where |score| > bound, else 0" in one pass over memory; the bound just
        # below the threshold makes it >=. A bound below 0 keeps everything.
        bound = float(torch.nextafter(torch.tensor(threshold), torch.tensor(-1.0)))
        torch.ops.aten.hardshrink_backward.grad_input(weight, scores, bound, grad_input=out)
        if tied:
            out[surplus(scores, threshold, self.keep)] = 0
        return out


EDGE_POPUP = Method(trains="scores", rule=TopKRule)
