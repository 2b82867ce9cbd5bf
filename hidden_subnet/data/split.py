"""Which training images are held out for validation."""

import torch
from torch import Tensor

from hidden_subnet.seeding import generator


def split(n: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (int64, ascending) of the images to train on and of the round(validation * n) held out."""
    held_out = round(validation * n)
    order = torch.randperm(n, generator=generator(seed, "split"))
    return order[held_out:].sort().values, order[:held_out].sort().values
