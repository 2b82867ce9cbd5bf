"""Loss and accuracy: sums over images, kept on the device, and the evaluation that all parts use.

Metrics of the user's own need all logits of an evaluation, which are kept only where a run has such metrics.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hidden_subnet.masks.layers import cached_masks

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images float32 (B, C, H, W) and labels int64 (B,)."""
Measure = Callable[[Tensor, Tensor], float]
"""(logits float32 (N, classes), labels int64 (N,)), on the CPU -> a number, or NaN where it has no value."""


@dataclass(frozen=True)
class Metrics:
    """Loss and accuracy, each a mean over images."""

    loss: float
    """Cross-entropy in nats; in training metrics with train.label_smoothing."""
    top1: float
    """Fraction of the images, 0 to 1."""
    top5: float
    own: dict[str, float] = field(default_factory=dict)
    """Metrics of the user's own by name, of an evaluation; one that is not finite is left out."""

    def values(self) -> dict[str, float]:
        """Return all metrics by name: loss, top1, top5, then those of the user's own."""
        return {"loss": self.loss, "top1": self.top1, "top5": self.top5, **self.own}


def target_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the number of classes ranked before the right one, int64 (B,), from 0 to classes - 1.

    logits: (B, classes). labels: int64 (B,). Among equal logits, the lower class is ranked first, so that a dead
    network, whose logits are all equal, has the same accuracy on every device (torch.topk does not define the order).
    Where the right logit is NaN, it is the number of classes, which is no rank and never a hit.
    """
    right = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = ~(logits <= right) | ((logits == right) & (classes < labels[:, None]))
    return before.sum(dim=1)


class MetricSums:
    """Sums over images, kept on the device: reading them, once per epoch, is the only synchronisation with the host."""

    def __init__(self, device: str) -> None:
        # In float64, rounding does not matter in sums over 60,000 images; MPS does not have it.
        dtype = torch.float32 if device == "mps" else torch.float64
        self.totals = torch.zeros(4, dtype=dtype, device=device)
        """(4,): sum of losses, top-1 hits, top-5 hits, images."""

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, a scalar; logits (B, classes); labels int64 (B,)."""
        n = labels.shape[0]
        if n == 0:  # the last batch may have fewer images than there are ranks
            return
        rank = target_rank(logits.detach(), labels)
        self.totals[0] += loss.detach() * n
        self.totals[1] += (rank < 1).sum()
        self.totals[2] += (rank < min(5, logits.shape[1])).sum()
        self.totals[3] += n

    def means(self, all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums: sums) -> Metrics:
        """Return the means over all images; `all_reduce_sum` adds the sums of the ranks."""
        loss, top1, top5, n = all_reduce_sum(self.totals).tolist()
        return Metrics(loss=loss / n, top1=top1 / n, top5=top5 / n)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Batches,
    device: str,
    all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums: sums,
    before_batch: Callable[[], None] = lambda: None,
    measures: Mapping[str, Measure] | None = None,
    all_gather: Callable[[Tensor], Tensor] = lambda mine: mine,
) -> Metrics:
    """Return loss and accuracy in evaluation mode; masks are computed once, and the network is left in this mode.

    `before_batch` may raise to stop between two batches. measures: the user's own metrics by name, of the logits of all
    images; `all_gather` joins the tensors of the ranks on their first axis.
    """
    model.eval()
    sums = MetricSums(device)
    kept: list[tuple[Tensor, Tensor]] = []
    with cached_masks(model):
        for images, labels in batches:
            before_batch()
            logits = model(images)
            sums.add(F.cross_entropy(logits, labels), logits, labels)
            if measures:
                kept.append((logits.float().cpu(), labels.cpu()))
    means = sums.means(all_reduce_sum)
    if not measures:
        return means
    logits, labels = (all_gather(torch.cat(each)) for each in zip(*kept, strict=True))
    found = {name: measure(logits, labels) for name, measure in measures.items()}
    return replace(means, own={name: value for name, value in found.items() if math.isfinite(value)})
