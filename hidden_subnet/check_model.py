"""The rules of the group `model`, and of what only some networks have."""

import difflib
from collections.abc import Iterator

from hidden_subnet.data.info import held_out, trained_on
from hidden_subnet.dataset import info_of
from hidden_subnet.models.plan import NAMES, ResidualPlan, has_norm, plan
from hidden_subnet.settings import Config, Device, Library, Norm


def model_problems(config: Config) -> Iterator[str]:
    """torchvision's networks are looked at by hidden_subnet/prepare.py, since that loads torch."""
    model = config.model
    if not 0 < model.width <= 100:
        yield f"model.width={model.width:g}: the width must be a positive number, at most 100"
    if not 1e-12 <= model.temperature <= 1e12:
        yield f"model.temperature={model.temperature:g}: divides the logits; must be positive, from 1e-12 to 1e12"
    if not 1 <= config.train.devices <= config.train.batch_size:
        yield (
            f"train.devices={config.train.devices}: must be 1 or more, and at most the images of a batch "
            f"(train.batch_size={config.train.batch_size}), of which each device takes a part"
        )
    if config.train.sync_norm and (config.train.devices == 1 or config.train.device in (Device.cpu, Device.mps)):
        yield (
            "train.sync_norm=true: joins the batch norms of several GPUs; give train.devices=2 or more, not on the CPU"
        )
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
    devices, smallest = config.train.devices, last_batch(config)
    if devices > 1 and isinstance(sizes, ResidualPlan) and smallest // devices < (2 if sizes.last == (1, 1) else 1):
        yield (
            f"train.devices={devices}: the smallest batch of an epoch has {smallest} images, too few for the batch "
            "norm of each device's part; choose another train.batch_size"
        )
    if isinstance(sizes, ResidualPlan) and sizes.last == (1, 1) and smallest == 1:
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
