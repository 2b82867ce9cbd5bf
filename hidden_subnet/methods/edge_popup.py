"""edge-popup: learn which random weights to keep (Ramanujan et al. 2020, section 3.2).

Forward: keep the K weights of a layer with the largest |score|, set the others to 0. Backward: treat the mask as the
identity function of |score| (straight-through estimator), so that the score of every weight, kept or not, receives the
gradient d loss / d masked weight * weight * sign(score). With method.transform=identity or sigmoid the K highest scores
are kept, and the mask is treated as the score, or as sigmoid(score). examples/edge_popup_from_scratch.py is the same in
about a hundred lines, without this package.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.recompute import recomputed_weight
from hidden_subnet.masks.selection import LayerSelection, MaskWeight, TopKSelection
from hidden_subnet.methods.base import Method

Transform = Enum("Transform", {"abs": "abs", "identity": "identity", "sigmoid": "sigmoid"})


def score_gradient(scores: Tensor, weight: Tensor, grad: Tensor, transform: Transform = Transform.abs) -> Tensor:
    """Return grad * weight * transform'(score), all of shape (out, in, *kernel); that of abs is sign(score)."""
    if transform is Transform.identity:
        return weight * grad
    if transform is Transform.sigmoid:
        probability = torch.sigmoid(scores)
        return (1 - probability).mul_(probability).mul_(weight).mul_(grad)
    return torch.sign(scores).mul_(weight).mul_(grad)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask_weight: MaskWeight, transform: Transform) -> Tensor:
        ctx.save_for_backward(scores, weight)
        ctx.transform = transform
        return mask_weight(weight.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        scores, weight = ctx.saved_tensors
        return score_gradient(scores, weight, grad, ctx.transform), None, None, None


def _masked(scores: Tensor, weight: Tensor, mask_weight: MaskWeight, transform: Transform) -> Tensor:
    masked: Tensor = _StraightThrough.apply(scores, weight, mask_weight, transform)  # type: ignore[no-untyped-call]
    return masked


class EdgePopupRule:
    """Masks the weight by the selection of the allocation, with the straight-through gradient for the scores.

    transform: abs for a selection of the largest |scores|, another for one of the highest scores.
    """

    def __init__(self, selection: LayerSelection, transform: Transform = Transform.abs) -> None:
        self.selection, self.transform = selection, transform

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        if (
            self.transform is Transform.abs
            and isinstance(self.selection, TopKSelection)
            and torch.compiler.is_compiling()
        ):
            masked: Tensor = masked_weight(scores, weight, self.selection.keep)
            return masked
        return _masked(scores, weight, self.selection.select(scores.detach()), self.transform)

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """Give the masked weight; the backward pass recomputes it with the same selection."""
        mask_weight = self.selection.select(scores.detach())
        return recomputed_weight(
            _masked(scores, weight, mask_weight, self.transform), lambda: mask_weight(weight.detach()), scores, weight
        )

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return self.selection.mask(scores)


@torch.library.custom_op("hidden_subnet::masked_weight", mutates_args=())
def masked_weight(scores: Tensor, weight: Tensor, keep: int) -> Tensor:
    """Return the masked weight, with K = `keep`: the rule as one custom operation for torch.compile.

    The compiler does not look inside, so that the graph of a compiled network has no break.
    """
    return TopKSelection(keep).select(scores)(weight)


@masked_weight.register_fake
def _(scores: Tensor, weight: Tensor, keep: int) -> Tensor:
    return torch.empty_like(weight)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _straight_through(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    scores, weight = ctx.saved_tensors
    return score_gradient(scores, weight, grad), None, None


masked_weight.register_autograd(_straight_through, setup_context=_keep_inputs)


@dataclass(kw_only=True, slots=True)
class EdgePopupSettings(MethodSettings):
    """The settings of `edge_popup`."""

    name: str = setting("edge_popup", id="always")
    transform: Transform = setting(
        Transform.abs, id="if_changed", help="edge_popup: what scores are compared by, abs, identity or sigmoid"
    )
    """abs: the K largest |scores| are kept. identity, sigmoid: the K highest scores, the same weights for both, with
    the gradient of the one or the other."""


@register(METHODS, "edge_popup")
class EdgePopup(Method):
    """Trains the scores of frozen random weights.

    >>> class Halved(hs.EdgePopup):
    ...     def on_step_end(self, step):
    ...         for _, layer in self.layers:
    ...             layer.scores.data.mul_(0.5 if step == 100 else 1)
    """

    settings = EdgePopupSettings
    trains = "scores"
    has_controls = True

    @classmethod
    def keeps_highest(cls, settings: Any) -> bool:
        """Return whether method.transform orders by the score itself."""
        return _transform(settings) is not Transform.abs

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return an EdgePopupRule over the selection of the layer."""
        return EdgePopupRule(selection, _transform(self.config.method))


def _transform(settings: MethodSettings) -> Transform:
    """Return method.transform; abs for the settings of a subclass, which may lack it."""
    return settings.transform if isinstance(settings, EdgePopupSettings) else Transform.abs
