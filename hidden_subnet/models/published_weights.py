"""Finds torchvision's own weights on this machine, as in pretrained=ResNet18_Weights.IMAGENET1K_V1; loads nothing."""

import re
from dataclasses import replace
from pathlib import Path

from hidden_subnet.config.settings import Config, Library
from hidden_subnet.errors import ConfigError, problem

AS_IN = "pretrained=ResNet18_Weights.IMAGENET1K_V1"
NAME = re.compile(r"(?:\w+_Weights\.)?(?:IMAGENET1K_\w+|DEFAULT)|\w+_Weights\.\w+")


def with_published_weights(config: Config) -> Config:
    """Return the config with the path of the weights that `pretrained` names; unchanged where it names others.

    A name alone, as IMAGENET1K_V1 or DEFAULT, is of model.name. The file is where torch.hub keeps it ($TORCH_HOME, or
    ~/.cache/torch). Raises ConfigError for an unknown name, and where there is no such file.
    """
    name = config.pretrained
    if name is None or not NAME.fullmatch(name) or Path(name).exists():
        return config
    import torch
    from torchvision import models

    try:
        if "." in name:
            weights = models.get_weight(name)
        elif config.model.library is Library.torchvision:
            weights = models.get_model_weights(config.model.name)[name]
        else:
            raise ValueError("which network it is of is known with model=torchvision alone")
    except (KeyError, ValueError) as error:
        rule = f"torchvision has no such weights ({' '.join(str(error).split())})"
        raise ConfigError(problem(f"pretrained={name}", rule, AS_IN, lead="as in")) from None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        rule = f"is not on this machine; load {weights.url} into {path.parent}, or name another file"
        raise ConfigError(problem(f"pretrained={name}", rule, "pretrained=weights.pt", lead="as in"))
    return replace(config, pretrained=str(path))
