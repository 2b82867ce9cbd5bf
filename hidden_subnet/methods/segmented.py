"""The layerwise budget on a GPU: the masks of all layers at once, and with them the effective weights."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hidden_subnet.masks import kept_count, topk_mask
from hidden_subnet.methods.budget import Budget, LayerwiseBudget
from hidden_subnet.methods.method import Apply, Choice
from hidden_subnet.radix_select import Segments, apply_segments, keep_counts, select_segments, supported


def layerwise(scores: Sequence[nn.Parameter], weights: Sequence[Tensor], prune_rate: float) -> Budget:
    """Each layer's K by the kernels of radix_select where they run, else by LayerwiseBudget: the same masks.

    `weights` are what the masks are for, those of each layer or its scores themselves.
    """
    if all(supported(each.detach()) for each in scores):
        try:
            budget = SegmentedBudget(scores, weights, prune_rate)
            budget.compare()
            return budget
        except Exception as error:  # whatever a compiler and a driver may raise; there is another way
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            warnings.warn(
                f"masks are made by torch.topk, layer by layer, since the kernels fail here ({why})", stacklevel=2
            )
    return LayerwiseBudget(scores, prune_rate)


class SegmentedBudget:
    """Every layer keeps the same fraction: kept_count(n) of its n weights. `refresh` works all masks out at once."""

    def __init__(self, scores: Sequence[nn.Parameter], weights: Sequence[Tensor], prune_rate: float) -> None:
        """Raises ValueError where scores and weights do not lie in memory in the same way."""
        self._scores = list(scores)
        self._segments = Segments.of([each.detach() for each in scores])
        self._weights = self._segments.alike([each.detach() for each in weights])
        self._effective = self._segments.alike([torch.empty_like(each) for each in self._weights.tensors])
        self._keep = keep_counts(self._segments, [each.numel() for each in scores])
        self.set_rate(prune_rate)

    def choices(self) -> Sequence[Choice]:
        return [_SegmentChoice(self, index) for index in range(len(self._scores))]

    def set_rate(self, prune_rate: float) -> None:
        self.kept = [kept_count(each.numel(), prune_rate) for each in self._scores]
        self._keep.copy_(keep_counts(self._segments, self.kept))
        self._seen: tuple[int, ...] | None = None

    def _versions(self) -> tuple[int, ...]:
        return tuple(each._version for each in self._scores)

    @torch.no_grad()
    def refresh(self) -> None:
        """From the scores as they are now; returns at once where they have not changed."""
        if self._seen != self._versions():
            apply_segments(self._segments, select_segments(self._segments, self._keep), self._weights, self._effective)
            self._seen = self._versions()

    def compare(self) -> None:
        """RuntimeError where torch.topk makes other masks of the present scores."""
        self.refresh()
        for index, (scores, effective) in enumerate(zip(self._scores, self._effective.tensors, strict=True)):
            expected = self._weights.tensors[index] * topk_mask(scores.detach(), self.kept[index])
            if not torch.equal(expected, effective):
                raise RuntimeError(f"the mask of weight {index + 1}, {tuple(scores.shape)}, differs from torch.topk's")

    def effective_of(self, index: int, scores: Tensor, weight: Tensor) -> Tensor:
        if weight.data_ptr() != self._weights.host[index]:
            return weight * topk_mask(scores, self.kept[index])
        if self._seen is None or self._seen[index] != scores._version:
            raise RuntimeError("the scores have changed since the masks were worked out: refresh() comes first")
        # It shares the version counter: a backward pass after the next refresh raises, and computes nothing wrong.
        return self._effective.tensors[index].detach()


class _SegmentChoice:
    def __init__(self, budget: SegmentedBudget, index: int) -> None:
        self.budget, self.index = budget, index

    def mask(self, scores: Tensor) -> Tensor:
        return topk_mask(scores, self.budget.kept[self.index])

    def decide(self, scores: Tensor) -> Apply:
        return lambda weight: self.budget.effective_of(self.index, scores, weight)
