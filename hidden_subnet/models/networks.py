"""Builds the networks of the paper (sizes.py) as plain torch modules without biases, and registers them.

A new network is a file like this one, with a function that builds it and a ModelEntry, and a yaml in conf/model/.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hidden_subnet.config.checks import last_batch
from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import MODELS, ModelEntry, register
from hidden_subnet.config.settings import Config, Model
from hidden_subnet.config.settings import Norm as NormChoice
from hidden_subnet.errors import problem
from hidden_subnet.models.sizes import (
    NAMES,
    Block,
    Conv,
    Plan,
    ResidualPlan,
    Shape,
    StackPlan,
    count_weights,
    has_norm,
    plan,
)

Norm = Callable[[int], nn.Module]
Act = type[nn.ReLU] | type[nn.ELU]
ACTIVATIONS: dict[str, Act] = {"relu": nn.ReLU, "elu": nn.ELU}
"""The modules of model.activation."""


def build(
    name: str, width: float, shape: Shape, classes: int, *, affine: bool = False, activation: str = "relu"
) -> nn.Sequential:
    """Build a network of sizes.NAMES: images (B, *shape) to logits (B, classes). Raises ValueError as `plan` does.

    With `affine` the norm layers have a factor and a shift for each channel, which start at 1 and 0. activation: a name
    of ACTIVATIONS.
    """
    sizes = plan(name, width, shape, classes)
    act = ACTIVATIONS[activation]
    if isinstance(sizes, ResidualPlan):
        return resnet(sizes, partial(nn.BatchNorm2d, affine=affine), act)
    if isinstance(sizes, StackPlan):
        return stack(sizes, partial(nn.BatchNorm2d, affine=affine), act)
    layers: list[tuple[str, nn.Module]] = []
    channels = shape[0]
    for pair, wide in enumerate(sizes.pairs, start=1):
        layers += [
            (f"conv{2 * pair - 1}", nn.Conv2d(channels, wide, 3, padding=1, bias=False)),
            (f"{activation}{2 * pair - 1}", act()),
            (f"conv{2 * pair}", nn.Conv2d(wide, wide, 3, padding=1, bias=False)),
            (f"{activation}{2 * pair}", act()),
            (f"pool{pair}", nn.MaxPool2d(2)),
        ]
        channels = wide
    return nn.Sequential(OrderedDict([*layers, ("flatten", nn.Flatten()), *_linear(sizes.features, act)]))


def _linear(features: list[int], act: Act) -> Iterator[tuple[str, nn.Module]]:
    steps = list(pairwise(features))
    for index, (inputs, outputs) in enumerate(steps, start=1):
        yield f"fc{index}", nn.Linear(inputs, outputs, bias=False)
        if index < len(steps):
            yield f"fc{index}_{_name(act)}", act()


def _name(act: Act) -> str:
    return act.__name__.lower()


def stack(sizes: StackPlan, norm: Norm, act: Act) -> nn.Sequential:
    """Build a network of sizes.STACKS; its layers are named conv1, norm1, relu1, ..., pool1, ..., flatten, fc1, ..."""
    layers: list[tuple[str, nn.Module]] = []
    number = 0
    for index, block in enumerate(sizes.blocks, start=1):
        for conv in block:
            number += 1
            layers.append((f"conv{number}", _conv(conv)))
            if sizes.norm:
                layers.append((f"norm{number}", norm(conv.outputs)))
            layers.append((f"{_name(act)}{number}", act(inplace=True)))
        layers.append((f"pool{index}", nn.MaxPool2d(2)))
    return nn.Sequential(OrderedDict([*layers, ("flatten", nn.Flatten()), *_linear(sizes.features, act)]))


class PaddedShortcut(nn.Module):
    """A shortcut without weights: every `stride`-th pixel, and channels of zeros behind (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = outputs - inputs, stride

    def forward(self, images: Tensor) -> Tensor:
        """Map feature maps (B, inputs, H, W) to (B, outputs, H', W'), with H' = H / stride, rounded up."""
        return F.pad(images[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


class ResidualBlock(nn.Module):
    """A residual block, basic or bottleneck: relu(body(x) + shortcut(x)), He et al. 2016."""

    def __init__(self, sizes: Block, norm: Norm, act: Act) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for index, conv in enumerate(sizes.convs, start=1):
            if index > 1:
                self.body.add_module(f"{_name(act)}{index - 1}", act(inplace=True))
            self.body.add_module(f"conv{index}", _conv(conv))
            self.body.add_module(f"norm{index}", norm(conv.outputs))
        self.shortcut = nn.Sequential()  # the identity while it is empty
        if sizes.shortcut is not None:
            self.shortcut.add_module("conv", _conv(sizes.shortcut))
            self.shortcut.add_module("norm", norm(sizes.shortcut.outputs))
        elif (inputs := sizes.convs[0].inputs) != (outputs := sizes.convs[-1].outputs):
            self.shortcut.add_module("pad", PaddedShortcut(inputs, outputs, sizes.convs[0].stride))
        self.activation = act(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map feature maps (B, inputs, H, W) to (B, outputs, H', W'), with H' = H / stride, rounded up."""
        output: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return output


def resnet(sizes: ResidualPlan, norm: Norm, act: Act) -> nn.Sequential:
    """Build a residual network; its layers are named stem, stage1.0.body.conv1, ..., stage4.1.shortcut.conv, fc."""
    model = nn.Sequential()
    model.add_module("stem", _conv(sizes.stem))
    model.add_module("stem_norm", norm(sizes.stem.outputs))
    model.add_module(f"stem_{_name(act)}", act(inplace=True))
    if sizes.pool:
        model.add_module("stem_pool", nn.MaxPool2d(3, stride=2, padding=1))
    for index, stage in enumerate(sizes.stages, start=1):
        model.add_module(f"stage{index}", nn.Sequential(*(ResidualBlock(block, norm, act) for block in stage)))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(sizes.features, sizes.classes, bias=False))
    return model


def _conv(conv: Conv) -> nn.Conv2d:
    return nn.Conv2d(
        conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.kernel // 2 if conv.padded else 0, bias=False
    )


def _build(model: Model, info: DataInfo, seed: int) -> nn.Module:
    affine, activation = model.norm is NormChoice.batch, model.activation.name
    return build(model.name, model.width, info.shape, info.classes, affine=affine, activation=activation)


def _weights(model: Model, info: DataInfo) -> int:
    return count_weights(plan(model.name, model.width, info.shape, info.classes))


def _problems(config: Config, info: DataInfo) -> Iterator[str]:
    model = config.model
    try:
        sizes = plan(model.name, model.width, info.shape, info.classes)
    except ValueError as error:
        yield str(error)
        return
    if isinstance(sizes, Plan) or not has_norm(model.name):
        return
    train = config.train
    devices, smallest = train.devices, last_batch(config, info)
    least = 2 if sizes.last == (1, 1) else 1  # batch norm needs two values where a feature map is a single pixel
    if smallest // devices >= least:
        return
    fitting = (replace(train, batch_size=train.batch_size + more) for more in range(1, info.train + 2))
    right = next((each for each in fitting if last_batch(replace(config, train=each), info) // devices >= least), None)
    if devices > 1:
        yield problem(
            f"train.devices={devices}",
            f"the smallest batch of an epoch has {smallest} images, too few for the batch norm of each device's part",
            f"train.batch_size={right.batch_size}" if right else "train.devices=1",
            lead="as in",
        )
    else:
        yield problem(
            f"train.batch_size={train.batch_size}",
            "the last batch of an epoch has a single image, and the last feature maps of "
            f"model={model.name} a single pixel, but batch norm needs two values",
            f"train.batch_size={right.batch_size}" if right else "model=conv2",
            lead="as in",
        )


for name in NAMES:
    has = has_norm(name)
    entry = ModelEntry(_build, _problems, _weights, has_norm=has, has_norm_choice=has, has_activation=True)
    register(MODELS, name)(entry)
