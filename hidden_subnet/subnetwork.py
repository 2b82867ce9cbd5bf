"""A random network and its mask, built from a config: the same bits wherever the same config is built."""

import hashlib

import torch
from torch import Tensor, nn

from hidden_subnet.course import Course, masked_course, plain_course
from hidden_subnet.dataset import info_of
from hidden_subnet.identity import seed_of
from hidden_subnet.inits import fill, weights_of
from hidden_subnet.layers import mask_layers, masked_layers
from hidden_subnet.masks import Scratch
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.methods.table import METHODS
from hidden_subnet.models import zoo
from hidden_subnet.models.build import build
from hidden_subnet.seeding import derive
from hidden_subnet.settings import Config, Library, Masking, Norm, Scale
from hidden_subnet.weights import differences


def bare_network(config: Config) -> nn.Module:
    """The network of the config, with whatever weights torch gives it."""
    network, temperature = _network(config), config.model.temperature
    if temperature != 1:
        network.register_forward_hook(lambda module, inputs, logits: logits / temperature)
    return network


def _network(config: Config) -> nn.Module:
    info, model = info_of(config.data), config.model
    if model.library is Library.torchvision:
        seed = derive(seed_of(config, "weights"), "weights", "torchvision")
        return zoo.build(model.name, info.shape, info.classes, seed)
    return build(model.name, model.width, info.shape, info.classes, affine=model.norm is Norm.batch)


def random_network(config: Config) -> nn.Module:
    """The network of the config with its random weights, on the CPU, unpruned."""
    model = bare_network(config)
    draw_weights(model, config, seed_of(config, "weights"))
    return model


def draw_weights(model: nn.Module, config: Config, seed: int) -> None:
    """Fill `model`, masked or not, with weights from `seed` by the config's init."""
    # The authors' scale has the rate upside down.
    kept = {Scale.none: 1.0, Scale.density: 1 - config.prune_rate, Scale.reference: config.prune_rate}
    fill(model, config.init.name.name, config.init.mode.name, kept[config.init.scale] ** -0.5, seed)


def dense_layers(model: nn.Module, config: Config) -> set[str]:
    """Paths of the layers that the config leaves out of the mask."""
    paths = [path for path, _, _ in weights_of(model)]
    ends = [(config.model.first_layer, paths[0]), (config.model.last_layer, paths[-1])]
    return {path for masking, path in ends if masking is Masking.dense}


def put_masks(model: nn.Module, config: Config) -> Course:
    """Turn `model` into what the config's method trains, in place; only what may change requires a gradient."""
    method = METHODS[config.method.name]
    if not method.masks:
        model.requires_grad_(method.trains == "weights" and not method.only_last_layer)
        if method.only_last_layer:
            last_layer(model).requires_grad_(True)
        return plain_course(method)
    mask_layers(
        model,
        lambda n: TopKRule(n, Scratch()),  # the course gives each its own
        dense=dense_layers(model, config),
        # Who reads their weights, and where, is theirs to decide.
        by_parameter=config.model.library is Library.torchvision,
    )
    if method.trains == "nothing":
        model.requires_grad_(False)
    elif method.trains == "weights":
        model.requires_grad_(True)
    for _, layer in masked_layers(model):
        layer.weight.requires_grad_(method.trains in ("weights", "both"))
        layer.scores.requires_grad_(method.trains in ("scores", "both"))
    return masked_course(model, config, method)


def last_layer(model: nn.Module) -> nn.Module:
    """The last conv or linear layer in the order of the modules: the one that gives the logits."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]


def weights_from_seed(config: Config) -> bool:
    """Whether what is frozen can be drawn again; where it cannot, a checkpoint holds all of the network."""
    return config.pretrained_sha256 is None


def trained_state(model: nn.Module, *, frozen: bool = False) -> dict[str, Tensor]:
    """What training changes, by name, and buffers; what is `frozen` too where it does not come from the seed."""
    state = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad or frozen}
    return state | {name: value.detach() for name, value in model.named_buffers()}


def load_trained(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a checkpoint of this network into it; ValueError, and nothing is copied, where it is of another one."""
    mine = trained_state(model, frozen=True)
    wanted = {name: mine[name] for name in mine if name in state or name in trained_state(model)}
    if told := differences(wanted, state):
        raise ValueError(f"the checkpoint is of another network: {'; '.join(told)}")
    for name, value in state.items():
        mine[name].copy_(value)


def current_masks(model: nn.Module) -> dict[str, Tensor]:
    """The boolean mask of each masked layer, on the CPU."""
    return {path: layer.rule.mask(layer.scores.detach()).cpu() for path, layer in masked_layers(model)}


def count_parameters(model: nn.Module) -> int:
    """All parameters that make up the network: scores choose among them and are not counted."""
    scores = {id(layer.scores) for _, layer in masked_layers(model)}
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in scores)


def weights_digest(model: nn.Module) -> str:
    """Tells whether a later torch still draws the same weights from a seed, which torch does not promise.

    Of all of its parameters but scores: torchvision draws some by itself. Masking torchvision's changes their order.
    """
    state = hashlib.sha256()
    scores = {id(layer.scores) for _, layer in masked_layers(model)}
    for value in model.parameters():
        if id(value) not in scores:
            state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def flips(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, int]:
    """How many weights of each masked layer changed between kept and removed."""
    return {path: int(torch.count_nonzero(before[path] ^ after[path])) for path in after}
