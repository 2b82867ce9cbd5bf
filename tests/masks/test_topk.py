"""The mask keeps exactly K weights, by a rule among equal scores that knows no memory layout."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.masking import by_stable_sort

from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import BLOCK, SelectionBuffers, ThresholdTracker, kept_count, select, topk_mask


@pytest.mark.parametrize(
    ("n", "prune_rate", "kept"),
    [
        (100, 0.29, 71),  # binary floating point removes 28
        (100, 0.1, 90),
        (10, 0.1, 9),
        (10, 0.30000000000000004, 7),
        (10, 0.0, 10),
        (3, 0.5, 2),
        (1, 0.99, 1),
        (432, 0.995, 3),
        (27, 0.7, 9),
        (4_194_304, 0.9, 419_431),
    ],
)
def test_kept_count(n: int, prune_rate: float, kept: int) -> None:
    assert kept_count(n, prune_rate) == kept


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ([0.1, -0.9, 0.5, -0.3], 1, [0, 1, 0, 0]),
        ([0.1, -0.9, 0.5, -0.3], 2, [0, 1, 1, 0]),
        ([0.1, -0.9, 0.5, -0.3], 4, [1, 1, 1, 1]),
        ([1.0, -1.0, 1.0, 2.0], 2, [0, 0, 1, 1]),  # among equals the highest index is kept
        ([0.0, 0.0, 0.0, 0.0], 3, [0, 1, 1, 1]),
        ([0.0, 0.0, 0.0, 1.0], 2, [0, 0, 1, 1]),
        ([0.0, 1.0, 0.0, 0.0], 4, [1, 1, 1, 1]),
    ],
)
def test_topk_mask(scores: list[float], keep: int, kept: list[int]) -> None:
    assert topk_mask(torch.tensor(scores), keep).int().tolist() == kept
    # The path of other devices and types gives the same mask.
    assert topk_mask(torch.tensor(scores, dtype=torch.float64), keep).int().tolist() == kept


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ([0.1, -0.9, 0.5, -0.3], 1, [0, 0, 1, 0]),
        ([0.1, -0.9, 0.5, -0.3], 3, [1, 0, 1, 1]),
        ([0.1, -0.9, 0.5, -0.3], 4, [1, 1, 1, 1]),
        ([-1.0, -1.0, -2.0, -1.0], 2, [0, 1, 0, 1]),
        ([-1.0, -1.0, -1.0, -1.0], 3, [0, 1, 1, 1]),
    ],
)
def test_topk_mask_by_value(scores: list[float], keep: int, kept: list[int]) -> None:
    for given in (torch.tensor(scores), torch.tensor(scores, dtype=torch.float64)):
        assert topk_mask(given, keep, by_value=True).int().tolist() == kept
        weight = torch.tensor([1.0, -2.0, 3.0, -4.0], dtype=given.dtype)
        masked = TopKSelection(keep, by_value=True).select(given)(weight)
        assert masked.tolist() == (weight * torch.tensor(kept)).tolist()


@pytest.mark.parametrize("n", [5, 5000, 2 * BLOCK + 1])
@pytest.mark.parametrize("distinct", [2, 10**7], ids=["two-values", "continuous"])
def test_mask_by_value_is_that_of_a_stable_sort(n: int, distinct: int) -> None:
    scores = torch.randint(-distinct, distinct, (n,), generator=torch.Generator().manual_seed(0)).float()
    selection = TopKSelection(1, by_value=True)
    for keep in (1, n // 3, n - 1, n):
        selection.keep = keep
        expected = torch.zeros(n, dtype=torch.bool)
        expected[torch.argsort(scores, stable=True)[n - keep :]] = True
        assert torch.equal(topk_mask(scores, keep, by_value=True), expected)
        for _ in range(2):  # the second by the threshold of the first
            assert torch.equal(selection.select(scores)(torch.ones(n)) != 0, expected)


@pytest.mark.parametrize("distinct", [2, 50, 10**7], ids=["two-values", "fifty-values", "continuous"])
@pytest.mark.parametrize("shape", [(5,), (6, 4, 3, 3), (256, 300), (64, 64, 9, 9)])
def test_mask_is_that_of_a_stable_sort(shape: tuple[int, ...], distinct: int) -> None:
    source = torch.Generator().manual_seed(0)
    scores = torch.randint(-distinct, distinct, shape, generator=source).float()
    buffers = SelectionBuffers()
    for prune_rate in (0.0, 0.003, 0.1, 0.5, 0.9, 0.999):
        keep = kept_count(scores.numel(), prune_rate)
        mask = topk_mask(scores, keep, buffers)
        assert int(mask.sum()) == keep
        assert torch.equal(mask, by_stable_sort(scores, keep))
        weight = torch.randn(shape, generator=source)
        assert torch.equal(TopKSelection(keep, buffers).select(scores)(weight), weight * mask)


def test_masks_of_rising_rates_are_nested() -> None:
    scores = torch.randint(0, 9, (40, 40), generator=torch.Generator().manual_seed(1)).float()
    masks = [topk_mask(scores, kept_count(1600, rate)) for rate in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for larger, smaller in pairwise(masks):
        assert not (smaller & ~larger).any()


def test_channels_last_has_the_same_mask() -> None:
    scores = torch.randint(0, 4, (8, 6, 3, 3), generator=torch.Generator().manual_seed(2)).float()
    last = scores.to(memory_format=torch.channels_last)
    for keep in (1, 100, 431):
        mask = topk_mask(last, keep)
        assert torch.equal(mask, topk_mask(scores, keep))
        assert mask.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("adverse", ["periodic", "sorted", "outlier", "nan"])
def test_selection_survives_what_its_sample_misses(adverse: str) -> None:
    n = 8192
    scores = torch.rand(n, generator=torch.Generator().manual_seed(3)) + 1
    if adverse == "periodic":
        scores[::16] = 0  # all that the sample sees
    elif adverse == "sorted":
        scores = scores.sort().values
    elif adverse == "outlier":
        scores[5] = 1e30
    else:
        scores[7] = float("nan")
    for keep in (1, n // 2, n - 1):
        assert select(scores, keep, SelectionBuffers())[0] == torch.sort(scores).values[n - keep] or adverse == "nan"
        assert int(topk_mask(scores, keep).sum()) in ((keep,) if adverse != "nan" else (keep - 1, keep))


class CountingTracker(ThresholdTracker):
    """Counts the samples that were taken, of which a tracker is told."""

    samples = 0

    def sampled(self, low: np.float32, high: np.float32) -> None:
        self.samples += 1
        super().sampled(low, high)


def test_the_thresholds_of_earlier_steps_lead_to_the_same_threshold() -> None:
    """Drift, standstill, a jump, a change of what is kept, equal scores, nan and back: always the exact one."""
    source, buffers, tracker = torch.Generator().manual_seed(5), SelectionBuffers(), CountingTracker()
    scores = torch.randn(20_000, generator=source)
    sampled = {}
    for step in range(60):
        keep = 10_000 if step < 40 else 2_000
        if 30 <= step < 33:
            scores = (scores * 4).round() / 4
        elif step == 20:
            scores = scores * 100
        elif step == 50:
            scores[3] = torch.nan
        elif step == 51:
            scores[3] = 0
        elif step >= 5:
            scores = scores + 1e-3 * scores.abs().mean() * torch.randn(20_000, generator=source)
        before = tracker.samples
        found = select(scores, keep, buffers, tracker)
        sampled[step] = tracker.samples - before
        if step != 50:
            assert found == select(scores, keep, SelectionBuffers())
            assert found[0] == scores.abs().sort().values[20_000 - keep]
    # Where nothing jumps the first steps take a sample, and hardly any later one does.
    assert sum(sampled[step] for step in range(2, 5)) == 0
    assert sum(sampled[step] for step in range(8, 20)) <= 1
    assert sampled[20] == sampled[40] == 1
    assert sum(sampled[step] for step in range(55, 60)) <= 2


@pytest.mark.parametrize("n", [BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_selection_over_several_blocks(n: int) -> None:
    source, buffers = torch.Generator().manual_seed(4), SelectionBuffers()
    for scores in (torch.randn(n, generator=source), torch.randint(0, 99, (n,), generator=source).float()):
        ascending = scores.abs().sort().values
        for keep in (1, n // 2, n - 1):
            threshold, tied = select(scores, keep, buffers)
            assert threshold == ascending[n - keep]
            assert tied == bool(ascending[n - keep - 1] == threshold)
