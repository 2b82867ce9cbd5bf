"""Allocations distribute the prune rate over the layers: by a rate for each layer, or one threshold for all layers.

An allocation gives each layer its selection. A new allocation is a class with the three methods of `Allocation`, an
AllocationEntry in registries.ALLOCATIONS, and a yaml in conf/pruning/.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from hidden_subnet.config.own_parts import said
from hidden_subnet.config.registries import ALLOCATIONS, AllocationEntry, register, register_own
from hidden_subnet.config.settings import Pruning, Ramp
from hidden_subnet.config.signature import arguments_in, arguments_of, settings_of
from hidden_subnet.errors import AGAIN
from hidden_subnet.masks.selection import LayerSelection, MaskWeight, TopKSelection
from hidden_subnet.masks.topk import SelectionBuffers, kept_count, select, ties_to_drop, topk_mask

Rates = Callable[[Sequence[tuple[int, ...]], float], Sequence[float]]
"""(shapes of the weights, (out, in, *kernel); prune_rate) -> the fraction to remove of each, in [0, 1)."""
Budget = TypeVar("Budget", bound=Callable[..., Sequence[float]])
FIRST = ("shapes", "prune_rate")


class Allocation(Protocol):
    """The interface of an allocation to its method (hidden_subnet/methods/base.py)."""

    def selections(self) -> Sequence[LayerSelection]:
        """Return one selection for each layer, in the order of the layers."""

    def set_rate(self, prune_rate: float) -> None:
        """Set the fraction of weights to remove, in [0, 1); called at the start of each epoch."""

    def refresh(self) -> None:
        """Compute the masks that need the scores of all layers; called before each step and each evaluation."""


@dataclass(frozen=True)
class AllocationRequest:
    """The layers for which an allocation is made, an item of each in the order of the network, and its settings."""

    scores: Sequence[nn.Parameter]
    weights: Sequence[Tensor]
    """The tensor that is masked in each layer: its weight, or (dnw) its scores."""
    fan_ins: Sequence[int]
    prune_rate: float
    floor: float
    by_value: bool
    """True: the highest scores are kept, not the largest |scores|."""
    layer_rates: Callable[[float], Sequence[float]] | None = None
    """With pruning.rates: the prune rate of all layers -> that of each, [0, 1)."""
    settings: Pruning = field(default_factory=Pruning)
    """Those of `pruning`, with what a budget of the user's own has more."""


class ScoreVersions:
    """The versions of the scores for which masks were computed, by which an allocation sees that they have changed."""

    def __init__(self, scores: Sequence[Tensor]) -> None:
        self._scores = list(scores)
        self._noted: tuple[int, ...] | None = None

    def are_current(self) -> bool:
        """Return whether no scores have changed since `note`."""
        return self._noted == tuple(each._version for each in self._scores)

    def note(self) -> None:
        """Note that masks are computed from the scores as they are."""
        self._noted = tuple(each._version for each in self._scores)

    def forget(self) -> None:
        """Note that the masks are out of date, whatever the scores."""
        self._noted = None

    def require_current(self, index: int, scores: Tensor) -> None:
        """Raise RuntimeError where `scores`, of layer `index`, have changed since `note`."""
        if self._noted is None or self._noted[index] != scores._version:
            raise RuntimeError(
                "the scores have changed since the masks were computed: call refresh() first "
                "(a method: self.allocation.refresh())"
            )


class LayerwiseAllocation:
    """Every layer has the same density: it keeps kept_count(n, prune_rate) of its n weights.

    by_value: those with the highest score, not with the largest |score|.
    """

    def __init__(self, scores: Sequence[nn.Parameter], prune_rate: float, *, by_value: bool = False) -> None:
        buffers = SelectionBuffers()
        self._sizes = [each.numel() for each in scores]
        self._selections = [TopKSelection(kept_count(n, prune_rate), buffers, by_value=by_value) for n in self._sizes]

    def selections(self) -> Sequence[LayerSelection]:
        """Return a TopKSelection for each layer."""
        return self._selections

    def set_rate(self, prune_rate: float) -> None:
        """Set K of each layer's selection."""
        for selection, n in zip(self._selections, self._sizes, strict=True):
            selection.keep = kept_count(n, prune_rate)

    def refresh(self) -> None:
        """Do nothing, since each layer computes its own mask in its forward pass."""


