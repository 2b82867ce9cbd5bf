"""Inits: distributions of the random weights.

An init is a function (weight, mode) that returns a standard deviation, and a function (weight, std, generator) that
fills the weight in place. Names, gains and fans are those of Ramanujan et al. 2020, section 4.3. `scale` multiplies the
standard deviation: by 1 / sqrt(1 - prune_rate), a pruned layer keeps the variance of its outputs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Generator, Tensor, empty, nn, randint

from hidden_subnet.config.registries import INITS, InitEntry, register, register_own
from hidden_subnet.config.settings import Masking, Model
from hidden_subnet.config.signature import refuse_arguments
from hidden_subnet.seeding import generator, torch_seeded

Draw = TypeVar("Draw", bound=Callable[[Any, float, Any], None])


def fans(weight: Tensor) -> tuple[int, int]:
    """Return fan_in and fan_out of a conv or linear weight (out, in, *kernel)."""
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
    """Return sqrt(2 / fan), which keeps the variance of activations (fan_in) or gradients (fan_out) through ReLU.

    He et al. 2015, eq. 10 and 14.
    """
    fan_in, fan_out = fans(weight)
    return math.sqrt(2 / (fan_in if mode == "fan_in" else fan_out))


def _xavier_std(weight: Tensor, mode: str) -> float:
    """Return sqrt(2 / (fan_in + fan_out)) for either mode: Glorot and Bengio 2010, eq. 16."""
    return math.sqrt(2 / sum(fans(weight)))


def _torch_std(weight: Tensor, mode: str) -> float:
    """Return the std of torch's own default, which is uniform within +-1/sqrt(fan_in)."""
    return math.sqrt(1 / (3 * fans(weight)[0]))


for _name, _entry in {
    "signed_constant": InitEntry(_kaiming_std, _signed, scales_as_reference=True, same_magnitude=True),
    "unsigned_constant": InitEntry(_kaiming_std, _constant, scales_as_reference=True, same_magnitude=True),
    "kaiming_normal": InitEntry(_kaiming_std, _normal, scales_as_reference=True),
    "kaiming_uniform": InitEntry(_kaiming_std, _uniform),
    "xavier_normal": InitEntry(_xavier_std, _normal, fixes_fan=True),
    "xavier_constant": InitEntry(_xavier_std, _signed, fixes_fan=True, same_magnitude=True),
    "standard": InitEntry(_torch_std, _uniform, fixes_fan=True, scales=False),
}.items():
    register(INITS, _name)(_entry)


def register_init(name: str) -> Callable[[Draw], Draw]:
    """Return a decorator that makes `init=<name>` draw weights by a function `(weight, std, generator)`.

    >>> @hs.register_init("two_values")
    ... def two_values(weight, std, generator):
    ...     weight.copy_(std / 2 + std / 2 * torch.randint(2, weight.shape, generator=generator))

    It fills `weight` (out, in, *kernel) in place. `generator`, and torch's own one meanwhile, start from the seed of
    the layer. std: the Kaiming standard deviation of init.mode, scaled by init.scale. Raises ValueError for a name in
    use.
    """

    def enter(draw: Draw) -> Draw:
        refuse_arguments(draw, ("weight", "std", "generator"))

        def drawn(weight: Tensor, std: float, source: Generator) -> None:
            weight.fill_(math.nan)
            with torch_seeded(source.initial_seed()):  # for torch.nn.init.*_
                draw(weight, std, source)
            if not bool(weight.isfinite().all()):
                raise ValueError(
                    f"init={name}: left numbers of a weight of shape {tuple(weight.shape)} unset, NaN or infinite; it "
                    "must fill `weight` in place, as in: weight.copy_(drawn)"
                )

        register_own("init", INITS, name, draw)(InitEntry(_kaiming_std, drawn))
        return draw

    return enter


TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers with a weight (in, out, *kernel)."""
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Parameters of nn.MultiheadAttention for queries, keys and values: one weight for all three, or one for each."""


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield path, module and parameter name of each weight of conv, linear, embedding layers and attention, in order.

    The path is that of the layer; a weight of attention, which has no layer of its own, has the path of the parameter.
    """
    for path, module in model.named_modules():
        if isinstance(module, (*LAYERS, nn.Embedding)):
            yield path, module, "weight"
        elif isinstance(module, nn.MultiheadAttention):
            for name in PROJECTIONS:
                if module._parameters.get(name) is not None:
                    yield f"{path}.{name}".lstrip("."), module, name


def dense_layers(network: nn.Module, model: Model) -> set[str]:
    """Return the paths of the layers that model.first_layer and model.last_layer leave unmasked."""
    paths = [path for path, _, _ in weights_of(network)]
    ends = [(model.first_layer, paths[0]), (model.last_layer, paths[-1])]
    return {path for masking, path in ends if masking is Masking.dense}


def fill(
    model: nn.Module, name: str, mode: str, scale: float, seed: int, *, scales: Mapping[str, float] | None = None
) -> None:
    """Draw each weight of `weights_of` from its own random stream, in place, and set the biases of these layers to 0.

    `name`: of the init. `mode`: fan_in or fan_out. `scale`: factor of the standard deviation, but for the layers that
    have one of their own in `scales`, by path. One weight for queries, keys and values counts as one layer, as in
    torch's own initialisation.
    """
    for path, module, parameter in weights_of(model):
        weight = module.get_parameter(parameter).detach()
        factor = (scales or {}).get(path, scale)
        weight.copy_(drawn_weight(module, weight.shape, name, mode, factor, generator(seed, "weights", path)))
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            weight[module.padding_idx] = 0
        for bias in ("bias", "in_proj_bias"):
            if (values := module._parameters.get(bias)) is not None:
                values.detach().zero_()


def drawn_weight(
    module: nn.Module, shape: Sequence[int], name: str, mode: str, scale: float, source: Generator
) -> Tensor:
    """Return a weight of the layer `module`, of this shape and on the CPU, drawn by the init `name` as in `fill`."""
    # Row-major, since in another memory format the numbers would depend on it.
    drawn = empty(*shape)
    init = INITS[name]
    init.draw(drawn, init.std(_out_first(module, drawn), mode) * scale, source)
    return drawn


def scale_attention(path: str, weight: Tensor, factor: float) -> None:
    """Multiply the queries' and keys' part of the weight at `path` by `factor`, in place; other weights have none."""
    name = path.rpartition(".")[2]
    if name == "in_proj_weight":  # of queries, keys and values, one after the other
        weight[: 2 * len(weight) // 3] *= factor
    elif name in ("q_proj_weight", "k_proj_weight"):
        weight *= factor


def _out_first(module: nn.Module, weight: Tensor) -> Tensor:
    """Return the weight of a layer as (out, in, *kernel), the shape that `fans` takes."""
    return weight.transpose(0, 1) if isinstance(module, TRANSPOSED) else weight
