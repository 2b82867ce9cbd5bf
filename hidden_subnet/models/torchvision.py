"""Builds any classification network of torchvision by its name, untrained, for the classes and images of the data.

torchvision is imported on use, since importing it takes as long as importing torch.
"""

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import MODELS, ModelEntry, register
from hidden_subnet.config.settings import Config, Model, Norm
from hidden_subnet.errors import problem
from hidden_subnet.models.passes import built_on_meta, passes_on_meta
from hidden_subnet.models.sizes import Shape
from hidden_subnet.seeding import derive, torch_seeded


def names() -> list[str]:
    """Return the names of all classification networks of the installed torchvision."""
    from torchvision import models

    found: list[str] = models.list_models(module=models)
    return found


def build(name: str, shape: Shape, classes: int, seed: int) -> nn.Module:
    """Build the network: images (B, *shape) to logits (B, classes).

    Parameters besides conv and linear weights (the position embeddings of a ViT, say) depend on `seed` alone. Raises
    ValueError for a name that torchvision does not have, or a network that cannot process images of `shape`.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        choices = near or [*known[:8], "..."]
        raise ValueError(
            f"model.name={name}: torchvision has no such classification network ({', '.join(choices)}; all "
            f"{len(known)}: torchvision.models.list_models()); did you mean: model=torchvision model.name={choices[0]}"
        )
    from torchvision import models

    with torch_seeded(seed):
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **_sizes(name, shape))
    return model


def probe(name: str, shape: Shape, classes: int, last_batch: int) -> nn.Module:
    """Return the network on the meta device, after a forward pass in training and one in evaluation mode.

    `last_batch`: number of images in the smallest batch, since batch norm cannot train on a single value per channel.
    Raises ValueError, in one line, where a pass fails.
    """
    try:
        model = built_on_meta(lambda: build(name, shape, classes, seed=0))
        logits = passes_on_meta(model, shape, last_batch)
    except (RuntimeError, AssertionError, TypeError, IndexError, NotImplementedError, ZeroDivisionError) as error:
        raise ValueError(_refusal(name, shape, last_batch, " ".join(str(error).split()))) from None
    except ValueError as error:
        if str(error).startswith("model.name="):
            raise
        raise ValueError(_refusal(name, shape, last_batch, " ".join(str(error).split()))) from None
    assert logits.shape == (2, classes)
    return model


def _sizes(name: str, shape: Shape) -> dict[str, Any]:
    if name.startswith("vit_"):
        return {"image_size": shape[1]}
    if name.startswith("maxvit_"):
        return {"input_size": shape[1:]}
    if name in ("googlenet", "inception_v3"):  # with auxiliary logits, their output in training is not a tensor
        return {"aux_logits": False, "init_weights": False}
    return {}


def _refusal(name: str, shape: Shape, last_batch: int, why: str) -> str:
    channels, height, width = shape
    start = f"model.name={name}: torchvision's network does not take this data ({channels}x{height}x{width})"
    if channels != 3:
        return f"{start}, only images of 3 channels; choose data that has them, or one of our own models"
    if "more than 1 value per channel" in why:
        return (
            f"{start} in a batch of {last_batch}, the last of an epoch: batch norm needs more than one value per "
            "channel; choose another train.batch_size or larger images"
        )
    return f"{start}: {why[:90]}; choose data with larger images, or one of our own models"


def _build(model: Model, info: DataInfo, seed: int) -> nn.Module:
    return build(model.name, info.shape, info.classes, derive(seed, "weights", "torchvision"))


def fixed_network(library: str) -> Callable[[Config, DataInfo], Iterator[str]]:
    """Return the function that yields the broken rules of a library's networks which need no network.

    Their probe tries the others before the first run.
    """

    def problems(config: Config, info: DataInfo) -> Iterator[str]:
        model = config.model
        if not model.name:
            words = (f"model={library}", "model.name=resnet18")
            yield problem(f"model={library}", "name the network too", *words, lead="as in")
        if model.width != 1:
            rule = f"the width of {library}'s networks is fixed"
            yield problem(f"model.width={model.width:g}", rule, "model.width=1")
        if model.norm is not Norm.batch_fixed:
            rule = f"the norm layers of {library}'s networks are fixed"
            yield problem(f"model.norm={model.norm.name}", rule, "model.norm=batch_fixed")

    return problems


register(MODELS, "torchvision")(
    ModelEntry(
        _build,
        fixed_network("torchvision"),
        weights=lambda model, info: None,
        has_norm=True,
        has_width=False,
        draws_in_steps=True,
        masks_parameters=True,
        probe=lambda model, info, smallest: probe(model.name, info.shape, info.classes, smallest),
    )
)
