"""edge-popup: learn which random weights to keep (Ramanujan et al. 2020, section 3.2).

Forward: the K weights of a layer with the largest |score|, the others 0. Backward: the mask counts as the identity
(straight-through estimator), so every score, kept or not, receives d loss / d effective weight * weight * sign(score).
"""

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.masks import Scratch, select, surplus, topk_mask
from hidden_subnet.methods.method import Choice, Method


def _score_gradient(scores: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    return torch.sign(scores).mul_(weight).mul_(grad)


class _TopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, rule: Choice) -> Tensor:
        ctx.save_for_backward(scores, weight)
        ctx.rule = rule
        return rule.apply_mask(scores.detach(), weight.detach(), user=ctx)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scores, weight = ctx.saved_tensors
        ctx.rule.release(ctx)
        return _score_gradient(scores, weight, grad), None, None


@torch.library.custom_op("hidden_subnet::masked_weight", mutates_args=())
def masked_weight(scores: Tensor, weight: Tensor, keep: int) -> Tensor:
    """TopKRule as one operation, which torch.compile leaves whole: a network that one compiles has no graph break."""
    return TopKRule(keep, Scratch()).apply_mask(scores, weight)


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
        if isinstance(self.choice, TopKRule):
            return self.choice(scores, weight)
        effective: Tensor = _TopK.apply(scores, weight, self.choice)  # type: ignore[no-untyped-call]
        return effective

    def mask(self, scores: Tensor) -> Tensor:
        return self.choice.mask(scores)


class TopKRule:
    """The choice of K weights in one layer, which writes the effective weight of each step into the same memory.

    By itself it is edge-popup's rule.
    """

    def __init__(self, keep: int, scratch: Scratch) -> None:
        self.keep = keep
        self.scratch = scratch
        self._effective: Tensor | None = None
        self._user: weakref.ref[Any] | None = None

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        effective: Tensor
        if torch.compiler.is_compiling():
            effective = masked_weight(scores, weight, self.keep)
        else:
            effective = _TopK.apply(scores, weight, self)  # type: ignore[no-untyped-call]
        return effective

    def mask(self, scores: Tensor) -> Tensor:
        return topk_mask(scores, self.keep, self.scratch)

    def release(self, user: Any) -> None:
        if self._user is not None and self._user() is user:
            self._user = None

    def _buffer(self, weight: Tensor, user: Any) -> Tensor:
        """The kept buffer, or a fresh one while a backward pass still needs it (a layer used twice in a step)."""
        if self._user is not None and self._user() is not None:
            return torch.empty_like(weight)
        self._user = None if user is None else weakref.ref(user)
        if self._effective is None:
            self._effective = torch.empty_like(weight)
        # detach() shares the version counter: if a backward pass is run a second time after the buffer was
        # overwritten, autograd raises instead of computing a wrong gradient.
        return self._effective.detach()

    def apply_mask(self, scores: Tensor, weight: Tensor, user: Any = None) -> Tensor:
        if scores.device.type != "cpu" or scores.dtype != torch.float32 or scores.stride() != weight.stride():
            return weight * self.mask(scores)
        out = self._buffer(weight, user)
        threshold, tied = select(scores, self.keep, self.scratch)
        # hardshrink's backward is "weight where |score| > bound, else 0" in one pass over memory; the bound just
        # below the threshold makes it >=. A bound below 0 keeps everything.
        bound = float(np.nextafter(np.float32(threshold), np.float32(-1)))
        torch.ops.aten.hardshrink_backward.grad_input(weight, scores, bound, grad_input=out)
        if tied:
            out[surplus(scores, threshold, self.keep)] = 0
        return out


EDGE_POPUP = Method(trains="scores", rule=EdgePopupRule)
