"""GraSP: weights are pruned once before training, so that the gradient stays large (Wang et al. 2020, eq. 8)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
class GraspSettings(MethodSettings):
    """The settings of `grasp`."""

    name: str = setting("grasp", id="always")
    batches: int = setting(1, id="always", help="batches whose gradients score the weights", within=Range(1))
    temperature: float = setting(
        200.0,
        id="always",
        help="the logits are divided by it while the weights are scored",
        within=Range(0, above=True),
    )


def grasp_scores(network: nn.Module, layers: Layers, batches: list[Batch], temperature: float) -> list[Tensor]:
    """Return weight * (H g) of each layer, (out, in, *kernel); the highest are to be kept.

    g: gradient of the loss, summed over the batches; H: its Hessian, of which only the product with g is computed.
    """
    with without_masks(network, layers, training=True) as weights:

        def gradients(batch: Batch, *, again: bool) -> tuple[Tensor, ...]:
            images, labels = batch
            loss = F.cross_entropy(network(images) / temperature, labels)
            return torch.autograd.grad(loss, weights, create_graph=again)

        whole = summed(weights, (gradients(batch, again=False) for batch in batches))

        def flow(batch: Batch) -> Tensor:
            return torch.stack([(g * t).sum() for g, t in zip(gradients(batch, again=True), whole, strict=True)]).sum()

        products = summed(weights, (torch.autograd.grad(flow(batch), weights) for batch in batches))
        return [product * weight.detach() for product, weight in zip(products, weights, strict=True)]


@register(METHODS, "grasp")
class Grasp(RandomTrained):
    """Trains the weights under the mask that preserves their first gradient."""

    settings = GraspSettings
    changes_weights = True  # the scores, which only `prepare` finds
    scores_by_fan_in = False

    @classmethod
    def keeps_highest(cls, settings: Any) -> bool:
        """Return True."""
        return True

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Score the weights by the first method.batches batches."""
        settings = self.config.method
        assert isinstance(settings, GraspSettings)
        chosen = first(batches, settings.batches)
        set_scores(self.layers, grasp_scores(self.network, self.layers, chosen, settings.temperature))
