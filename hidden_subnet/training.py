"""The one training loop and the one evaluation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from hidden_subnet.layers import masks_held

Batches = Iterable[tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], None]
"""A step on images and labels."""


@dataclass(frozen=True)
class Metrics:
    loss: float
    """Mean cross-entropy in nats, with label smoothing where the training has it."""
    top1: float
    top5: float


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes stand before the right one, (B,): 0 is a top-1 hit, below 5 a top-5 hit.

    Among equal logits the lower class stands first, so that a dead network, whose logits are all equal, scores the
    same everywhere; topk leaves the choice open. A logit that is not a number is never a hit.
    """
    right = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = ~(logits <= right) | ((logits == right) & (classes < labels[:, None]))
    return before.sum(dim=1)


@dataclass
class Sums:
    """Totals over images, kept on the device: reading them is the only synchronisation, once an epoch."""

    device: str
    totals: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # float64 adds up 60,000 images without rounding that matters; MPS has none.
        self.totals = torch.zeros(4, dtype=torch.float32 if self.device == "mps" else torch.float64, device=self.device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        n = labels.shape[0]
        if n == 0:  # a small last batch, of which this process has no part
            return
        rank = ranks(logits.detach(), labels)
        self.totals[0] += loss.detach() * n
        self.totals[1] += (rank < 1).sum()
        self.totals[2] += (rank < 5).sum()
        self.totals[3] += n

    def means(self, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Metrics:
        """`total` adds up the sums of the processes that have a part of the images each."""
        loss, top1, top5, n = total(self.totals).tolist()
        return Metrics(loss=loss / n, top1=top1 / n, top5=top5 / n)


def train_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: Optimizer,
    label_smoothing: float,
    sums: Sums,
    after_step: Callable[[], None],
    before_step: Callable[[], None] = lambda: None,
    penalty: Callable[[], Tensor] | None = None,
    weights: Iterator[float] | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    faster: Callable[[Step], Step] = lambda step: step,
) -> None:
    """One pass over `batches`, adding to `sums`; `after_step` may raise to stop at a step's boundary.

    The `penalty` is trained on with the loss, and not part of the loss that `sums` adds up. `weights`: a factor of
    each batch's loss, where this process has a part of it only. `forward` gives the logits in place of `model`, and
    `faster` takes the step for one that does the same (hidden_subnet/speed.py, hidden_subnet/step_graph.py).
    """
    model.train()
    forward = forward or model

    def step(images: Tensor, labels: Tensor) -> None:
        before_step()
        optimizer.zero_grad()  # before the forward pass, which has their memory then
        logits = forward(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        trained_on = loss if weights is None else loss * next(weights)
        (trained_on if penalty is None else trained_on + penalty()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums.add(loss, logits, labels)

    take = faster(step)
    for images, labels in batches:
        take(images, labels)
        after_step()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Batches,
    device: str,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
    before_batch: Callable[[], None] = lambda: None,
) -> Metrics:
    """`total` as in Sums.means; `before_batch` may raise to stop at a batch's boundary."""
    model.eval()
    sums = Sums(device)
    with masks_held(model):
        for images, labels in batches:
            before_batch()
            logits = model(images)
            sums.add(F.cross_entropy(logits, labels), logits, labels)
    return sums.means(total)
