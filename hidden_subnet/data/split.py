"""Which training images are held out for validation, and which of the others are trained on."""

import torch
from torch import Tensor

from hidden_subnet.data.info import held_out
from hidden_subnet.seeding import generator


def split(n: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (int64, ascending) of the images to train on and of the round(validation * n) held out."""
    held = held_out(n, validation)
    order = torch.randperm(n, generator=generator(seed, "split"))
    return order[held:].sort().values, order[:held].sort().values


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """Indices (int64) in an order of which every beginning holds each class in its share, to within one image.

    It begins with an image of each class. Within a class the order is random; so the first 10 % lie in the first 20 %.
    """
    shuffled = torch.randperm(len(labels), generator=generator(seed, "fraction"))
    by_class = shuffled[labels[shuffled].sort(stable=True).indices]
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.arange(len(labels)) - first
    place = (rank + 0.5) / counts.repeat_interleave(counts)
    place[rank == 0] = 0
    # Stable: among equals the lower class stands first.
    return by_class[place.sort(stable=True).indices]
