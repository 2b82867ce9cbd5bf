"""The validation split of the training images, and the choice of a fraction of the others."""

import torch
from torch import Tensor

from hidden_subnet.config.data_info import held_out
from hidden_subnet.seeding import generator


def split(n: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the images to train on, and of the round(validation * n) held out; int64, ascending.

    They are drawn without regard to classes, whose shares among them vary by chance.
    """
    held = held_out(n, validation)
    order = torch.randperm(n, generator=generator(seed, "split"))
    return order[held:].sort().values, order[:held].sort().values


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """Return all indices, int64 (N,), in an order whose every prefix is stratified by class.

    The first images are one of each class, however small the class. From there on, a prefix holds of each class
    max(1, round(p * its images)) for some p: in proportion, but for classes too small for their one image, which are
    paid for by the others. Within a class the order is random. So the first 20 % of the images include the first 10 %.
    """
    shuffled = torch.randperm(len(labels), generator=generator(seed, "fraction"))
    by_class = shuffled[labels[shuffled].sort(stable=True).indices]
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.arange(len(labels)) - first
    place = (rank + 0.5) / counts.repeat_interleave(counts)
    place[rank == 0] = 0
    # Stable, so that among equal places the lower class is first.
    return by_class[place.sort(stable=True).indices]
