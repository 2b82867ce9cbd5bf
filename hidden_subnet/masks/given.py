"""Scores from a mask that is given: those by which exactly its weights are kept, or drawn ones in another order."""

import torch
from torch import Tensor

from hidden_subnet.masks.topk import ranked


def scores_of_mask(mask: Tensor) -> Tensor:
    """Return 1 where a weight is kept and 0 where it is removed, float32, in the shape of the boolean mask."""
    return mask.to(torch.float32)


def highest_where_kept(scores: Tensor, mask: Tensor, *, by_value: bool = False) -> Tensor:
    """Return the scores in another order: the weights that `mask` keeps get the largest |scores|, the others the rest.

    by_value: the highest scores. Both tensors have the weight's shape (out, in, *kernel). The order among the kept
    weights, and among the removed ones, stays that of `scores`, so that it is as random as they were drawn. Where the
    lowest of the kept ones ties with the highest of the others, it grows by one unit in the last place: the K highest
    are then those of the mask, whatever the rule for ties.
    """
    values, kept = scores.detach().flatten(), mask.flatten()
    order = torch.argsort(ranked(values, by_value), descending=True, stable=True)
    places = torch.cat([order[kept[order]], order[~kept[order]]])
    found = torch.empty_like(values)
    found[places] = values[order]
    count = int(kept.count_nonzero())
    if 0 < count < len(values):
        lowest, highest = values[order[count - 1]], values[order[count]]
        if ranked(lowest, by_value) == ranked(highest, by_value):
            tied = kept & (ranked(found, by_value) == ranked(lowest, by_value))
            away = torch.full_like(found, torch.inf) if by_value else torch.where(found < 0, -torch.inf, torch.inf)
            found = torch.where(tied, torch.nextafter(found, away.to(found)), found)
    return found.view(scores.shape)
