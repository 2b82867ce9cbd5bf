"""Builds the random network of a config; the same config gives the same bits in every process."""

from functools import partial

from torch import Tensor, nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.layer_rates import layer_rates
from hidden_subnet.config.registries import model_entry
from hidden_subnet.config.settings import Config, Model, Scale, Structure
from hidden_subnet.masks.structure import does_not_divide
from hidden_subnet.models.inits import dense_layers, fill, scale_attention, weights_of
from hidden_subnet.models.passes import built_on_meta


def bare_network(model: Model, info: DataInfo, seed: int) -> nn.Module:
    """Return the network with torch's own initial weights: it maps images (B, *info.shape) to logits (B, classes).

    `seed`: for parameters that the network draws itself, besides conv and linear weights.
    """
    entry = model_entry(model)
    assert entry is not None  # config/checks.py refuses an unknown name
    network: nn.Module = entry.build(model, info, seed)
    if model.temperature != 1:
        _cool(network, model.temperature)
    return network


def meta_network(model: Model, info: DataInfo) -> nn.Module:
    """Return the network on the meta device, which has shapes and no numbers."""
    return built_on_meta(lambda: bare_network(model, info, 0))


def masked_shapes(model: Model, info: DataInfo) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight that a method masks, (out, in, *kernel), by the path of its layer, in order."""
    network = meta_network(model, info)
    dense = dense_layers(network, model)
    weights = {path: module.get_parameter(name) for path, module, name in weights_of(network) if path not in dense}
    return {path: tuple(weight.shape) for path, weight in weights.items()}


def _cool(network: nn.Module, temperature: float) -> None:
    """Let the logits of `network` be divided by `temperature`, in place."""
    divide = Temperature(temperature)
    if type(network) is nn.Sequential and not hasattr(network, "temperature"):
        network.add_module("temperature", divide)
    else:
        # Not as a module of it, since a network of the user's own may have one of this name, or call each that it has.
        network.register_forward_hook(partial(_divided, divide))


class Temperature(nn.Module):
    """Divides the logits by a constant; it has no parameters."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, classes) to logits (B, classes)."""
        return logits / self.value


def _divided(divide: Temperature, network: nn.Module, images: tuple[Tensor], logits: Tensor) -> Tensor:
    """Forward hook that gives the logits to `divide`."""
    divided: Tensor = divide(logits)
    return divided


def random_network(config: Config, info: DataInfo, seed: int, schema: int | None = None) -> nn.Module:
    """Return the network of the config, on the CPU and not masked, with its weights drawn from `seed`.

    `schema`: of the run (config/identity.py), by default that of a run which starts now.
    """
    network = bare_network(config.model, info, seed)
    draw_weights(network, config, seed, schema)
    return network


def draw_weights(network: nn.Module, config: Config, seed: int, schema: int | None = None) -> None:
    """Draw the weights of `network`, masked or not, from `seed`, in place."""
    init = config.init
    scales = {}
    if init.scale is Scale.density:
        shapes = {path: tuple(module.get_parameter(name).shape) for path, module, name in weights_of(network)}
        dense = dense_layers(network, config.model)
        if config.pruning.rates:
            masked = [path for path in shapes if path not in dense]
            rates = layer_rates(config, masked)
            scales = {path: init_scale(config, rate) for path, rate in zip(masked, rates, strict=True)}
        unscaled = dense if schema != 1 else set()
        if config.pruning.structure is not Structure.weight:
            unscaled |= {path for path, shape in shapes.items() if does_not_divide(shape, config.pruning)}
        scales |= dict.fromkeys(unscaled, 1.0)
    fill(network, init.name, init.mode.name, init_scale(config, config.prune_rate), seed, scales=scales)
    for path, module, name in weights_of(network):
        scale_attention(path, module.get_parameter(name).detach(), init.attention_scale)


def init_scale(config: Config, rate: float) -> float:
    """Return the factor of init.scale on the standard deviation of the weights of a masked layer with a prune rate."""
    # `reference` takes the prune rate for the density, as the authors' code does, and scales every layer, as it does.
    kept = {Scale.none: 1.0, Scale.density: 1 - rate, Scale.reference: rate}
    return float(kept[config.init.scale] ** -0.5)


def has_stable_digest(config: Config) -> bool:
    """Return whether the digest of equal weights is equal after masking, which may change the order of parameters."""
    entry = model_entry(config.model)
    return entry is not None and not entry.masks_parameters


def weights_from_seed(config: Config) -> bool:
    """Return whether the seed gives the weights again (not pretrained); if not, a checkpoint holds all of them."""
    return config.pretrained_sha256 is None
