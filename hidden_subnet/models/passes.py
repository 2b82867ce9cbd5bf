"""Tries a network without numbers: on torch's meta device, where tensors have shapes only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hidden_subnet.models.sizes import Shape


def built_on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network that `build` makes, on the meta device."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors, which must have values
        return build().to("meta")


def passes_on_meta(network: nn.Module, shape: Shape, last_batch: int) -> Any:
    """Return what a network on the meta device gives for 2 images of `shape` in evaluation mode, logits if it is right.

    A pass in training mode comes first, of `last_batch` images: batch norm cannot train on one value per channel.
    """
    with torch.no_grad(), torch.device("meta"):
        network.train()(torch.empty(last_batch, *shape))
        return network.eval()(torch.empty(2, *shape))
