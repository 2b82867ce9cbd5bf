"""IteRand: edge-popup whose removed weights are drawn again now and then (Chijiwa et al. 2021, Algorithm 1).

After every method.every steps, each weight that the mask removes is replaced with probability method.fraction by a new
one of the run's init. What is drawn is a function of the seed, the step and the layer. Scores are compared as they are,
without the absolute value: forward, the K highest are kept; backward, the mask is treated as the score.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.layer_rates import layer_rates
from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import Config, MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.edge_popup import EdgePopupRule, Transform
from hidden_subnet.models.from_config import init_scale
from hidden_subnet.models.inits import drawn_weight, scale_attention


@dataclass(kw_only=True, slots=True)
class IterandSettings(MethodSettings):
    """The settings of `iterand`."""

    name: str = setting("iterand", id="always")
    every: int = setting(
        300, id="always", help="steps between two draws of removed weights", within=Range(1, note="1,000 on ImageNet")
    )
    fraction: float = setting(
        0.1, id="always", help="probability with which a removed weight is drawn again", within=Range(0, 1)
    )


def redrawn(weight: Tensor, mask: Tensor, chance: Tensor, fraction: float, fresh: Tensor) -> Tensor:
    """Return `fresh` where `mask` is False and `chance` is below `fraction`, and `weight` elsewhere; all of one shape.

    chance: uniform in [0, 1). fresh: new weights.
    """
    return torch.where(mask | (chance >= fraction), weight, fresh)


@register(METHODS, "iterand")
class Iterand(Method):
    """Trains the scores of random weights, of which the removed ones change."""

    settings = IterandSettings
    trains = "scores"
    changes_weights = True
    draws_in_steps = True
    has_controls = True

    def __init__(self, network: nn.Module, config: Config) -> None:
        super().__init__(network, config)
        modules = dict(network.named_modules())
        # A weight that is masked as a parameter, as one of attention, may have a path that is no module.
        self._modules = {path: modules.get(path, layer) for path, layer in self.layers}

    @classmethod
    def keeps_highest(cls, settings: Any) -> bool:
        """Return True."""
        return True

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return an EdgePopupRule over the selection of the layer, whose scores have no absolute value."""
        return EdgePopupRule(selection, Transform.identity)

    def on_step_end(self, step: int) -> None:
        """Draw removed weights again after each method.every-th step."""
        settings = self.config.method
        assert isinstance(settings, IterandSettings)
        if (step + 1) % settings.every:
            return
        if self.allocation is not None:
            self.allocation.refresh()
        rates = layer_rates(self.config, [path for path, _ in self.layers])
        for (path, layer), rate in zip(self.layers, rates, strict=True):
            shape, init = layer.weight.shape, self.config.init
            source = self.generator(step, path)
            chance = torch.rand(shape, generator=source)
            module, factor = self._modules[path], init_scale(self.config, rate)
            fresh = drawn_weight(module, shape, init.name, init.mode.name, factor, source)
            scale_attention(path, fresh, init.attention_scale)
            weight = layer.weight.detach()
            mask = layer.rule.mask(layer.scores.detach())
            weight.copy_(redrawn(weight, mask, chance.to(weight), settings.fraction, fresh.to(weight)))
