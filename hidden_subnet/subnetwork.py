"""A random network and its mask, built from a config: the same bits wherever the same config is built."""

import hashlib

import torch
from torch import Tensor, nn

from hidden_subnet.config import Config, Scale
from hidden_subnet.course import Course, masked_course, plain_course
from hidden_subnet.data.info import INFO
from hidden_subnet.identity import seed_of
from hidden_subnet.inits import fill
from hidden_subnet.layers import mask_layers, masked_layers
from hidden_subnet.masks import Scratch
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.methods.table import METHODS
from hidden_subnet.models.build import build


def random_network(config: Config) -> nn.Module:
    """The network of the config with its random weights, on the CPU, unpruned."""
    info = INFO[config.data.name.name]
    model = build(config.model.name.name, config.model.width, info.shape, info.classes)
    # The authors' scale has the rate upside down.
    kept = {Scale.none: 1.0, Scale.density: 1 - config.prune_rate, Scale.reference: config.prune_rate}
    scale = kept[config.init.scale] ** -0.5
    fill(model, config.init.name.name, config.init.mode.name, scale, seed_of(config, "weights"))
    return model


def put_masks(model: nn.Module, config: Config) -> Course:
    """Turn `model` into what the config's method trains, in place; only what may change requires a gradient."""
    method = METHODS[config.method.name]
    if not method.masks:
        model.requires_grad_(method.trains == "weights")
        return plain_course(method)
    mask_layers(model, lambda n: TopKRule(n, Scratch()))  # the course gives each its own
    if method.trains == "nothing":
        model.requires_grad_(False)
    elif method.trains == "weights":
        model.requires_grad_(True)
    for _, layer in masked_layers(model):
        layer.weight.requires_grad_(method.trains in ("weights", "both"))
        layer.scores.requires_grad_(method.trains in ("scores", "both"))
    return masked_course(model, config, method)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: weights that it leaves alone come from their seed and are left out."""
    state = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return state | {name: value.detach() for name, value in model.named_buffers()}


def load_trained(model: nn.Module, state: dict[str, Tensor]) -> None:
    mine = trained_state(model)
    if mine.keys() != state.keys():
        raise ValueError(f"the checkpoint holds {sorted(state)[:3]} ..., this network trains {sorted(mine)[:3]} ...")
    for name, value in mine.items():
        value.copy_(state[name])


def current_masks(model: nn.Module) -> dict[str, Tensor]:
    """The boolean mask of each masked layer, on the CPU."""
    return {path: layer.rule.mask(layer.scores.detach()).cpu() for path, layer in masked_layers(model)}


def count_parameters(model: nn.Module) -> int:
    """All parameters that make up the network: scores choose among them and are not counted."""
    scores = {id(layer.scores) for _, layer in masked_layers(model)}
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in scores)


def weights_digest(model: nn.Module) -> str:
    """Tells whether a later torch still draws the same weights from a seed, which torch does not promise."""
    state = hashlib.sha256()
    for _, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            state.update(layer.weight.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def flips(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, int]:
    """How many weights of each masked layer changed between kept and removed."""
    return {path: int(torch.count_nonzero(before[path] ^ after[path])) for path in after}
