"""Dense warm-up, then edge-popup: the weights are trained, then frozen, and a subnetwork of them is searched.

This is the lottery trainer of the code of Ramanujan et al.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import Config, MethodSettings, setting
from hidden_subnet.errors import problem
from hidden_subnet.masks.layers import ScoreRule, norm_factors, not_masked
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.edge_popup import EdgePopupRule


class WarmupRule:
    """Passes the gradient to the weight alone in the dense phase, and to the scores alone in the search phase.

    The optimizer does not change a parameter without a gradient.
    """

    def __init__(self, selection: LayerSelection) -> None:
        self.search = EdgePopupRule(selection)
        self.dense = True
        """True in the dense phase, in which all weights are kept; set at the start of each epoch."""

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return weight if self.dense else self.search(scores, weight)

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """Give the masked weight; in the dense phase it is the weight, and nothing is recomputed."""
        return nullcontext(weight) if self.dense else self.search.recomputed(scores, weight)

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask (out, in, *kernel); all True in the dense phase."""
        return torch.ones_like(scores, dtype=torch.bool) if self.dense else self.search.mask(scores)


@dataclass(kw_only=True, slots=True)
class WarmupThenPruneSettings(MethodSettings):
    """The settings of `warmup_then_prune`."""

    name: str = setting("warmup_then_prune", id="always")
    weight_epochs: int = setting(
        6, id="always", help="epochs in which the weights train and nothing is removed", within=Range(1)
    )


def refuse_no_epochs_left(config: Config, dense_epochs: int, why: str) -> Iterator[str]:
    """Yield a line where the dense epochs leave none to the subnetwork; why: the reason, "what is kept trains"."""
    if dense_epochs >= config.train.epochs:
        rule = f"must be below train.epochs={config.train.epochs}, so that {why}"
        yield problem(f"method.weight_epochs={dense_epochs}", rule, f"train.epochs={dense_epochs + 1}", lead="as in")


@register(METHODS, "warmup_then_prune")
class WarmupThenPrune(Method):
    """Trains the weights for method.weight_epochs epochs, and the scores in the remaining ones."""

    settings = WarmupThenPruneSettings
    trains = "both"
    changes_weights = True  # what requires no gradient in the search phase was trained before, so checkpoints hold it

    @classmethod
    def dense_epochs(cls, settings: Any) -> int:
        """Return method.weight_epochs."""
        assert isinstance(settings, WarmupThenPruneSettings)
        return settings.weight_epochs

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Refuse a number of dense epochs that leaves none to the scores."""
        why = "both the weights and then the scores train"
        yield from refuse_no_epochs_left(config, cls.dense_epochs(config.method), why)

    def __init__(self, network: nn.Module, config: Config) -> None:
        super().__init__(network, config)
        learned = norm_factors(network) if config.train.norm_affine else {}  # in both phases
        self.unmasked = [network.get_parameter(name) for name in not_masked(network) if name not in learned]

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a WarmupRule over the selection of the layer."""
        return WarmupRule(selection)

    def on_epoch_start(self, epoch: int) -> None:
        """Set the phase of `epoch` and its prune rate."""
        dense = epoch < self.dense_epochs(self.config.method)
        for _, layer in self.layers:
            assert isinstance(layer.rule, WarmupRule)
            layer.rule.dense = dense
        for parameter in self.unmasked:  # norm layers, biases and dense layers train and freeze with the weights
            parameter.requires_grad_(dense)
        super().on_epoch_start(epoch)
