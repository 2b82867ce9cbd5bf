"""SynFlow: weights are pruned before training, in rounds and without images (Tanaka et al. 2020, Algorithm 1).

A weight's score is its share in the sum of the outputs of a network with |weights|, for an image of ones. Each round
keeps the same fraction of what the one before kept, so that no layer is cut off.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hidden_subnet.config.layer_rates import final_rate
from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, Ramp, setting
from hidden_subnet.masks.allocation import prune_rate_at
from hidden_subnet.methods.base import Batch
from hidden_subnet.methods.first_phase import Layers, set_scores, without_masks
from hidden_subnet.methods.random_trained import RandomTrained


@dataclass(kw_only=True, slots=True)
class SynflowSettings(MethodSettings):
    """The settings of `synflow`."""

    name: str = setting("synflow", id="always")
    rounds: int = setting(100, id="always", help="rounds in which weights are pruned before training", within=Range(1))


def synflow_scores(network: nn.Module, layers: Layers, masks: list[Tensor], image: Tensor) -> list[Tensor]:
    """Return |weight| * d (sum of outputs) / d |weight| of each layer, (out, in, *kernel), in float64.

    For this pass the network has its |weights|, those outside `masks` at 0, and no statistics of batches. image: ones,
    (1, C, H, W).
    """
    before = [each.detach().clone() for each in network.parameters()]
    # In float32 the product over many layers overflows; mps has no float64.
    wide = torch.float32 if image.device.type == "mps" else torch.float64
    try:
        network.to(wide)
        with torch.no_grad():
            for each in network.parameters():
                each.abs_()
            for mask, (_, layer) in zip(masks, layers, strict=True):
                layer.weight.mul_(mask)
        with without_masks(network, layers, training=False) as weights:
            for module in network.modules():
                if isinstance(module, _BatchNorm):  # images that were evaluated before must not matter
                    module.reset_running_stats()
            gradients = torch.autograd.grad(network(image.to(wide)).sum(), weights)
            return [weight.detach() * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    finally:
        network.to(torch.float32)
        with torch.no_grad():
            for each, value in zip(network.parameters(), before, strict=True):
                each.copy_(value)


@register(METHODS, "synflow")
class Synflow(RandomTrained):
    """Trains the weights under a mask that was found without images."""

    settings = SynflowSettings
    changes_weights = True  # the scores, which only `prepare` finds
    scores_by_fan_in = False
    prunes_in_rounds = True

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Score and prune the weights in method.rounds rounds."""
        settings = self.config.method
        assert isinstance(settings, SynflowSettings)
        assert self.allocation is not None
        image = torch.ones_like(next(batches)[0][:1])  # no more than the shape of an image
        masks = [torch.ones_like(layer.weight, dtype=torch.bool) for _, layer in self.layers]
        for number in range(1, settings.rounds + 1):
            set_scores(self.layers, synflow_scores(self.network, self.layers, masks, image))
            rate = prune_rate_at(
                number,
                prune_rate=final_rate(self.config),
                start_rate=0.0,
                ramp_epochs=settings.rounds,
                ramp=Ramp.geometric,
            )
            self.allocation.set_rate(rate)
            self.allocation.refresh()
            masks = [layer.rule.mask(layer.scores.detach()) for _, layer in self.layers]
