"""Small networks under a method, and steps of their training."""

from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.registries import METHODS, load_parts
from hidden_subnet.config.settings import Config, Data, Init, Model, Pruning, Train
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Batch, Method
from hidden_subnet.models.inits import fill
from hidden_subnet.models.networks import build
from hidden_subnet.training.trainer import Trainer

load_parts()


def config_of(
    method: str,
    pruning: str = "layerwise",
    model: str = "conv4",
    init: str = "kaiming_normal",
    *,
    prune_rate: float = 0.5,
    **settings: Any,
) -> Config:
    """Return a config with `settings` of its method."""
    return Config(
        model=Model(name=model, width=0.125),
        init=Init(name=init),
        data=Data(name="synthetic"),
        pruning=Pruning(name=pruning),
        method=METHODS[method].settings(**settings),
        prune_rate=prune_rate,
        mask_sha256="0" * 64 if METHODS[method].has_given_mask else None,
    )


def network_of(config: Config) -> tuple[nn.Module, Method]:
    """Return the config's network for images of 16x16, at a sixteenth of its width, with its method applied.

    Where a mask is to be given, it keeps every second weight.
    """
    width = 1 / 4 if config.model.name == "lenet5" else 1 / 16  # which has 6 channels
    network = build(config.model.name, width, (1, 16, 16), 10)
    fill(network, config.init.name, "fan_in", 1.0, seed=0)
    method = apply_method(network, config)
    if method.has_given_mask:
        for _, layer in masked_layers(network):
            layer.scores.detach().copy_((torch.arange(layer.scores.numel()) % 2).view(layer.scores.shape))
    return network, method


def trainer_of(network: nn.Module, method: Method, **train: Any) -> Trainer:
    return Trainer(network, method, Train(**{"schedule": "constant", "weight_decay": 0.01, **train}), "cpu")


def batch(seed: int = 0) -> Batch:
    """Return 20 images (20, 1, 16, 16) and two labels of each class."""
    return torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(seed)), torch.arange(20) % 10


def take_step(trainer: Trainer) -> None:
    """Take the next step, on a batch of its own."""
    trainer.network.train()
    trainer.train_step(*batch(trainer.state.step))
    trainer.state.step += 1
    assert trainer.metrics.means().loss > 0


def after_steps(config: Config, steps: int) -> dict[str, Tensor]:
    """Return all parameters of the config's network after `steps` steps."""
    network, method = network_of(config)
    trainer = trainer_of(network, method)
    for _ in range(steps):
        take_step(trainer)
    return values(network)


def values(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters."""
    return {name: value.detach().clone() for name, value in network.named_parameters()}
