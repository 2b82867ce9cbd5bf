"""The lower baseline: a fixed random mask that keeps the same number of weights; nothing is trained.

The K largest of independent, identically distributed scores are K weights chosen uniformly at random.
"""

from dataclasses import dataclass

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.masks.layers import ScoreRule
from hidden_subnet.masks.selection import LayerSelection
from hidden_subnet.methods.base import Method
from hidden_subnet.methods.edge_popup import EdgePopupRule


@dataclass(kw_only=True, slots=True)
class RandomSettings(MethodSettings):
    """The settings of `random`: only its name."""

    name: str = setting("random", id="always")


@register(METHODS, "random")
class Random(Method):
    """Trains nothing; its scores have a random stream of their own, and so has its mask."""

    settings = RandomSettings
    trains = "nothing"
    follows_ramp = False
    score_stream = "mask"

    def rule(self, selection: LayerSelection, path: str) -> ScoreRule:
        """Return an EdgePopupRule over the selection of the layer; no gradient is computed."""
        return EdgePopupRule(selection)
