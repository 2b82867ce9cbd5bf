"""A random network and its mask, built from a config: the same bits wherever the same config is built."""

import hashlib

import torch
from torch import Tensor, nn

from hidden_subnet.config import Config, Library, Masking, Norm, Scale
from hidden_subnet.data.info import INFO
from hidden_subnet.identity import seed_of
from hidden_subnet.inits import fill, weights_of
from hidden_subnet.layers import fill_scores, mask_layers, masked_layers
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.method import Method
from hidden_subnet.methods.table import METHODS
from hidden_subnet.models import zoo
from hidden_subnet.models.build import build
from hidden_subnet.models.plan import Shape
from hidden_subnet.seeding import derive


def random_network(config: Config) -> nn.Module:
    """The network of the config with its random weights, on the CPU, unpruned."""
    info = INFO[config.data.name.name]
    model = _built(config, info.shape, info.classes)
    scale = (1 - config.prune_rate) ** -0.5 if config.init.scale is Scale.density else 1.0
    fill(model, config.init.name.name, config.init.mode.name, scale, seed_of(config, "weights"))
    return model


def _built(config: Config, shape: Shape, classes: int) -> nn.Module:
    model = config.model
    if model.library is Library.torchvision:
        return zoo.build(model.name, shape, classes, derive(seed_of(config, "weights"), "weights", "torchvision"))
    return build(model.name, model.width, shape, classes, affine=model.norm is Norm.batch)


def dense_layers(model: nn.Module, config: Config) -> set[str]:
    """Paths of the layers that the config leaves out of the mask."""
    paths = [path for path, _, _ in weights_of(model)]
    ends = [(config.model.first_layer, paths[0]), (config.model.last_layer, paths[-1])]
    return {path for masking, path in ends if masking is Masking.dense}


def put_masks(model: nn.Module, config: Config) -> Method:
    """Turn `model` into what the config's method trains, in place; only what may change requires a gradient."""
    method = METHODS[config.method.name]
    if method.rule is None:
        model.requires_grad_(method.trains == "weights")
        return method
    rule, scratch = method.rule, Scratch()
    mask_layers(
        model,
        lambda n: rule(kept_count(n, config.prune_rate), scratch),
        dense=dense_layers(model, config),
        # Who reads their weights, and where, is theirs to decide.
        by_parameter=config.model.library is Library.torchvision,
    )
    fill_scores(model, seed_of(config, "scores"), method.stream)
    if method.trains == "nothing":
        model.requires_grad_(False)
    return method


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: the weights of a masked network come from its seed and are left out."""
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
    """Tells whether a later torch still draws the same weights from a seed, which torch does not promise.

    Of a network without masks, and of all of its parameters: torchvision draws some by itself.
    """
    state = hashlib.sha256()
    for value in model.parameters():
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def flips(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, int]:
    """How many weights of each masked layer changed between kept and removed."""
    return {path: int(torch.count_nonzero(before[path] ^ after[path])) for path in after}
