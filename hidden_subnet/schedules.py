"""Learning rate and prune rate as pure functions of the epoch (counted from 0), set once at the start of each."""

import math
from collections.abc import Sequence


def learning_rate(
    epoch: int,
    *,
    schedule: str,
    lr: float,
    epochs: int,
    warmup_epochs: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """Linear warm-up to `lr` over `warmup_epochs`, then `cosine` to 0, `constant`, or `multistep`.

    multistep: times gamma at each milestone reached. Cosine counts its angle from the end of the warm-up.
    """
    if epoch < warmup_epochs:
        return lr * (epoch + 1) / warmup_epochs
    if schedule == "cosine":
        return 0.5 * lr * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))
    if schedule == "multistep":
        return lr * gamma ** sum(epoch >= mark for mark in milestones)
    return lr


def prune_rate_at(epoch: int, *, prune_rate: float, start_rate: float, ramp_epochs: int) -> float:
    """Cubic from `start_rate` in epoch 0 to `prune_rate` from epoch `ramp_epochs` on (Zhu and Gupta 2017, eq. 1)."""
    if epoch >= ramp_epochs:
        return prune_rate
    return prune_rate + (start_rate - prune_rate) * (1 - epoch / ramp_epochs) ** 3
