"""A part is chosen by its option, which brings its other settings with it; its name alone is not."""

import re
from collections.abc import Iterable

from hidden_subnet.check import ConfigError

GROUPS = ("data", "init", "model", "pruning", "tracker")


def refuse_names(arguments: Iterable[str]) -> None:
    """Refuse what would be something else than it says, without a word.

    data.name=cifar10 would leave out the crop and flip of conf/data/cifar10.yaml, and ~tracker bring the default one.
    Raises ConfigError. Where an option names a foreign list, its name is a setting: model=torchvision
    model.name=vit_b_16; a preset may have chosen that option.
    """
    arguments = list(arguments)
    foreign = any(argument.startswith(("model=torchvision", "sweep=")) for argument in arguments)
    for argument in arguments:
        if argument.startswith("~") and not argument.startswith("~hydra"):
            raise ConfigError(
                f"{argument}: nothing can be taken away, as every setting has a value; give it another one "
                "(tracker=none; --help lists the choices)"
            )
        found = re.match(rf"\+*({'|'.join(GROUPS)})\.name=(.*)", argument)
        if found and not (found[1] == "model" and foreign):
            raise ConfigError(
                f"{argument}: write {found[1]}={found[2]}, which brings its settings with it (conf/{found[1]})"
            )
