"""Builds any network of timm by its name, untrained, for the classes and images of the data; timm is not required.

timm is imported on use: it takes longer to import than torch.
"""

import difflib
from typing import Any

from torch import nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import MODELS, ModelEntry, register
from hidden_subnet.config.settings import Model
from hidden_subnet.errors import problem
from hidden_subnet.models.own_network import probed
from hidden_subnet.models.torchvision import fixed_network
from hidden_subnet.seeding import derive, torch_seeded


def build(name: str, info: DataInfo, seed: int) -> nn.Module:
    """Build the network: images (B, *info.shape) to logits (B, info.classes).

    Parameters besides conv and linear weights depend on `seed` alone. Raises ValueError for a name that timm does not
    have, and where timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        rule = f"needs the package timm ({error}), which pip install 'hidden_subnet[timm]' brings"
        raise ValueError(problem("model=timm", rule, "pip", "install", "timm")) from None
    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name.partition(".")[0], known, n=3, cutoff=0.3) or known[:3]
        rule = f"timm has no such network ({', '.join(near)}, ...; all {len(known)}: timm.list_models())"
        right = ("model=timm", f"model.name={near[0]}")
        raise ValueError(problem(f"model.name={name}", rule, *right, lead="did you mean"))
    channels, *side = info.shape
    sizes: dict[str, Any] = {"num_classes": info.classes, "in_chans": channels}
    with torch_seeded(derive(seed, "weights", "torchvision")):
        try:  # networks of patches have one size of images
            network: nn.Module = timm.create_model(name, img_size=tuple(side), **sizes)
        except TypeError:
            network = timm.create_model(name, **sizes)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.weight is not None and not layer.weight.any():
            nn.init.ones_(layer.weight)  # 0 makes a residual block the identity, forever where factors are frozen
    return network


def _probe(model: Model, info: DataInfo, last_batch: int) -> nn.Module:
    start = f"model.name={model.name}"
    advice = "choose another network, or data with larger images, as in: data.size=64"
    build(model.name, info, 0)  # whose own errors are said as they are
    return probed(start, lambda: build(model.name, info, 0), info, last_batch, advice)


register(MODELS, "timm")(
    ModelEntry(
        lambda model, info, seed: build(model.name, info, seed),
        fixed_network("timm"),
        weights=lambda model, info: None,
        has_norm=True,
        has_width=False,
        draws_in_steps=True,
        masks_parameters=True,
        probe=_probe,
    )
)
