"""The paper's networks as plain torch modules without biases."""

from collections import OrderedDict
from functools import partial

from torch import nn

from hidden_subnet.models.plan import ResidualPlan, Shape, plan
from hidden_subnet.models.resnet import resnet


def build(name: str, width: float, shape: Shape, classes: int, *, affine: bool = False) -> nn.Sequential:
    """Input (B, *shape), output (B, classes) logits; raises ValueError as `plan` does.

    `affine` gives norm layers a factor and a shift a channel, which begin at 1 and 0.
    """
    sizes = plan(name, width, shape, classes)
    if isinstance(sizes, ResidualPlan):
        return resnet(sizes, partial(nn.BatchNorm2d, affine=affine))
    layers: list[tuple[str, nn.Module]] = []
    channels = shape[0]
    for pair, wide in enumerate(sizes.pairs, start=1):
        layers += [
            (f"conv{2 * pair - 1}", nn.Conv2d(channels, wide, 3, padding=1, bias=False)),
            (f"relu{2 * pair - 1}", nn.ReLU()),
            (f"conv{2 * pair}", nn.Conv2d(wide, wide, 3, padding=1, bias=False)),
            (f"relu{2 * pair}", nn.ReLU()),
            (f"pool{pair}", nn.MaxPool2d(2)),
        ]
        channels = wide
    layers.append(("flatten", nn.Flatten()))
    steps = list(zip(sizes.features, sizes.features[1:], strict=False))
    for index, (inputs, outputs) in enumerate(steps, start=1):
        layers.append((f"fc{index}", nn.Linear(inputs, outputs, bias=False)))
        if index < len(steps):
            layers.append((f"fc{index}_relu", nn.ReLU()))
    return nn.Sequential(OrderedDict(layers))
