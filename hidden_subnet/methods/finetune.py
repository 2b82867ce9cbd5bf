"""Weights trained under a mask that is given by mask=: from the random ones, or from those of pretrained= (rewinding).

From the random weights under which the mask was found it is the lottery-ticket experiment (Frankle and Carbin 2019).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Batch, Method
from hidden_subnet.methods.fixed import GivenMaskRule


@dataclass(kw_only=True, slots=True)
class FinetuneSettings(MethodSettings):
    """The settings of `finetune`."""

    name: str = setting("finetune", id="always")
    shuffle: bool = setting(
        False, id="if_changed", help="shuffle the given mask within each layer: as many weights, others"
    )
    """The control for what is due to the density of each layer alone (Frankle et al. 2021)."""


@register(METHODS, "finetune")
class Finetune(Method):
    """Trains the weights under a mask that is given."""

    settings = FinetuneSettings
    trains = "weights"
    has_prune_rate = False
    has_given_mask = True
    score_stream = None
    changes_weights = True  # the scores, so that a checkpoint has the mask, and needs not where it came from

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a GivenMaskRule; `selection`, which keeps all weights, is not used."""
        return GivenMaskRule()

    @torch.no_grad()
    def prepare(self, batches: Iterator[Batch]) -> None:
        """Shuffle the mask within each layer, where method.shuffle says so; the order follows from seeds.scores."""
        settings = self.config.method
        assert isinstance(settings, FinetuneSettings)
        for path, layer in self.layers if settings.shuffle else []:
            mask = layer.scores.flatten()
            order = torch.randperm(len(mask), generator=self.generator(0, path)).to(mask.device)
            layer.scores.copy_(mask[order].view(layer.scores.shape))
