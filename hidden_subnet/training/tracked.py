"""Lines that trackers get beside the rows, where they are asked for: losses of single steps, histograms of scores."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from hidden_subnet.masks.layers import masked_layers

BINS = 64
"""Bins of a histogram, between the smallest and the largest score of a layer."""


class StepLoss:
    """The loss of every n-th step, from the sums of the epoch (MetricSums.totals); no other step waits for the GPU."""

    def __init__(self, every: int) -> None:
        """`every`: steps from one loss to the next; 0: none."""
        self.every = every
        self._before: Tensor | None = None

    def start(self, totals: Tensor) -> None:
        """Take the sums (4,) with which an epoch, or the rest of one, begins."""
        self._before = totals.clone() if self.every else None

    def after(self, step: int, totals: Tensor) -> float | None:
        """Return the mean loss of the batch of step `step`, counted from 1, if it is one of those asked for."""
        if not self.every:
            return None
        loss = None
        if step % self.every == 0 and self._before is not None:
            losses, _, _, images = (totals - self._before).tolist()
            loss = losses / images if images else None  # with several ranks, of rank 0's images
        if (step + 1) % self.every == 0:
            self._before = totals.clone()
        return loss


def layer_histograms(network: nn.Module, masks: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Return for each masked layer its path, and how its scores are distributed. Draws no random number.

    edges: (BINS + 1,) of the bins. kept, removed: (BINS,) numbers of weights. mean, std: of the scores. masks: boolean
    (out, in, *kernel) by path.
    """
    found = {}
    for path, layer in masked_layers(network):
        scores, mask = layer.scores.detach().float().cpu().numpy(), masks[path].cpu().numpy()
        edges = np.histogram_bin_edges(scores, BINS)
        kept, removed = np.histogram(scores[mask], edges)[0], np.histogram(scores[~mask], edges)[0]
        found[path] = {
            "edges": edges.tolist(),
            "kept": kept.tolist(),
            "removed": removed.tolist(),
            "mean": float(scores.mean(dtype=np.float64)),
            "std": float(scores.std(dtype=np.float64)),
        }
    return found
