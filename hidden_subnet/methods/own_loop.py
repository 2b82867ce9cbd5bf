"""Masks a network of any kind for a training loop of one's own, without configs and runs."""

from collections.abc import Collection
from typing import Any

from torch import nn

from hidden_subnet.config.checks import check
from hidden_subnet.config.convert import from_dict
from hidden_subnet.config.registries import METHODS, load_parts
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks import layers
from hidden_subnet.methods.apply import require_gradients
from hidden_subnet.methods.base import Method
from hidden_subnet.models.inits import fill

MOMENTS = ("start_from", "prepare", "on_epoch_start", "penalty", "on_step_end")
"""Hooks for which a loop of one's own has no place."""


def mask(
    network: nn.Module,
    prune_rate: float = 0.5,
    method: str = "edge_popup",
    *,
    pruning: str = "layerwise",
    init: str | None = None,
    dense: Collection[str] = (),
    seed: int = 0,
    **settings: Any,
) -> nn.Module:
    """Mask the weights of `network` in place, for a training loop of one's own, and return it.

    >>> net = hs.mask(net, prune_rate=0.9, init="signed_constant")
    >>> optimizer = torch.optim.SGD([each for each in net.parameters() if each.requires_grad], lr=0.1)

    Masked are conv, linear and embedding layers and attention. With edge_popup the scores are all that requires a
    gradient. The masks are chosen again in each forward pass, from the scores of that moment. `hs.remove_masks(net)`
    gives the plain network back.

    prune_rate: fraction of the weights that is removed, 0 to 1. init: draws the weights again, as init=<name> does; by
    default they stay as they are. dense: paths of layers that are not masked. seed: of the scores, and of the weights
    that are drawn. settings: those of the method. Move the network to its device before. Raises ConfigError (a
    ValueError) for settings that do not exist, ValueError where there is nothing to mask or it is masked already.
    """
    config = _config(prune_rate, method, pruning, init, seed, settings)
    kind = METHODS[method]
    assert issubclass(kind, Method)
    if own := [name for name in MOMENTS if vars(kind).get(name)]:
        raise ConfigError(
            f"method={method!r}: works in moments of a run that your own loop lacks ({', '.join(own)}); as in: "
            "method='edge_popup'"
        )
    if not kind.masks:
        raise ConfigError(f"method={method!r}: masks nothing; as in: method='edge_popup'")
    if layers.masked_layers(network):
        raise ValueError("the network is masked already; as in: hidden_subnet.remove_masks(network)")
    if wrong := [path for path in dense if path not in dict(network.named_modules())]:
        raise ValueError(f"dense={wrong[0]!r}: no layer of the network has this path; see: network.named_modules()")
    layers.mask_layers(network, dense=dense)
    if init is not None:
        fill(network, init, "fan_in", 1.0, seed)
    if kind.score_stream is not None:
        layers.fill_scores(network, seed, kind.score_stream)
    require_gradients(network, kind)
    network.register_forward_pre_hook(_Refresh(kind(network, config)))
    return network


def remove_masks(network: nn.Module) -> nn.Module:
    """Undo `mask` in place, with the removed weights at 0 and what has no mask as it was trained; returns the network.

    >>> net = hs.mask(net, prune_rate=0.9)
    >>> net = hs.remove_masks(net)

    Nothing of it requires a gradient then. Raises ValueError where the network is not masked.
    """
    hooks = network._forward_pre_hooks
    found = {key: hook for key, hook in hooks.items() if isinstance(hook, _Refresh)}
    if not found:
        raise ValueError("the network is not masked; hidden_subnet.mask(network) masks it")
    for key, hook in found.items():
        hook.method.on_evaluation(0)  # with the scores after the last step
        del hooks[key]
    layers.remove_masks(network)
    return network.requires_grad_(False)


def _config(
    prune_rate: float, method: str, pruning: str, init: str | None, seed: int, settings: dict[str, Any]
) -> Config:
    """Return a config with these settings, checked as those of the command line; the others have no effect here."""
    load_parts()
    parts: dict[str, Any] = {"method": {"name": method, **settings}, "pruning": {"name": pruning}}
    parts |= {"model": {"name": "conv2"}, "data": {"name": "digits"}, "init": {"name": init or "kaiming_normal"}}
    config = from_dict({**parts, "prune_rate": prune_rate, "seed": seed})
    check(config)
    return config


class _Refresh:
    """A hook before each forward pass of the network: the masks follow the scores."""

    def __init__(self, method: Method) -> None:
        self.method, self.steps = method, 0

    def __call__(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        if network.training:
            self.method.on_step_start(self.steps)
            self.steps += 1
        else:
            self.method.on_evaluation(0)  # there is no ramp, so that all epochs have the same rate