class BudgetAllocation(LayerwiseAllocation):
    """Every layer has a prune rate of its own, which a function of the shapes of all layers decides."""

    def __init__(
        self, scores: Sequence[nn.Parameter], prune_rate: float, rates: Rates, *, by_value: bool = False
    ) -> None:
        super().__init__(scores, prune_rate, by_value=by_value)
        self._shapes, self._rates = [tuple(each.shape) for each in scores], rates
        self.set_rate(prune_rate)

    def set_rate(self, prune_rate: float) -> None:
        """Set K of each layer's selection, where all layers together have this prune rate."""
        found = self._rates(self._shapes, prune_rate)
        for selection, n, rate in zip(self._selections, self._sizes, found, strict=True):
            selection.keep = kept_count(n, rate)


class ProportionalAllocation(LayerwiseAllocation):
    """Each layer keeps weights in proportion to its share, and all layers together kept_count(N, prune_rate)."""

    def __init__(
        self, scores: Sequence[nn.Parameter], shares: Sequence[int], prune_rate: float, *, by_value: bool = False
    ) -> None:
        super().__init__(scores, prune_rate, by_value=by_value)
        self._shares = list(shares)
        self.set_rate(prune_rate)

    def set_rate(self, prune_rate: float) -> None:
        """Set K of each layer's selection. Raises ValueError where fewer weights than layers are kept."""
        require_one_each(self._sizes, prune_rate, 0.0)
        counts = proportional_counts(self._sizes, self._shares, kept_count(sum(self._sizes), prune_rate))
        for selection, count in zip(self._selections, counts, strict=True):
            selection.keep = count


def proportional_counts(sizes: Sequence[int], shares: Sequence[int], keep: int) -> list[int]:
    """Return how many weights each layer keeps, `keep` in all: in proportion to `shares`, from 1 to all of a layer.

    keep: from the number of layers to the sum of `sizes`. What rounding down leaves goes, one each, to the layers with
    the largest remainders, and among equal ones to the last.
    """

    def counts_of(factor: float) -> list[int]:
        return [max(1, min(n, math.floor(factor * share))) for n, share in zip(sizes, shares, strict=True)]

    low, high = 0.0, 2.0 * max(n / share for n, share in zip(sizes, shares, strict=True))
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if sum(counts_of(middle)) <= keep else (low, middle)
    counts = counts_of(low)
    remainders = [low * share - count for share, count in zip(shares, counts, strict=True)]
    order = sorted(range(len(sizes)), key=lambda layer: (remainders[layer], layer), reverse=True)
    while (left := keep - sum(counts)) > 0:
        for layer in [each for each in order if counts[each] < sizes[each]][:left]:
            counts[layer] += 1
    return counts


def require_one_each(sizes: Sequence[int], prune_rate: float, floor: float) -> None:
    """Raise ValueError where fewer weights are kept than there are layers."""
    if (keep := kept_count(sum(sizes), prune_rate)) < len(sizes):
        raise ValueError(
            f"prune_rate={prune_rate:g} keeps {keep} weights, fewer than the {len(sizes)} layers; choose a smaller "
            "prune_rate, or pruning=layerwise"
        )


class GlobalAllocation:
    """One threshold for all layers, which keeps the weights with the largest |score| * sqrt(fan_in).

    Together the layers keep kept_count(N, prune_rate) of their N weights. The factor is there because the first scores
    are uniform within +-1/sqrt(fan_in): without it, one threshold would keep nothing in a wide layer. A layer of n
    weights keeps at least floor * (1 - prune_rate) * n of them, and at least one weight. by_value: score in place of
    |score|.
    """

    def __init__(
        self,
        scores: Sequence[nn.Parameter],
        fan_ins: Sequence[int],
        prune_rate: float,
        floor: float,
        *,
        by_value: bool = False,
    ) -> None:
        self._scores, self._floor, self._by_value = list(scores), floor, by_value
        self._factors = [math.sqrt(fan_in) for fan_in in fan_ins]
        self._sizes = [each.numel() for each in scores]
        self._buffers = SelectionBuffers()
        # The layers one after the other: |score| * sqrt(fan_in), or score * sqrt(fan_in), and the mask.
        self._flat = torch.empty(sum(self._sizes), device=scores[0].device)
        self._kept = torch.empty(sum(self._sizes), dtype=torch.bool, device=scores[0].device)
        self._masks = [
            part.view(each.shape) for part, each in zip(_parts(self._kept, self._sizes), scores, strict=True)
        ]
        self._seen = ScoreVersions(scores)
        self.set_rate(prune_rate)

    def selections(self) -> Sequence[LayerSelection]:
        """Return for each layer a selection that reads its part of the common mask."""
        return [_GlobalSelection(self, index) for index in range(len(self._sizes))]

    def set_rate(self, prune_rate: float) -> None:
        """Set how many weights are kept. Raises ValueError where the floors need more than that."""
        self._keep, self._floors = kept_and_floors(self._sizes, prune_rate, self._floor)
        self._seen.forget()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute all masks from the current scores; do nothing if these have not changed since the last call."""
        if self._seen.are_current():
            return
        for part, scores, factor in zip(_parts(self._flat, self._sizes), self._scores, self._factors, strict=True):
            if self._by_value:
                torch.mul(scores.detach(), factor, out=part.view(scores.shape))
            else:
                torch.abs(scores.detach(), out=part.view(scores.shape)).mul_(factor)
        keep_largest(self._flat, self._sizes, self._keep, self._floors, self._buffers, self._kept)
        self._seen.note()

    def mask_of(self, index: int, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel) of layer `index`; the next refresh overwrites it.

        Raises RuntimeError where `scores` have changed since the last refresh.
        """
        self._seen.require_current(index, scores)
        return self._masks[index]


