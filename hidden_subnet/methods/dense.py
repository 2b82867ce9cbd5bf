"""The upper baseline: no mask, the weights are trained as usual."""

from dataclasses import dataclass

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.methods.base import Method


@dataclass(kw_only=True, slots=True)
class DenseSettings(MethodSettings):
    """The settings of `dense`: only its name."""

    name: str = setting("dense", id="always")


@register(METHODS, "dense")
class Dense(Method):
    """Trains all weights; nothing is masked."""

    settings = DenseSettings
    trains = "weights"
    masks = False
    has_prune_rate = False
