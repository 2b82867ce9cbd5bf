"""edge-popup: learn which random weights to keep (Ramanujan et al. 2020, section 3.2).

Forward: the K weights of a layer with the largest |score|, the others 0. Backward: the mask counts as the identity
(straight-through estimator), so every score, kept or not, receives d loss / d effective weight * weight * sign(score).
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.masks import Scratch, Trail, select, surplus, topk_mask
from hidden_subnet.methods.method import Apply, Choice, Method
from hidden_subnet.remade import remade


def _score_gradient(scores: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    return torch.sign(scores).mul_(weight).mul_(grad)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, apply: Apply) -> Tensor:
        ctx.save_for_backward(scores, weight)
        return apply(weight.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scores, weight = ctx.saved_tensors
        return _score_gradient(scores, weight, grad), None, None


def _effective(scores: Tensor, weight: Tensor, apply: Apply) -> Tensor:
    effective: Tensor = _StraightThrough.apply(scores, weight, apply)  # type: ignore[no-untyped-call]
    return effective


@torch.library.custom_op("hidden_subnet::masked_weight", mutates_args=())
def masked_weight(scores: Tensor, weight: Tensor, keep: int) -> Tensor:
    """TopKRule as one operation, which torch.compile leaves whole: a network that one compiles has no graph break."""
    return TopKRule(keep, Scratch()).decide(scores)(weight)


@masked_weight.register_fake
def _(scores: Tensor, weight: Tensor, keep: int) -> Tensor:
    return torch.empty_like(weight)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _straight_through(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    scores, weight = ctx.saved_tensors
    return _score_gradient(scores, weight, grad), None, None


masked_weight.register_autograd(_straight_through, setup_context=_keep_inputs)


class EdgePopupRule:
    """edge-popup over whatever choice the budget makes."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.choice, TopKRule) and torch.compiler.is_compiling():
            effective: Tensor = masked_weight(scores, weight, self.choice.keep)
            return effective
        return _effective(scores, weight, self.choice.decide(scores.detach()))

    def lend(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        apply = self.choice.decide(scores.detach())
        return remade(_effective(scores, weight, apply), lambda: apply(weight.detach()), scores, weight)

    def mask(self, scores: Tensor) -> Tensor:
        return self.choice.mask(scores)


class TopKRule:
    """The choice of K weights in one layer. By itself it is edge-popup's rule."""

    def __init__(self, keep: int, scratch: Scratch) -> None:
        self.keep = keep
        self.scratch = scratch
        self._trail = Trail()

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return EdgePopupRule(self)(scores, weight)

    def lend(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        return EdgePopupRule(self).lend(scores, weight)

    def mask(self, scores: Tensor) -> Tensor:
        return topk_mask(scores, self.keep, self.scratch)

    def decide(self, scores: Tensor) -> Apply:
        if scores.device.type != "cpu" or scores.dtype != torch.float32:
            mask = self.mask(scores)
            return lambda weight: weight * mask
        threshold, tied = select(scores, self.keep, self.scratch, self._trail)
        dropped = surplus(scores, threshold, self.keep) if tied else None
        # hardshrink's backward is "weight where |score| > bound, else 0" in one pass over memory; the bound just
        # below the threshold makes it >=. A bound below 0 keeps everything.
        bound = float(np.nextafter(np.float32(threshold), np.float32(-1)))

        def apply(weight: Tensor) -> Tensor:
            # With the very strides of the weight, by which a convolution chooses its algorithm, and so its rounding:
            # where a dimension has one element, torch would make others.
            effective = torch.empty_like(weight)
            torch.ops.aten.hardshrink_backward.grad_input(weight, scores, bound, grad_input=effective)
            if dropped is not None:
                effective[dropped] = 0
            return effective

        return apply


EDGE_POPUP = Method(trains="scores", rule=EdgePopupRule)
