"""How the prune rate is spread over the layers: so many weights of each, or of all layers together.

A budget makes the choice of each layer. `set_rate` says how much is kept from now on; `refresh` is called before a step
and before an evaluation, once the scores have changed.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

import torch
from torch import Tensor, nn

from hidden_subnet.masks import Scratch, kept_count, select, surplus, topk_mask
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.methods.method import Apply, Choice


class Budget(Protocol):
    def choices(self) -> Sequence[Choice]:
        """One a layer, in order."""

    def set_rate(self, prune_rate: float) -> None: ...

    def refresh(self) -> None: ...


class LayerwiseBudget:
    """Every layer keeps the same fraction: kept_count(n) of its n weights."""

    def __init__(self, scores: Sequence[nn.Parameter], prune_rate: float) -> None:
        scratch = Scratch()
        self._sizes = [each.numel() for each in scores]
        self._choices = [TopKRule(kept_count(n, prune_rate), scratch) for n in self._sizes]

    def choices(self) -> Sequence[Choice]:
        return self._choices

    def set_rate(self, prune_rate: float) -> None:
        for choice, n in zip(self._choices, self._sizes, strict=True):
            choice.keep = kept_count(n, prune_rate)

    def refresh(self) -> None:
        """Nothing: each layer chooses by itself in its forward pass."""


class GlobalBudget:
    """One threshold for all layers: kept_count(N) of the N weights of all, the largest |score| * sqrt(fan_in).

    The first scores are uniform within 1/sqrt(fan_in): unscaled, one threshold would keep nothing of a wide layer.
    Of a layer of n weights at least `floor` of its fair share (1 - prune_rate) n is kept, and one weight.
    """

    def __init__(self, scores: Sequence[nn.Parameter], fan_ins: Sequence[int], prune_rate: float, floor: float) -> None:
        self._scores, self._floor = list(scores), floor
        self._factors = [math.sqrt(fan_in) for fan_in in fan_ins]
        self._sizes = [each.numel() for each in scores]
        self._scratch = Scratch()
        self._flat = torch.empty(sum(self._sizes), device=scores[0].device)
        self._kept = torch.empty(sum(self._sizes), dtype=torch.bool, device=scores[0].device)
        self._masks = [
            part.view(each.shape) for part, each in zip(_parts(self._kept, self._sizes), scores, strict=True)
        ]
        self._seen: tuple[int, ...] | None = None
        self.set_rate(prune_rate)

    def choices(self) -> Sequence[Choice]:
        return [_GlobalChoice(self, index) for index in range(len(self._sizes))]

    def set_rate(self, prune_rate: float) -> None:
        self._keep, self._floors = kept_and_floors(self._sizes, prune_rate, self._floor)
        self._seen = None

    def _versions(self) -> tuple[int, ...]:
        return tuple(each._version for each in self._scores)

    @torch.no_grad()
    def refresh(self) -> None:
        """Work out all masks from the scores as they are now; returns at once where they have not changed."""
        if self._seen == self._versions():
            return
        for part, scores, factor in zip(_parts(self._flat, self._sizes), self._scores, self._factors, strict=True):
            torch.abs(scores.detach(), out=part.view(scores.shape)).mul_(factor)
        keep_largest(self._flat, self._sizes, self._keep, self._floors, self._scratch, self._kept)
        self._seen = self._versions()

    def mask_of(self, index: int, scores: Tensor) -> Tensor:
        if self._seen is None or self._seen[index] != scores._version:
            raise RuntimeError(
                "the scores have changed since the global threshold was worked out: refresh() comes first"
            )
        return self._masks[index]


class _GlobalChoice:
    def __init__(self, budget: GlobalBudget, index: int) -> None:
        self.budget, self.index = budget, index

    def mask(self, scores: Tensor) -> Tensor:
        return self.budget.mask_of(self.index, scores).clone()

    def decide(self, scores: Tensor) -> Apply:
        mask = self.budget.mask_of(self.index, scores)
        decided = mask._version

        def apply(weight: Tensor) -> Tensor:
            if mask._version != decided:  # the budget writes all masks into the same memory
                raise RuntimeError("the masks were worked out anew between a forward and its backward pass")
            return weight * mask

        return apply


def kept_and_floors(sizes: Sequence[int], prune_rate: float, floor: float) -> tuple[int, list[int]]:
    """How many weights all layers of `sizes` keep, and how many each does at least.

    Raises ValueError where so few weights are kept that there is not one for each layer.
    """
    floors = [floor_count(n, prune_rate, floor) for n in sizes]
    keep = kept_count(sum(sizes), prune_rate)
    if sum(floors) > keep:
        raise ValueError(
            f"prune_rate={prune_rate:g} keeps {keep} weights, fewer than the {sum(floors)} that the floors of "
            f"{len(floors)} layers ask for; choose a smaller prune_rate, or pruning=layerwise"
        )
    return keep, floors


def floor_count(n: int, prune_rate: float, floor: float) -> int:
    """max(1, floor * (1 - prune_rate) * n, rounded down), in the decimal sense."""
    share = Decimal(f"{floor:.12g}") * (1 - Decimal(f"{prune_rate:.12g}")) * n
    return max(1, math.floor(share))


def keep_largest(
    flat: Tensor, sizes: Sequence[int], keep: int, floors: Sequence[int], scratch: Scratch, out: Tensor
) -> Tensor:
    """Write to the boolean `out` which `keep` of the non-negative float32 `flat` are kept, and spoil `flat`.

    `flat` holds the layers one after the other, of `sizes`. The floors[i] largest of layer i are kept in any case; of
    the rest the largest, whichever layer they are in. Among equal ones the highest index in `flat` is kept.
    """
    if flat.device.type != "cpu":
        return out.copy_(largest_on_device(flat, sizes, keep, floors))
    _select_into(out, flat, keep, scratch)
    while True:
        # A layer below its floor has that much set aside, which raises the threshold for the others: look again.
        poor = [
            (part, floor)
            for part, kept, floor in zip(_parts(flat, sizes), _parts(out, sizes), floors, strict=True)
            if int(kept.count_nonzero()) < floor
        ]
        if not poor:
            return out
        for part, floor in poor:
            part.masked_fill_(topk_mask(part, floor, scratch), torch.inf)
        _select_into(out, flat, keep, scratch)


def largest_on_device(flat: Tensor, sizes: Sequence[int], keep: int, floors: Sequence[int]) -> Tensor:
    """The same without a host synchronisation: whether a floor is needed is not asked."""
    for part, floor in zip(_parts(flat, sizes), floors, strict=True):
        part.masked_fill_(topk_mask(part, floor), torch.inf)
    return topk_mask(flat, keep)


def _select_into(out: Tensor, flat: Tensor, keep: int, scratch: Scratch) -> None:
    threshold, tied = select(flat, keep, scratch)
    torch.ge(flat, threshold, out=out)
    if tied:
        out[surplus(flat, threshold, keep)] = False


def _parts(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return list(torch.split(flat, list(sizes)))  # type: ignore[no-untyped-call]
