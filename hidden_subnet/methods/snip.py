"""SNIP: weights are pruned once before training, by how much the loss depends on them (Lee et al. 2019, eq. 6)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.methods.base import Batch
from hidden_subnet.methods.first_phase import Layers, first, set_scores, summed, without_masks
from hidden_subnet.methods.random_trained import RandomTrained


@dataclass(kw_only=True, slots=True)
class SnipSettings(MethodSettings):
    """The settings of `snip`."""

    name: str = setting("snip", id="always")
    batches: int = setting(1, id="always", help="batches whose gradients score the weights", within=Range(1))


def snip_scores(network: nn.Module, layers: Layers, batches: list[Batch]) -> list[Tensor]:
    """Return |gradient * weight| of each layer, (out, in, *kernel), with the gradient summed over the batches."""
    with without_masks(network, layers, training=True) as weights:
        losses = (F.cross_entropy(network(images), labels) for images, labels in batches)
        sums = summed(weights, (torch.autograd.grad(loss, weights) for loss in losses))
        return [(total * weight.detach()).abs() for total, weight in zip(sums, weights, strict=True)]


@register(METHODS, "snip")
class Snip(RandomTrained):
    """Trains the weights under the mask of their first gradients."""

    settings = SnipSettings
    changes_weights = True  # the scores, which only `prepare` finds
    scores_by_fan_in = False

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Score the weights by the first method.batches batches."""
        settings = self.config.method
        assert isinstance(settings, SnipSettings)
        set_scores(self.layers, snip_scores(self.network, self.layers, first(batches, settings.batches)))
