"""A control: only the last layer is trained, without a mask, on the features of the random network."""

from dataclasses import dataclass

from hidden_subnet.config.registries import METHODS, register
from hidden_subnet.config.settings import MethodSettings, setting
from hidden_subnet.methods.base import Method


@dataclass(kw_only=True, slots=True)
class LastLayerSettings(MethodSettings):
    """The settings of `last_layer`: only its name."""

    name: str = setting("last_layer", id="always")


@register(METHODS, "last_layer")
class LastLayer(Method):
    """Trains the weights and the bias of the last layer; nothing is masked."""

    settings = LastLayerSettings
    trains = "weights"
    masks = False
    has_prune_rate = False
    only_last_layer = True
