"""The layerwise allocation on a GPU: all masks, and the masked weights, are computed by a few kernels per step."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hidden_subnet.config.registries import ALLOCATIONS
from hidden_subnet.masks.allocation import (
    Allocation,
    AllocationRequest,
    BudgetAllocation,
    LayerwiseAllocation,
    Rates,
    ScoreVersions,
    _layerwise,
    rates_asked,
)
from hidden_subnet.masks.gpu.select import Segments, apply_segments, keep_counts, select_segments, supported
from hidden_subnet.masks.selection import LayerSelection, MaskWeight
from hidden_subnet.masks.topk import kept_count, topk_mask


def layerwise(
    scores: Sequence[nn.Parameter], weights: Sequence[Tensor], prune_rate: float, rates: Rates | None = None
) -> Allocation:
    """Return the layerwise allocation: by the kernels of gpu/select.py where they run, and layer by layer elsewhere.

    The masks are the same. `weights`: the tensor that is masked in each layer, its weight or (dnw) its scores. rates:
    of single layers; None where all have prune_rate.
    """
    if all(supported(each.detach()) for each in scores):
        try:
            allocation = SegmentedAllocation(scores, weights, prune_rate, rates)
            allocation.compare()
            return allocation
        except Exception as error:  # a compiler and a driver may raise anything, and the run can do without them
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            warnings.warn(
                f"masks are computed by torch.topk, layer by layer, since the kernels fail here ({why})", stacklevel=2
            )
    return LayerwiseAllocation(scores, prune_rate) if rates is None else BudgetAllocation(scores, prune_rate, rates)


class SegmentedAllocation:
    """The allocation of LayerwiseAllocation on a GPU; `refresh` computes the masked weights of all layers together."""

    def __init__(
        self, scores: Sequence[nn.Parameter], weights: Sequence[Tensor], prune_rate: float, rates: Rates | None = None
    ) -> None:
        """Raise ValueError where scores and weights have different memory layouts."""
        self._scores, self._rates = list(scores), rates
        self._segments = Segments.of([each.detach() for each in scores])
        self._weights = self._segments.alike([each.detach() for each in weights])
        self._effective = self._segments.alike([torch.empty_like(each) for each in self._weights.tensors])
        self._keep = keep_counts(self._segments, [each.numel() for each in scores])
        # Of the weights too, which a method may draw again.
        self._seen = ScoreVersions([*scores, *weights])
        self.set_rate(prune_rate)

    def selections(self) -> Sequence[LayerSelection]:
        """Return for each layer a selection that reads what `refresh` computed."""
        return [_SegmentSelection(self, index) for index in range(len(self._scores))]

    def set_rate(self, prune_rate: float) -> None:
        """Set K of each layer, in place: a CUDA graph that was recorded before uses the new values."""
        shapes = [tuple(each.shape) for each in self._scores]
        found = [prune_rate] * len(shapes) if self._rates is None else self._rates(shapes, prune_rate)
        self.kept = [kept_count(each.numel(), rate) for each, rate in zip(self._scores, found, strict=True)]
        self._keep.copy_(keep_counts(self._segments, self.kept))
        self._seen.forget()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute all masked weights from the current scores; do nothing if these have not changed."""
        if not self._seen.are_current():
            apply_segments(self._segments, select_segments(self._segments, self._keep), self._weights, self._effective)
            self._seen.note()

    def compare(self) -> None:
        """Raise RuntimeError where torch.topk gives other masks for the current scores."""
        self.refresh()
        for index, (scores, effective) in enumerate(zip(self._scores, self._effective.tensors, strict=True)):
            expected = self._weights.tensors[index] * topk_mask(scores.detach(), self.kept[index])
            if not torch.equal(expected, effective):
                raise RuntimeError(f"the mask of weight {index + 1}, {tuple(scores.shape)}, differs from torch.topk's")

    def effective_of(self, index: int, scores: Tensor, weight: Tensor) -> Tensor:
        """Return the masked weight (out, in, *kernel) of layer `index`; the next refresh overwrites it.

        Another `weight` than the layer's own is masked here, by torch.topk. Raises RuntimeError where `scores` have
        changed since the last refresh.
        """
        if weight.data_ptr() != self._weights.host[index]:
            return weight * topk_mask(scores, self.kept[index])
        self._seen.require_current(index, scores)
        # The version counter is shared, so a backward pass after the next refresh raises, and never computes with
        # overwritten weights.
        return self._effective.tensors[index].detach()


class _SegmentSelection:
    def __init__(self, allocation: SegmentedAllocation, index: int) -> None:
        self.allocation, self.index = allocation, index

    def mask(self, scores: Tensor) -> Tensor:
        return topk_mask(scores, self.allocation.kept[self.index])

    def select(self, scores: Tensor) -> MaskWeight:
        return lambda weight: self.allocation.effective_of(self.index, scores, weight)


def _by_kernels(asked: AllocationRequest) -> Allocation:
    if asked.by_value:  # the kernels order by |score|
        return _layerwise(asked)
    return layerwise(asked.scores, asked.weights, asked.prune_rate, rates_asked(asked))


ALLOCATIONS["layerwise"] = replace(ALLOCATIONS["layerwise"], make_by_kernels=_by_kernels)
