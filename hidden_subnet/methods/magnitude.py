"""One-shot magnitude pruning: train the weights, keep the K largest, train these further (Han et al. 2015).

With method.weight_epochs=0 they are the trained ones of pretrained=: one dense run is pruned at many rates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import Config, setting
from hidden_subnet.errors import problem
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Batch, Method
from hidden_subnet.methods.random_trained import FixedMaskRule
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings, refuse_no_epochs_left


class MagnitudeRule:
    """Keeps all weights in the dense phase, and then those of a mask that is computed once."""

    def __init__(self, selection: LayerSelection) -> None:
        self.pruned = FixedMaskRule(selection)
        self.dense = True

    def set_phase(self, dense: bool) -> None:
        """Set the phase; the mask is computed again from the scores."""
        self.dense, self.pruned = dense, FixedMaskRule(self.pruned.selection)

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel); all True in the dense phase."""
        return torch.ones_like(scores, dtype=torch.bool) if self.dense else self.pruned.mask(scores)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return weight if self.dense else self.pruned(scores, weight)


@dataclass(kw_only=True, slots=True)
class MagnitudeSettings(WarmupThenPruneSettings):
    """The settings of `magnitude`."""

    name: str = setting("magnitude", id="always")
    weight_epochs: int = setting(
        6, id="always", help="epochs in which the weights train and nothing is removed", within=Range(0)
    )
    """0: the largest weights of pretrained= are kept from the first step on."""


@register(METHODS, "magnitude")
class Magnitude(Method):
    """Trains all weights for method.weight_epochs epochs, and those of largest magnitude in the remaining ones.

    The scores are the weights at the moment of pruning; before, those that were drawn.
    """

    settings = MagnitudeSettings
    trains = "weights"
    follows_ramp = False
    changes_weights = True  # the scores, which are set between two epochs
    scores_by_fan_in = False
    score_stream = None

    @classmethod
    def dense_epochs(cls, settings: Any) -> int:
        """Return method.weight_epochs."""
        assert isinstance(settings, MagnitudeSettings)
        return settings.weight_epochs

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Refuse a number of dense epochs that leaves none to the pruned network, and no dense epochs at all."""
        if cls.dense_epochs(config.method) == 0 and config.pretrained is None:
            rule = "keeps the largest of trained weights, and there are none"
            words = "method.weight_epochs=0", "pretrained=runs/digits-dense"
            yield problem(words[0], rule, *words, lead="as in")
        yield from refuse_no_epochs_left(config, cls.dense_epochs(config.method), "what is kept trains further")

    def __init__(self, network: nn.Module, config: Config) -> None:
        self._rules: list[MagnitudeRule] = []
        super().__init__(network, config)
        self._is_pruned = False

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a MagnitudeRule over the selection of the layer."""
        self._rules.append(MagnitudeRule(selection))
        return self._rules[-1]

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Prune weights that are trained already, those of pretrained=."""
        if self.dense_epochs(self.config.method) == 0:
            self._prune()

    def on_epoch_start(self, epoch: int) -> None:
        """Set the phase of `epoch`; the first one after the dense ones prunes."""
        dense = epoch < self.dense_epochs(self.config.method)
        if not dense and not self._is_pruned:
            self._prune()
        self._set_phase(dense, epoch)

    def _prune(self) -> None:
        for _, layer in self.layers:
            layer.scores.detach().copy_(layer.weight.detach())
        self._is_pruned = True

    def on_evaluation(self, epochs_done: int) -> None:
        """Set the phase of the last finished epoch, without pruning."""
        epoch = max(0, epochs_done - 1)
        self._set_phase(epoch < self.dense_epochs(self.config.method), epoch)
        if self.allocation is not None:
            self.allocation.refresh()

    def state_dict(self) -> dict[str, Any]:
        """Return whether the weights are pruned."""
        return {"is_pruned": self._is_pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._is_pruned = state["is_pruned"]

    def _set_phase(self, dense: bool, epoch: int) -> None:
        Method.on_epoch_start(self, epoch)
        for rule in self._rules:
            rule.set_phase(dense)
