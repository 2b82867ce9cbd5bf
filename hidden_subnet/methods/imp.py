"""Iterative magnitude pruning, the lottery-ticket experiment (Frankle and Carbin 2019), as a chain of runs.

Each round is a run. It starts from the round before it, its parent, and the first one from the dense network, which is
the run with prune_rate=0. Of the weights that its parent kept it keeps those that training made largest, rewinds them
to the random ones, or to those after some epochs of the dense network (Frankle et al. 2020), and trains them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.ranges import Range, rounded
from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import Config, MethodSettings, Scale, setting
from hidden_subnet.errors import problem
from hidden_subnet.masks.given import scores_of_mask
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.masks.state import load_trained
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.fixed import GivenMaskRule

SLACK = 1e-3
"""Part of a round that a prune rate of few digits may be more than a whole number of them."""


@dataclass(kw_only=True, slots=True)
class ImpSettings(MethodSettings):
    """The settings of `imp`."""

    name: str = setting("imp", id="always")
    per_round: float = setting(
        0.2,
        id="always",
        help="fraction of the weights that are left which a round removes, at most",
        within=Range(0.01, 0.99, "the fraction removed of what is left"),
    )
    rewind_epochs: int = setting(
        0, id="always", help="weights are rewound to those after as many epochs of the dense network", within=Range(0)
    )
    learning_rate_rewinding: bool = setting(
        False, id="always", help="weights stay as they were trained, and only the learning rate starts again"
    )
    """Renda et al. 2020."""


def rounds(prune_rate: float, per_round: float) -> int:
    """Return the number of rounds to a prune rate, each of which removes the same part, `per_round` or less."""
    exact = math.log(1 - prune_rate) / math.log(1 - per_round)
    return max(1, math.ceil(exact - SLACK)) if prune_rate > 0 else 0


def before(prune_rate: float, count: int, per_round: float) -> float:
    """Return the prune rate one round before, where `count` rounds lead to `prune_rate`.

    Where these all remove `per_round`, it is that of another target on their ladder, to the last digit.
    """
    is_on_ladder = rounded(prune_rate) == rounded(1 - (1 - per_round) ** count)
    part = 1 - per_round if is_on_ladder else (1 - prune_rate) ** (1 / count)
    return rounded(1 - part ** (count - 1))


def rounds_of(config: Config) -> int:
    """Return the number of rounds to the prune rate of a run, or the largest of pruning.rates; 0 of the dense run."""
    return rounds(max([config.prune_rate, *config.pruning.rates.values()]), _settings(config).per_round)


@register(METHODS, "imp")
class Imp(Method):
    """Trains, from the weights to which they are rewound, the largest weights of its parent.

    The scores are the mask: 1 where a weight is kept.
    """

    settings = ImpSettings
    trains = "weights"
    follows_ramp = False
    changes_weights = True  # the scores, and the weights that are rewound
    scores_by_fan_in = False
    score_stream = None
    prunes_in_rounds = True

    @classmethod
    def keeps_highest(cls, settings: Any) -> bool:
        """Return True: weights that the parent has removed are ranked below 0."""
        return True

    @classmethod
    def parent(cls, config: Config) -> Config | None:
        """Return the round before: the same run with a smaller prune_rate; None of the dense network."""
        count, per_round = rounds_of(config), _settings(config).per_round
        if count == 0:
            return None
        given = config.pruning.rates if count > 1 else {}
        pruning = replace(config.pruning, rates={name: before(rate, count, per_round) for name, rate in given.items()})
        return replace(config, prune_rate=before(config.prune_rate, count, per_round), pruning=pruning)

    @classmethod
    def unused_settings(cls, settings: Any) -> set[str]:
        """Return rewind_epochs, where no weight is rewound."""
        assert isinstance(settings, ImpSettings)
        return {"rewind_epochs"} if settings.learning_rate_rewinding else set()

    @classmethod
    def problems(cls, config: Config) -> Iterator[str]:
        """Refuse weights that would be others in each round, and a rewinding to beyond the last epoch."""
        settings, epochs = _settings(config), config.train.epochs
        if config.init.scale is not Scale.none:
            rule = "would draw other weights in each round of method=imp, which rewinds them to the first ones"
            yield problem(f"init.scale={config.init.scale.name}", rule, "init.scale=none")
        if settings.rewind_epochs > epochs:
            rule = f"must be at most train.epochs={epochs}, those of the dense network"
            yield problem(f"method.rewind_epochs={settings.rewind_epochs}", rule, f"method.rewind_epochs={epochs}",
                          lead="as in")  # fmt: skip

    def __init__(self, network: nn.Module, config: Config) -> None:
        self._selections: list[LayerSelection] = []
        super().__init__(network, config)
        self._keep_largest([torch.ones_like(layer.scores, dtype=torch.bool) for _, layer in self.layers])

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return a GivenMaskRule; `selection` chooses its mask once."""
        self._selections.append(selection)
        return GivenMaskRule()

    @torch.no_grad()
    def start_from(self, checkpoint: Callable[[str | int], dict[str, Tensor]]) -> None:
        """Take the mask from the parent's trained weights, and rewind the weights."""
        settings = _settings(self.config)
        load_trained(self.network, checkpoint("last"))
        self._keep_largest([layer.scores != 0 for _, layer in self.layers])
        if not settings.learning_rate_rewinding:
            masks = [layer.scores.clone() for _, layer in self.layers]
            # A later round began with the rewound weights; the dense network has them after rewind_epochs.
            to = settings.rewind_epochs if rounds_of(self.config) == 1 else 0
            load_trained(self.network, checkpoint(to or "first"))
            for mask, (_, layer) in zip(masks, self.layers, strict=True):
                layer.scores.copy_(mask)

    @torch.no_grad()
    def _keep_largest(self, kept: list[Tensor]) -> None:
        """Set the masks to the K largest weights among those that are `kept`, boolean (out, in, *kernel), by layer."""
        for there, (_, layer) in zip(kept, self.layers, strict=True):
            layer.scores.copy_(torch.where(there, layer.weight.abs(), -1.0))
        assert self.allocation is not None
        self.allocation.refresh()
        masks = [choose.mask(layer.scores) for choose, (_, layer) in zip(self._selections, self.layers, strict=True)]
        for there, mask, (_, layer) in zip(kept, masks, self.layers, strict=True):
            layer.scores.copy_(scores_of_mask(there & mask))

    def keeps_epoch(self, epoch: int) -> bool:
        """Return whether it is the epoch of the dense network to which the rounds rewind."""
        return rounds_of(self.config) == 0 and epoch == _settings(self.config).rewind_epochs


def _settings(config: Config) -> ImpSettings:
    assert isinstance(config.method, ImpSettings)
    return config.method
