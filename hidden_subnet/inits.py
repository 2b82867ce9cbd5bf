"""How the random weights are drawn: each init is a function of a weight, its standard deviation and a generator.

The names, gains and fans are the authors' (Ramanujan et al. 2020, section 4.3); `scale` multiplies the standard
deviation, 1 / sqrt(1 - prune_rate) where a pruned layer is to keep the variance of its outputs.
"""

import math
from collections.abc import Callable, Iterator

from torch import Generator, Tensor, empty, nn, randint

from hidden_subnet.seeding import generator

Draw = Callable[[Tensor, float, Generator], None]


def fans(weight: Tensor) -> tuple[int, int]:
    """fan_in and fan_out of a conv or linear weight (out, in, *kernel)."""
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


def _normal(weight: Tensor, std: float, source: Generator) -> None:
    weight.normal_(0, std, generator=source)


def _uniform(weight: Tensor, std: float, source: Generator) -> None:
    bound = math.sqrt(3) * std
    weight.uniform_(-bound, bound, generator=source)


def _signed(weight: Tensor, std: float, source: Generator) -> None:
    weight.copy_(randint(0, 2, weight.shape, generator=source)).mul_(2 * std).sub_(std)


def _constant(weight: Tensor, std: float, source: Generator) -> None:
    weight.fill_(std)


def _kaiming_std(weight: Tensor, mode: str) -> float:
    """Keeps the variance of activations (fan_in) or gradients (fan_out) through ReLU: He et al. 2015, eq. 10, 14."""
    fan_in, fan_out = fans(weight)
    return math.sqrt(2 / (fan_in if mode == "fan_in" else fan_out))


def _xavier_std(weight: Tensor, mode: str) -> float:
    """Glorot and Bengio 2010, eq. 16, for either mode."""
    return math.sqrt(2 / sum(fans(weight)))


def _torch_std(weight: Tensor, mode: str) -> float:
    """torch's own default, uniform within 1/sqrt(fan_in)."""
    return math.sqrt(1 / (3 * fans(weight)[0]))


INITS: dict[str, tuple[Callable[[Tensor, str], float], Draw]] = {
    "signed_constant": (_kaiming_std, _signed),
    "unsigned_constant": (_kaiming_std, _constant),
    "kaiming_normal": (_kaiming_std, _normal),
    "kaiming_uniform": (_kaiming_std, _uniform),
    "xavier_normal": (_xavier_std, _normal),
    "xavier_constant": (_xavier_std, _signed),
    "standard": (_torch_std, _uniform),
}


PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""What attention has instead of layers for its queries, keys and values: one weight for all, or one each."""


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Path, module and parameter name of each weight of the conv and linear layers and of attention, in order.

    The path is the layer's, or for what is no layer of its own the parameter's.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield path, module, "weight"
        elif isinstance(module, nn.MultiheadAttention):
            for name in PROJECTIONS:
                if module._parameters.get(name) is not None:
                    yield f"{path}.{name}".lstrip("."), module, name


def fill(model: nn.Module, name: str, mode: str, scale: float, seed: int) -> None:
    """Draw each weight of `weights_of` in place from its own stream; the biases of these layers become 0.

    Queries, keys and values in one weight count as one layer, as in torch's own initialisation.
    """
    std_of, draw = INITS[name]
    for path, module, parameter in weights_of(model):
        weight = module.get_parameter(parameter).detach()
        # Drawn contiguous and copied: in place, the numbers would depend on the memory format.
        drawn = empty(weight.shape)
        draw(drawn, std_of(drawn, mode) * scale, generator(seed, "weights", path))
        weight.copy_(drawn)
        for bias in ("bias", "in_proj_bias"):
            if (values := module._parameters.get(bias)) is not None:
                values.detach().zero_()
