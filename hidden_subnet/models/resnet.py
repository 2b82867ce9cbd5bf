"""Residual networks as plain torch modules without biases, their layers in the authors' order.

For CIFAR (3x3 stem) and for ImageNet (7x7 stem and a max-pool); the sizes are those of hidden_subnet/models/plan.py.
"""

from collections.abc import Callable

from torch import Tensor, nn

from hidden_subnet.models.plan import Block, Conv, ResidualPlan

Norm = Callable[[int], nn.Module]


class ResidualBlock(nn.Module):
    def __init__(self, sizes: Block, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for index, conv in enumerate(sizes.convs, start=1):
            if index > 1:
                self.body.add_module(f"relu{index - 1}", nn.ReLU(inplace=True))
            self.body.add_module(f"conv{index}", _conv(conv))
            self.body.add_module(f"norm{index}", norm(conv.outputs))
        self.shortcut = nn.Sequential()  # empty, it is the identity
        if sizes.shortcut is not None:
            self.shortcut.add_module("conv", _conv(sizes.shortcut))
            self.shortcut.add_module("norm", norm(sizes.shortcut.outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.relu(self.body(images) + self.shortcut(images))
        return output


def resnet(sizes: ResidualPlan, norm: Norm) -> nn.Sequential:
    """Layers named stem, stage1.0.body.conv1, ..., stage4.1.shortcut.conv, fc."""
    model = nn.Sequential()
    model.add_module("stem", _conv(sizes.stem))
    model.add_module("stem_norm", norm(sizes.stem.outputs))
    model.add_module("stem_relu", nn.ReLU(inplace=True))
    if sizes.pool:
        model.add_module("stem_pool", nn.MaxPool2d(3, stride=2, padding=1))
    for index, stage in enumerate(sizes.stages, start=1):
        model.add_module(f"stage{index}", nn.Sequential(*(ResidualBlock(block, norm) for block in stage)))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(sizes.features, sizes.classes, bias=False))
    return model


def _conv(conv: Conv) -> nn.Conv2d:
    return nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.kernel // 2, bias=False)
