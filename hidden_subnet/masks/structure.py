"""Structured masks: exactly N of every M weights, or whole blocks or output channels, are kept (pruning.structure).

Each structure is a way to lay the weights of a layer, (out, in, *kernel), into the rows of a matrix (`as_rows`). With
N:M a row has M consecutive inputs of one output, at one position of the kernel, and N of them are kept. A block has the
kernels of some consecutive outputs by as many consecutive inputs, a channel those of one output; such rows are kept or
removed whole, by the sum of what their weights are ranked by. Among equal ones the last are kept, as in masks/topk.py.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from hidden_subnet.config.checks import kept_of_each
from hidden_subnet.config.settings import Indivisible, Pruning, Structure
from hidden_subnet.masks.coding import information
from hidden_subnet.masks.selection import LayerSelection, MaskWeight, TopKSelection
from hidden_subnet.masks.topk import kept_count, ranked, topk_mask


def does_not_divide(shape: Sequence[int], pruning: Pruning) -> str:
    """Return why the structure does not divide a weight of `shape`, (out, in, *kernel); "" where it does."""
    outputs, inputs = shape[:2]
    if pruning.structure is Structure.n_m and inputs % pruning.m:
        return f"pruning.m={pruning.m} does not divide its {inputs} input{'s' * (inputs > 1)}"
    if pruning.structure is Structure.block and (outputs % pruning.block or inputs % pruning.block):
        return f"pruning.block={pruning.block} does not divide both {outputs} and {inputs}, its outputs and inputs"
    return ""


def left_dense(shapes: dict[str, tuple[int, ...]], pruning: Pruning) -> dict[str, str]:
    """Return path and reason of each weight that pruning.indivisible=dense leaves as it is.

    shapes: of the masked weights, by path. Raises ValueError with the first one where pruning.indivisible=refuse.
    """
    found = {path: why for path, shape in shapes.items() if (why := does_not_divide(shape, pruning))}
    if pruning.indivisible is Indivisible.refuse:
        for path, why in found.items():
            raise ValueError(
                f"{path} {shapes[path]}: {why}; to keep all weights of such a layer, type: pruning.indivisible=dense"
            )
    return found


def as_rows(weight: Tensor, pruning: Pruning) -> Tensor:
    """Return the elements of a weight, (out, in, *kernel), as rows (R, members); with structure=weight it is one row.

    The structure must divide the shape.
    """
    outputs, inputs = weight.shape[:2]
    m, side = pruning.m, pruning.block
    if pruning.structure is Structure.n_m:
        return weight.reshape(outputs, inputs // m, m, -1).transpose(2, 3).reshape(-1, m)
    if pruning.structure is Structure.block:
        blocks = weight.reshape(outputs // side, side, inputs // side, side, -1)
        return blocks.transpose(1, 2).reshape(-1, side * side * blocks.shape[-1])
    return weight.reshape(outputs if pruning.structure is Structure.channel else 1, -1)


def from_rows(rows: Tensor, like: Tensor, pruning: Pruning) -> Tensor:
    """Return the inverse of `as_rows`, in shape and memory layout of `like`."""
    outputs, inputs = like.shape[:2]
    m, side = pruning.m, pruning.block
    if pruning.structure is Structure.n_m:
        rows = rows.reshape(outputs, inputs // m, -1, m).transpose(2, 3)
    elif pruning.structure is Structure.block:
        rows = rows.reshape(outputs // side, inputs // side, side, side, -1).transpose(1, 2)
    return torch.empty_like(like, dtype=rows.dtype).copy_(rows.reshape(like.shape))


def n_of_each(rows: Tensor, n: int) -> Tensor:
    """Return the mask, bool (R, M), of the `n` largest of each row; of equal ones the last are kept."""
    members = rows.t()
    # A member is kept if fewer than n others beat it; for short rows this takes a fifth of the time of a sort.
    beaten = torch.zeros(members.shape, dtype=torch.uint8, device=rows.device)
    for one, other in combinations(range(len(members)), 2):
        wins = members[one] > members[other]
        beaten[other] += wins
        beaten[one] += ~wins
    return (beaten < n).t()


def structured_mask(scores: Tensor, pruning: Pruning, prune_rate: float, *, by_value: bool = False) -> Tensor:
    """Return the boolean mask, in shape and memory layout of `scores`, (out, in, *kernel).

    n_m: m * (1 - prune_rate) of each group. block, channel: kept_count(R, prune_rate) of R. by_value: scores are ranked
    as they are, and not by |score|. Raises ValueError for a rate that does not keep a whole number of a group.
    """
    rows = as_rows(ranked(scores, by_value), pruning)
    if pruning.structure is Structure.n_m:
        n = kept_of_each(prune_rate, pruning.m)
        if n is None:
            raise ValueError(f"prune_rate={prune_rate:g} keeps no whole number of every {pruning.m} weights")
        return from_rows(n_of_each(rows, n), scores, pruning)
    kept = topk_mask(rows.sum(dim=1), kept_count(len(rows), prune_rate), by_value=True)
    return from_rows(kept[:, None].expand(rows.shape), scores, pruning)


def mask_bits(shape: Sequence[int], kept: int, pruning: Pruning) -> float:
    """Return the bits that tell a mask of `kept` weights from all others of its kind: n H(k / n), by rows n and k.

    H: the binary entropy. n_m: log2 of the ways to choose N of M, for each group. shape: (out, in, *kernel).
    """
    size = math.prod(shape)
    divided = not does_not_divide(shape, pruning)
    if pruning.structure is Structure.n_m and divided:
        return size / pruning.m * math.log2(math.comb(pruning.m, round(pruning.m * kept / size)))
    rows = size
    if pruning.structure is Structure.channel:
        rows = shape[0]
    elif pruning.structure is Structure.block and divided:
        rows = shape[0] * shape[1] // pruning.block**2
    return information(rows, rows * kept / size)


def inverted(scores: Tensor, pruning: Pruning, *, by_value: bool) -> Tensor:
    """Return the scores in reversed order, (out, in, *kernel), so that the lowest ones are kept.

    weight, n_m: within each row, where by size each keeps its sign, which may have a meaning of its own (signed).
    block, channel: the rows change places whole.
    """
    value = as_rows(ranked(scores, by_value), pruning)
    if pruning.structure in (Structure.block, Structure.channel):
        rising = value.sum(dim=1).argsort(stable=True)
        rows = torch.empty_like(value)
        rows[rising] = as_rows(scores, pruning)[rising.flip(0)]
        return from_rows(rows, scores, pruning)
    rising = value.argsort(dim=1, stable=True)
    rows = torch.empty_like(value).scatter_(1, rising, value.gather(1, rising.flip(1)))
    return from_rows(rows if by_value else rows.copysign_(as_rows(scores, pruning)), scores, pruning)


class StructuredSelection:
    """Keeps the weights of one layer by its structure."""

    def __init__(self, pruning: Pruning, prune_rate: float, *, by_value: bool) -> None:
        self.pruning, self.prune_rate, self.by_value = pruning, prune_rate, by_value

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel)."""
        return structured_mask(scores, self.pruning, self.prune_rate, by_value=self.by_value)

    def select(self, scores: Tensor) -> MaskWeight:
        """Return a function that sets the weights outside the mask to 0."""
        mask = self.mask(scores)
        return lambda weight: weight * mask


class StructuredAllocation:
    """Every layer has the same density, in units of its structure; one that is not divided keeps all weights."""

    def __init__(self, scores: Sequence[Tensor], prune_rate: float, pruning: Pruning, *, by_value: bool) -> None:
        self._selections: list[LayerSelection] = [
            TopKSelection(each.numel(), by_value=by_value)
            if does_not_divide(each.shape, pruning)
            else StructuredSelection(pruning, prune_rate, by_value=by_value)
            for each in scores
        ]

    def selections(self) -> Sequence[LayerSelection]:
        """Return a selection for each layer."""
        return self._selections

    def set_rate(self, prune_rate: float) -> None:
        """Set the rate of each layer that is divided."""
        for selection in self._selections:
            if isinstance(selection, StructuredSelection):
                selection.prune_rate = prune_rate

    def refresh(self) -> None:
        """Do nothing, since each layer computes its own mask in its forward pass."""
