"""The statistics of batch norm, taken anew before an evaluation.

The running averages that training keeps lag behind a mask that changes at every step. Those of the last masks alone
are had by showing the network training images once more.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hidden_subnet.layers import masks_held


def layers_with_statistics(model: nn.Module) -> list[_BatchNorm]:
    return [each for each in model.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]


@torch.no_grad()
def take_statistics(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the running statistics to their mean over `batches`, each batch counting the same.

    A function of the network and the batches alone: nothing of the statistics so far stays, and nothing is drawn at
    random, since only the norm layers act as in training (dropout does not).
    """
    layers = layers_with_statistics(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the cumulative mean
            layer.train()
        with masks_held(model):
            for images, _ in batches:
                model(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()