class _GlobalSelection:
    """The selection of one layer in a GlobalAllocation."""

    def __init__(self, allocation: GlobalAllocation, index: int) -> None:
        self.allocation, self.index = allocation, index

    def mask(self, scores: Tensor) -> Tensor:
        return self.allocation.mask_of(self.index, scores).clone()

    def select(self, scores: Tensor) -> MaskWeight:
        mask = self.allocation.mask_of(self.index, scores)
        selected = mask._version

        def mask_weight(weight: Tensor) -> Tensor:
            if mask._version != selected:  # every refresh writes the masks into the same memory
                raise RuntimeError("the masks were computed again between a forward and its backward pass")
            return weight * mask

        return mask_weight


def kept_and_floors(sizes: Sequence[int], prune_rate: float, floor: float) -> tuple[int, list[int]]:
    """Return how many weights all layers keep together, and for each layer how many it keeps at least.

    `sizes`: number of weights of each layer. Raises ValueError where the floors need more weights than are kept.
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
    """Return floor * (1 - prune_rate) * n, rounded down but at least 1; computed in decimals, as kept_count is."""
    share = Decimal(f"{floor:.12g}") * (1 - Decimal(f"{prune_rate:.12g}")) * n
    return max(1, math.floor(share))


def keep_largest(
    flat: Tensor, sizes: Sequence[int], keep: int, floors: Sequence[int], buffers: SelectionBuffers, out: Tensor
) -> Tensor:
    """Write the mask of the `keep` largest values of `flat` to `out` and return it; `flat` is overwritten.

    flat: float32 (N,): the layers one after the other, sizes[i] values of layer i. out: bool (N,). The
    floors[i] largest values of layer i are kept in any case, and then the largest of the others in any layer. Among
    equal values, those with the highest index in `flat` are kept.
    """
    if flat.device.type != "cpu":
        return out.copy_(largest_on_device(flat, sizes, keep, floors))
    _select_into(out, flat, keep, buffers)
    while True:
        # What a layer below its floor is given raises the threshold of the others, which may then fall below theirs.
        below_floor = [
            (part, floor)
            for part, kept, floor in zip(_parts(flat, sizes), _parts(out, sizes), floors, strict=True)
            if int(kept.count_nonzero()) < floor
        ]
        if not below_floor:
            return out
        for part, floor in below_floor:
            part.masked_fill_(topk_mask(part, floor, buffers, by_value=True), torch.inf)
        _select_into(out, flat, keep, buffers)


def largest_on_device(flat: Tensor, sizes: Sequence[int], keep: int, floors: Sequence[int]) -> Tensor:
    """Return the mask of `keep_largest`, bool (N,), without synchronising with the host; `flat` is overwritten.

    Every floor is applied, also where a layer is above it: this gives the same mask.
    """
    for part, floor in zip(_parts(flat, sizes), floors, strict=True):
        part.masked_fill_(topk_mask(part, floor, by_value=True), torch.inf)
    return topk_mask(flat, keep, by_value=True)


def _select_into(out: Tensor, flat: Tensor, keep: int, buffers: SelectionBuffers) -> None:
    threshold, tied = select(flat, keep, buffers, by_value=True)
    torch.ge(flat, threshold, out=out)
    if tied:
        out[ties_to_drop(flat, threshold, keep, by_value=True)] = False


def _parts(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return list(torch.split(flat, list(sizes)))  # type: ignore[no-untyped-call]


def prune_rate_at(
    epoch: int, *, prune_rate: float, start_rate: float, ramp_epochs: int, ramp: Ramp = Ramp.cubic
) -> float:
    """Return the prune rate of an epoch (counted from 0).

    It rises from `start_rate` in epoch 0 to `prune_rate` in epoch `ramp_epochs`, and is constant from there on. cubic:
    Zhu and Gupta 2017, eq. 1; geometric: the density falls by the same factor in each epoch, Sreenivasan et al. 2022.
    """
    if epoch >= ramp_epochs:
        return prune_rate
    if ramp is Ramp.geometric:
        factor: float = ((1 - prune_rate) / (1 - start_rate)) ** (epoch / ramp_epochs)
        return 1 - (1 - start_rate) * factor
    return prune_rate + (start_rate - prune_rate) * (1 - epoch / ramp_epochs) ** 3


def rates_asked(asked: AllocationRequest) -> Rates | None:
    """Return the function of the rates of single layers, for BudgetAllocation; None where all have one rate."""
    own = asked.layer_rates
    return None if own is None else lambda shapes, prune_rate: own(prune_rate)


def _layerwise(asked: AllocationRequest) -> Allocation:
    if (rates := rates_asked(asked)) is not None:
        return BudgetAllocation(asked.scores, asked.prune_rate, rates, by_value=asked.by_value)
    return LayerwiseAllocation(asked.scores, asked.prune_rate, by_value=asked.by_value)


def _global(asked: AllocationRequest) -> Allocation:
    return GlobalAllocation(asked.scores, asked.fan_ins, asked.prune_rate, asked.floor, by_value=asked.by_value)


def _erk(asked: AllocationRequest) -> Allocation:
    """Erdos-Renyi kernel (Evci et al. 2020, appendix A): density as (in + out + kernel sides) / (in * out * kernel)."""
    shares = [sum(each.shape) for each in asked.scores]
    return ProportionalAllocation(asked.scores, shares, asked.prune_rate, by_value=asked.by_value)


def _balanced(asked: AllocationRequest) -> Allocation:
    """Every layer keeps the same number of weights, or all that it has."""
    shares = [1] * len(asked.scores)
    return ProportionalAllocation(asked.scores, shares, asked.prune_rate, by_value=asked.by_value)


register(ALLOCATIONS, "layerwise")(AllocationEntry(_layerwise, takes_rates=True))
register(ALLOCATIONS, "global")(AllocationEntry(_global, has_floor=True, require=kept_and_floors))
register(ALLOCATIONS, "erk")(AllocationEntry(_erk, require=require_one_each))
register(ALLOCATIONS, "balanced")(AllocationEntry(_balanced, require=require_one_each))


def register_budget(name: str) -> Callable[[Budget], Budget]:
    """Return a decorator that makes `pruning=<name>` spread the rate by `(shapes, prune_rate, **settings)`.

    >>> @hs.register_budget("spare_the_first")
    ... def spare_the_first(shapes, prune_rate):
    ...     return [0.0] + [prune_rate for _ in shapes[1:]]

    shapes: of the masked weights, (out, in, *kernel), in the order of the network. It returns the fraction to remove of
    each, in [0, 1), so that all together lose prune_rate of theirs if it says so: the table shows the density that
    came out. With pruning.ramp_epochs it is asked again in every epoch. Further arguments need a default or a type
    (bool, int, float, str, lists of these). Raises TypeError for arguments that cannot be settings, ValueError for a
    name in use.
    """

    def enter(budget: Budget) -> Budget:
        settings = settings_of(name, budget, Pruning, "pruning", FIRST, by_position=True)
        own = arguments_of(budget, FIRST)

        def rates(shapes: Sequence[tuple[int, ...]], prune_rate: float, pruning: Pruning) -> Sequence[float]:
            try:
                found = [float(each) for each in budget(list(shapes), prune_rate, **arguments_in(pruning, own))]
            except (Exception, SystemExit) as error:  # whatever the user's code raises
                raise ValueError(f"{said(error)}; mend the function, and {AGAIN}") from error
            if len(found) != len(shapes):
                raise ValueError(f"returns {len(found)} rates for {len(shapes)} layers; mend the function, and {AGAIN}")
            for shape, rate in zip(shapes, found, strict=True):
                if not 0 <= rate < 1:
                    raise ValueError(
                        f"returns the rate {rate:g} for a layer of shape {shape} at prune_rate={prune_rate:g}; a rate "
                        f"is the fraction to remove, from 0 to below 1: mend the function, and {AGAIN}"
                    )
            return found

        def make(asked: AllocationRequest) -> Allocation:
            of_run = partial(rates, pruning=asked.settings)
            return BudgetAllocation(asked.scores, asked.prune_rate, of_run, by_value=asked.by_value)

        register_own("pruning", ALLOCATIONS, name, budget)(AllocationEntry(make, settings=settings, try_shapes=rates))
        return budget

    return enter
