"""Prepares a network for its method: masks layers, draws the first scores, and sets what requires a gradient."""

from torch import nn

from hidden_subnet.config.identity import seed_of
from hidden_subnet.config.registries import METHODS, MethodTraits, model_entry
from hidden_subnet.config.settings import Config
from hidden_subnet.masks.layers import fill_scores, mask_layers, masked_layers, norm_factors
from hidden_subnet.methods.base import Method
from hidden_subnet.models.inits import LAYERS, dense_layers


def apply_method(network: nn.Module, config: Config) -> Method:
    """Mask `network` in place and return its method, in the state before the first step.

    Raises ValueError if there is no layer to mask.
    """
    kind = METHODS[config.method.name]
    assert issubclass(kind, Method)
    if kind.masks:
        entry = model_entry(config.model)
        assert entry is not None
        mask_layers(network, dense=dense_layers(network, config.model), by_parameter=entry.masks_parameters)
        if kind.score_stream is not None:
            fill_scores(network, seed_of(config, "scores"), kind.score_stream)
    require_gradients(network, kind, norm_affine=config.train.norm_affine)
    method = kind(network, config)
    method.on_evaluation(0)
    return method


def require_gradients(network: nn.Module, kind: type[MethodTraits], *, norm_affine: bool = False) -> None:
    """Set which parameters of a network, masked or not, are trained by a method of this kind.

    norm_affine: of a masked one that is trained, batch norm's factors too, whatever else.
    """
    if not kind.masks:
        network.requires_grad_(kind.trains == "weights" and not kind.only_last_layer)
        if kind.only_last_layer:
            last_layer(network).requires_grad_(True)
        return
    # What is not masked (norm layers, biases, dense layers) is trained where the weights are: at prune_rate=0, each
    # method that trains weights is `dense`.
    network.requires_grad_(kind.trains_weights())
    for _, layer in masked_layers(network):
        layer.weight.requires_grad_(kind.trains in ("weights", "both"))
        layer.scores.requires_grad_(kind.trains in ("scores", "both"))
    for value in norm_factors(network).values() if norm_affine and kind.is_trained() else ():
        value.requires_grad_(True)


def last_layer(network: nn.Module) -> nn.Module:
    """Return the last conv or linear layer in the order of the modules, whose output are the logits."""
    return [layer for layer in network.modules() if isinstance(layer, LAYERS)][-1]
