"""Which weights a score mask keeps: exactly K of each layer, those with the largest |score|.

The rule among equal |scores|: the weights with the highest index in logical (row-major) order are kept. It depends on
neither memory layout nor device, so CPU, CUDA, channels_last and every rank agree on the mask. It is what a stable
ascending sort gives that drops the first n - K.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from torch import Tensor

Floats = np.ndarray[Any, np.dtype[np.float32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def kept_count(n: int, prune_rate: float) -> int:
    """K = n - floor(prune_rate * n), in the decimal sense: 0.29 of 100 removes 29, where floats say 28.

    12 digits of the rate count, so that 0.30000000000000004 is 0.3; at least 1 of n >= 1 weights is kept.
    """
    return n - math.floor(Decimal(f"{prune_rate:.12g}") * n)


BLOCK = 2**17
"""Weights that are looked at together: what is made of them stays in the core's own cache."""


class Scratch:
    """The buffers for the selection, of one block: all layers of a model take turns."""

    def __init__(self) -> None:
        self._magnitudes = np.empty(0, np.float32)
        self._below = np.empty(0, np.bool_)
        self._upto = np.empty(0, np.bool_)

    def of(self, n: int) -> tuple[Floats, Bools, Bools]:
        if self._magnitudes.size < n:
            self._magnitudes = np.empty(n, np.float32)
            self._below, self._upto = np.empty(n, np.bool_), np.empty(n, np.bool_)
        return self._magnitudes[:n], self._below[:n], self._upto[:n]


LARGEST = float(np.finfo(np.float32).max)


class Trail:
    """Where a layer's threshold was in the steps before: from one to the next it moves a little."""

    def __init__(self) -> None:
        self._threshold = math.nan
        self._reach = math.inf
        self._widest = 0.0

    def bracket(self) -> tuple[np.float32, np.float32] | None:
        """Where to look for it first; None where that would be no less than what a sample tells."""
        if not self._reach <= self._widest:
            return None
        return np.float32(self._threshold - self._reach), np.float32(min(self._threshold + self._reach, LARGEST))

    def sampled(self, low: np.float32, high: np.float32) -> None:
        self._widest = (float(high) - float(low)) / 2

    def found(self, threshold: float) -> None:
        moved = abs(threshold - self._threshold)
        # Eight times the last move hardly ever misses; after a long one it grows narrow again slowly.
        narrower = 0.7 * self._reach if math.isfinite(self._reach) else 0.0
        self._reach = max(8 * moved, narrower) if math.isfinite(moved) else math.inf
        self._threshold = threshold


def select(scores: Tensor, keep: int, scratch: Scratch, trail: Trail | None = None) -> tuple[float, bool]:
    """The K-th largest |score| of dense float32 CPU `scores`, and whether equal ones stand on both sides of the cut.

    Selection by sampling (Floyd and Rivest 1975): two order statistics of a sample bracket the threshold; one pass
    counts what lies below the bracket, and only the few per cent inside are partitioned. In training the `trail` of
    the steps before gives a narrower bracket, and no sample is taken. Exact: a bracket that misses falls back to the
    sample's, and that to partitioning all. 1.2 ns a weight on one core (0.7 on the trail), where torch.sort takes 117;
    numpy's partition alone takes 1.2 or 7, as its AVX-512 code suits the processor or not.
    """
    n = scores.numel()
    drop = n - keep
    if drop == 0:
        return 0.0, False
    # Storage order: an order statistic does not depend on the layout, and nothing is copied.
    values = scores.as_strided((n,), (1,)).numpy()
    if n >= 4096:
        for low, high in _brackets(values, drop / n, trail):
            inside, below = _between(values, low, high, scratch)
            rank = drop - below
            if 0 <= rank < inside.size:
                threshold, tied = _partition(inside, rank)
                if trail is not None:
                    trail.found(threshold)
                return threshold, tied
    return _partition(np.abs(values), drop)


def _brackets(values: Floats, quantile: float, trail: Trail | None) -> Iterator[tuple[np.float32, np.float32]]:
    if trail is not None and (near := trail.bracket()) is not None:
        yield near
    sample = _bracket(np.abs(values[:: 16 if values.size < 2**18 else 64]), quantile)
    if trail is not None:
        trail.sampled(*sample)
    yield sample


def _between(values: Floats, low: np.float32, high: np.float32, scratch: Scratch) -> tuple[Floats, int]:
    """The magnitudes from `low` to `high`, and how many lie below."""
    found, count = [], 0
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK]
        magnitudes, below, upto = scratch.of(block.size)
        np.abs(block, out=magnitudes)
        np.less(magnitudes, low, out=below)
        np.less_equal(magnitudes, high, out=upto)
        np.greater(upto, below, out=upto)
        found.append(magnitudes[upto.nonzero()[0]])
        count += int(np.count_nonzero(below))
    return np.concatenate(found), count


def _bracket(sample: Floats, quantile: float) -> tuple[np.float32, np.float32]:
    """Two values of the sample, four standard errors of a rank to either side of the quantile."""
    m = sample.size
    spread = 4 * math.sqrt(m * quantile * (1 - quantile)) + 1
    low, high = max(0, int(quantile * m - spread)), min(m - 1, int(quantile * m + spread))
    sample.partition([low, high])
    return sample[low], sample[high]


def _partition(values: Floats, rank: int) -> tuple[float, bool]:
    values.partition(rank)
    return float(values[rank]), bool(rank > 0 and values[:rank].max() == values[rank])


def topk_mask(scores: Tensor, keep: int, scratch: Scratch | None = None) -> Tensor:
    """The boolean mask, shaped and laid out as `scores`, with exactly `keep` weights kept; 1 <= keep <= n."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        threshold, tied = select(scores.detach(), keep, scratch or Scratch())
        mask = scores.detach().abs() >= threshold
        if tied:
            mask[surplus(scores.detach(), threshold, keep)] = False
        return mask
    # No host synchronisation: the threshold stays on the device, and ties are settled whether there are any or not.
    largest = torch.topk(scores.detach().abs().flatten(), keep, sorted=False).values
    return _settle_ties(scores.detach(), largest.min(), keep)


def surplus(scores: Tensor, threshold: float, keep: int) -> tuple[Tensor, ...]:
    """Indices, a tensor a dimension, of what |score| >= threshold keeps too much: the equal ones of lowest index."""
    magnitude = scores.abs().flatten()
    equal = torch.nonzero(magnitude == threshold).flatten()
    excess = equal.numel() - (keep - int(torch.count_nonzero(magnitude > threshold)))
    return torch.unravel_index(equal[:excess], scores.shape)


def _settle_ties(scores: Tensor, threshold: Tensor, keep: int) -> Tensor:
    magnitude = scores.abs().flatten()
    above, equal = magnitude > threshold, magnitude == threshold
    from_the_end = equal.flip(0).cumsum(0).flip(0)
    mask = above | (equal & (from_the_end <= keep - above.sum()))
    # flatten() reads in logical order; the mask goes back to the layout of the scores.
    return torch.empty_like(scores, dtype=torch.bool).copy_(mask.view(scores.shape))
