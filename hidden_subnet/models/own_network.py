"""Registers a network of the user's own: a builder, or a class of modules, whose further arguments become settings.

    @hidden_subnet.register_model("my_net")
    def my_net(shape, classes, *, hidden: int = 300):
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.ReLU(), nn.Linear(hidden, classes))

`python launch.py use=my_parts.py model=my_net model.hidden=100`. Conv and linear weights are drawn afterwards from the
seed (models/inits.py), and masked; other parameters keep what the builder gives them.
"""

import copy
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor, nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.own_parts import said
from hidden_subnet.config.registries import MODELS, ModelEntry, register_own
from hidden_subnet.config.settings import Config, Model, Norm
from hidden_subnet.config.signature import arguments_in, arguments_of, settings_of
from hidden_subnet.errors import AGAIN
from hidden_subnet.models.inits import weights_of
from hidden_subnet.models.passes import passes_on_meta
from hidden_subnet.seeding import derive, torch_seeded

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

MEND = f"mend the builder, and {AGAIN}"
FIRST = ("shape", "classes")


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Return a decorator that makes `model=<name>` build the network by `(shape, classes, **settings)`.

    >>> @hs.register_model("linear")
    ... def linear(shape, classes, *, bias: bool = False):
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes, bias=bias))

    shape: (channels, height, width) of the images. classes: number of classes. The network maps images (B, *shape) to
    logits (B, classes). Further arguments need a default or a type (bool, int, float, str, lists of these). Raises
    TypeError for arguments that cannot be settings, ValueError for a name in use.
    """

    def enter(builder: Builder) -> Builder:
        if isinstance(builder, type) and not issubclass(builder, nn.Module):
            raise TypeError(f"{builder.__name__}: a class must inherit from torch.nn.Module; or register a function")
        settings = settings_of(name, builder, Model, "model", FIRST, free=("width",))
        register_own("model", MODELS, name, builder)(_entry(name, builder, settings))
        return builder

    return enter


def _entry(name: str, builder: Callable[..., nn.Module], settings: type[Model]) -> ModelEntry:
    own = arguments_of(builder, FIRST)

    def build(model: Model, info: DataInfo, seed: int) -> nn.Module:
        given = arguments_in(model, own)
        # For what the builder itself draws, besides the weights drawn later.
        with torch_seeded(derive(seed, "weights", "torchvision")):
            return builder(info.shape, info.classes, **given)

    def problems(config: Config, info: DataInfo) -> Iterator[str]:
        if "width" not in own and config.model.width != 1:
            yield f"model.width={config.model.width:g}: model={name} has no argument width; omit it"
        if config.model.norm is not Norm.batch_fixed:
            yield f"model.norm={config.model.norm.name}: is for our own residual networks; omit it with model={name}"

    def probe(model: Model, info: DataInfo, last_batch: int) -> nn.Module:
        return probed(f"model={name}", lambda: build(model, info, 0), info, last_batch)

    return ModelEntry(
        build,
        problems,
        weights=lambda model, info: None,
        has_norm=True,
        has_width="width" in own,
        draws_in_steps=True,
        masks_parameters=True,
        settings=settings,
        probe=probe,
    )


def probed(
    start: str, build: Callable[[], nn.Module], info: DataInfo, last_batch: int, advice: str = MEND
) -> nn.Module:
    """Return the network on the meta device, after a forward pass in training and one in evaluation mode.

    start: what is typed to choose it. advice: what to do where it fails. Raises ValueError, in one line, for what is no
    network for these images.
    """
    shape = "x".join(map(str, info.shape))
    try:
        network, another = build(), build()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ValueError(f"{start}: cannot be built for images of {shape}: {said(error)}; {advice}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{start}: the builder returns {type(network).__name__}, and must return a torch.nn.Module; {advice}"
        )
    kept = {id(each) for each in network.parameters()}
    if shared := [name for name, value in another.named_parameters() if id(value) in kept]:
        raise ValueError(
            f"{start}: {shared[0]} is the same in each network that the builder makes, so that a run would start from "
            "what another one trained; make the layers in the builder, and give the command again"
        )
    if not [*weights_of(network)]:
        raise ValueError(f"{start}: has no conv or linear layer, whose weights could be masked; {advice}")
    if any(nn.parameter.is_lazy(each) for each in network.parameters()):
        raise ValueError(
            f"{start}: has lazy layers, whose weights have no shape yet; give their sizes, as in: nn.Linear(64, 10)"
        )
    try:
        network = _on_meta(network)
        logits = passes_on_meta(network, info.shape, last_batch)
    except (Exception, SystemExit) as error:
        hint = (
            "; it is tried without numbers, so it may branch on shapes and not on values"
            if "meta" in str(error)
            else ""
        )
        raise ValueError(f"{start}: does not take images of {shape}: {said(error)}{hint}; {advice}") from error
    if not isinstance(logits, Tensor) or logits.shape != (2, info.classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{start}: must map 2 images to logits of shape (2, {info.classes}), and gives {found}; {advice}"
        )
    return network


def _on_meta(network: nn.Module) -> nn.Module:
    """Return a copy of a network on the meta device, in which tied weights stay tied (Module.to parts them)."""
    buffers = {id(each): each.to("meta") for each in network.buffers()}
    weights = {id(each): nn.Parameter(each.detach().to("meta"), each.requires_grad) for each in network.parameters()}
    return copy.deepcopy(network, {**buffers, **weights})
