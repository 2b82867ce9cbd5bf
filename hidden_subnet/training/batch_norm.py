"""Recalibrates batch norm before an evaluation, from training images, so that its statistics are those of the masks.

The running averages of training lag behind a mask that changes in every step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hidden_subnet.masks.layers import cached_masks


def layers_with_statistics(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers that keep running statistics."""
    return [each for each in model.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the running statistics of all batch-norm layers to their mean over `batches`, with equal weights.

    The result depends on the network and the batches (images (B, C, H, W), labels) alone: earlier statistics are
    discarded, and only the norm layers are in training mode, so that dropout draws nothing. The network is left in
    evaluation mode.
    """
    layers = layers_with_statistics(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # None: torch computes the cumulative mean
            layer.train()
        with cached_masks(model):
            for images, _ in batches:
                model(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()
