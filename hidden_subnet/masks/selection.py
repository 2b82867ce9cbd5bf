"""The selection of weights in one layer: those with the K largest |score|, selected once per forward pass."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hidden_subnet.masks.topk import SelectionBuffers, ThresholdTracker, select, ties_to_drop, topk_mask

MaskWeight = Callable[[Tensor], Tensor]
"""Maps a weight to the masked weight of the same shape, 0 where it is pruned."""


class LayerSelection(Protocol):
    """Selects the weights that a layer keeps, as its allocation decides (hidden_subnet/masks/allocation.py).

    All tensors have the weight's shape (out, in, *kernel).
    """

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask: True where the weight is kept."""

    def select(self, scores: Tensor) -> MaskWeight:
        """Return a function that maps `weight` (same shape as `scores`) to the masked weight, zero where pruned.

        The selection is made here, once; every call of the function uses it.
        """


class FixedThreshold:
    """Keeps the weights of one layer whose |score| is above a fixed number; their count is an outcome."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return scores.abs() > self.threshold

    def select(self, scores: Tensor) -> MaskWeight:
        """Return a function that sets the weights outside the selection to 0, in one pass over memory."""
        return lambda weight: _where_above(weight, scores, self.threshold)


def _where_above(weight: Tensor, scores: Tensor, bound: float, by_value: bool = False) -> Tensor:
    """Return `weight` where |score| (by_value: score) > bound and 0 elsewhere, with the strides of `weight`."""
    # The backward of hardshrink (and of threshold) computes just this. A convolution chooses its algorithm, and so its
    # rounding, by the strides of the weight. They are copied, since without `masked` torch would choose others where a
    # dimension has size 1.
    masked = torch.empty_like(weight)
    if by_value:
        torch.ops.aten.threshold_backward.grad_input(weight, scores, bound, grad_input=masked)
    else:
        torch.ops.aten.hardshrink_backward.grad_input(weight, scores, bound, grad_input=masked)
    return masked


class TopKSelection:
    """Keeps the `keep` weights of one layer with the largest |score|; ties are resolved as masks/topk.py describes.

    by_value: those with the highest score.
    """

    def __init__(self, keep: int, buffers: SelectionBuffers | None = None, *, by_value: bool = False) -> None:
        self.keep, self.by_value = keep, by_value
        self._buffers = buffers or SelectionBuffers()
        self._tracker = ThresholdTracker()

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel), with exactly `keep` True."""
        return topk_mask(scores, self.keep, self._buffers, by_value=self.by_value)

    def select(self, scores: Tensor) -> MaskWeight:
        """Return a function that sets the weights outside the selection to 0; on a CPU no mask is stored."""
        if scores.device.type != "cpu" or scores.dtype != torch.float32:
            mask = self.mask(scores)
            return lambda weight: weight * mask
        threshold, tied = select(scores, self.keep, self._buffers, self._tracker, by_value=self.by_value)
        dropped = ties_to_drop(scores, threshold, self.keep, self.by_value) if tied else None
        # With the largest float32 below the threshold as bound, > becomes >=; a bound below all scores keeps all.
        bound = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))

        def mask_weight(weight: Tensor) -> Tensor:
            masked = _where_above(weight, scores, bound, self.by_value)
            if dropped is not None:
                masked[dropped] = 0
            return masked

        return mask_weight
