"""Nanoseconds a weight, from the scores of one layer to its effective weight."""

from itertools import cycle

import torch
from torch import Tensor

from benchmarks.sort_mask import SortRule
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import SelectionBuffers, kept_count
from hidden_subnet.methods.edge_popup import EdgePopupRule

PRUNE_RATES = (0.1, 0.5, 0.9)


def rows(sizes: tuple[int, ...], rounds: int) -> list[Row]:
    return [row for n in sizes for prune_rate in PRUNE_RATES for row in _rows(n, prune_rate, rounds)]


@torch.no_grad()
def _rows(n: int, prune_rate: float, rounds: int) -> list[Row]:
    keep = kept_count(n, prune_rate)
    source = torch.Generator().manual_seed(0)
    weight, scores = torch.randn(2, n, generator=source)
    tied = _tied_at_the_cut(scores, keep)
    # As far from one step to the next as those of fc at a learning rate of 0.1.
    moving = cycle([scores * (1 + 5e-4 * step) for step in (0, 1, 2, 1)])
    buffers = SelectionBuffers()

    def rule() -> EdgePopupRule:
        return EdgePopupRule(TopKSelection(keep, buffers))

    ours, sorting = rule(), SortRule(keep)
    for _ in range(3):
        ours(next(moving), weight)
    seconds = by_turns(
        {
            "ours": lambda: ours(next(moving), weight),
            "ours, first step": lambda: rule()(scores, weight),
            "ours, equal at the cut": lambda: rule()(tied, weight),
            "by sorting": lambda: sorting(scores, weight),
        },
        rounds,
    )

    def row(name: str, unit: str, samples: list[float], goal: float | None = None) -> Row:
        topic = f"mask, {n:,} weights, {prune_rate:.0%} removed"
        return Row(topic=topic, name=name, unit=unit, samples=samples, goal=goal)

    goals = {"ours": 2.2, "ours, first step": 2.2}
    return [
        *(row(name, "ns/weight", [1e9 * s / n for s in samples], goals.get(name)) for name, samples in seconds.items()),
        row("by sorting / ours", "x", ratios(seconds["by sorting"], seconds["ours"])),
    ]


def _tied_at_the_cut(scores: Tensor, keep: int) -> Tensor:
    """A copy in which the last score to be removed has the magnitude of the last to be kept."""
    tied = scores.clone()
    last_removed, last_kept = scores.abs().argsort()[scores.numel() - keep - 1 :][:2]
    tied[last_removed] = tied[last_kept]
    return tied
