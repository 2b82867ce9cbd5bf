"""The rules of the group `model`, and of what only some networks have."""

import difflib
import math
from collections.abc import Iterator

from hidden_subnet.data.info import held_out, trained_on
from hidden_subnet.dataset import info_of
from hidden_subnet.models.plan import NAMES, ResidualPlan, has_norm, plan
from hidden_subnet.settings import Config, Library, Norm


def model_problems(config: Config) -> Iterator[str]:
    """torchvision's networks are looked at by hidden_subnet/prepare.py, since that loads torch."""
    model = config.model
    if not 0 < model.width <= 100:
        yield f"model.width={model.width:g}: the width must be a positive number, at most 100"
    if not 0 < model.temperature < math.inf:
        yield f"model.temperature={model.temperature:g}: the logits are divided by it; it must be a positive number"
    if config.train.norm_batches < 0:
        yield f"train.norm_batches={config.train.norm_batches}: must be 0 (running statistics) or larger"
    if model.library is Library.torchvision:
        yield from _of_torchvision(config)
        return
    if model.name not in NAMES:
        near = difflib.get_close_matches(model.name, NAMES, n=1, cutoff=0.5)
        yield (
            f"model.name={model.name}: no such network{f' (did you mean {near[0]}?)' if near else ''}; there are "
            f"{', '.join(NAMES)}; and torchvision's with model=torchvision"
        )
        return
    if not has_norm(model.name):
        if model.norm is not Norm.batch_fixed:
            yield f"model.norm={model.norm.name}: model={model.name} has no norm layers; leave model.norm away"
        if config.train.norm_batches:
            yield (
                f"train.norm_batches={config.train.norm_batches}: model={model.name} has no batch norm, whose "
                "statistics it would take anew; leave it away"
            )
    try:
        info = info_of(config.data)
        sizes = plan(model.name, model.width, info.shape, info.classes)
    except ValueError as error:
        yield str(error)
        return
    if isinstance(sizes, ResidualPlan) and sizes.last == (1, 1) and last_batch(config) == 1:
        yield (
            f"train.batch_size={config.train.batch_size}: the last batch of an epoch has a single image, of which "
            f"model={model.name} sees a single pixel in the end, and batch norm needs two values: choose another size"
        )


def last_batch(config: Config) -> int:
    """Images in the smallest batch of an epoch."""
    train, data = info_of(config.data).train, config.data
    images = trained_on(train - held_out(train, data.validation), data.fraction)
    images = min(images, config.train.batch_size) if data.one_batch else images
    return images % config.train.batch_size or config.train.batch_size


def _of_torchvision(config: Config) -> Iterator[str]:
    model = config.model
    if not model.name:
        yield "model=torchvision: name the network too, as in model=torchvision model.name=resnet18"
    if model.width != 1:
        yield f"model.width={model.width:g}: torchvision's networks have the width that they have; leave it away"
    if model.norm is not Norm.batch_fixed:
        yield (
            f"model.norm={model.norm.name}: torchvision's networks keep the norm layers that they have; leave it away, "
            "or choose one of our own residual networks"
        )
