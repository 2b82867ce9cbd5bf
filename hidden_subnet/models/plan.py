"""The sizes of the paper's networks, worked out without torch so that a wrong one is refused before anything starts.

Conv2 to Conv8 are VGG-like: pairs of 3x3 convolutions with 64, 128, 256, 512 channels, each pair followed by a 2x2
max-pool, then a fully connected part 256-256-classes (Frankle and Carbin 2019; Ramanujan et al. 2020). The residual
networks are those of He et al. 2016 with the stride in the 3x3 convolution of a bottleneck; for CIFAR with a 3x3 stem
and no pool after it, and wide ones with twice the inner channels of a bottleneck (Zagoruyko and Komodakis 2016).

`width` multiplies every hidden layer, fully connected ones too: what the authors' Conv4Wide and Conv6Wide do.
"""

from dataclasses import dataclass
from decimal import Decimal

PAIR_CHANNELS = {"conv2": [64], "conv4": [64, 128], "conv6": [64, 128, 256], "conv8": [64, 128, 256, 512]}
CONV_HIDDEN = [256, 256]
FC_HIDDEN = [300, 100]

STAGE_CHANNELS = [64, 128, 256, 512]


@dataclass(frozen=True)
class Residual:
    depths: list[int]
    """Blocks in each of the four stages."""
    bottleneck: bool
    cifar: bool
    inner: int = 1
    """A bottleneck's inner channels, as a multiple of its stage's."""


RESIDUAL = {
    "cifar_resnet18": Residual([2, 2, 2, 2], bottleneck=False, cifar=True),
    "cifar_resnet34": Residual([3, 4, 6, 3], bottleneck=False, cifar=True),
    "cifar_resnet50": Residual([3, 4, 6, 3], bottleneck=True, cifar=True),
    "cifar_resnet101": Residual([3, 4, 23, 3], bottleneck=True, cifar=True),
    "cifar_resnet152": Residual([3, 8, 36, 3], bottleneck=True, cifar=True),
    "resnet18": Residual([2, 2, 2, 2], bottleneck=False, cifar=False),
    "resnet34": Residual([3, 4, 6, 3], bottleneck=False, cifar=False),
    "resnet50": Residual([3, 4, 6, 3], bottleneck=True, cifar=False),
    "resnet101": Residual([3, 4, 23, 3], bottleneck=True, cifar=False),
    "wide_resnet50_2": Residual([3, 4, 6, 3], bottleneck=True, cifar=False, inner=2),
    "wide_resnet101_2": Residual([3, 4, 23, 3], bottleneck=True, cifar=False, inner=2),
}

NAMES = ("fc", *PAIR_CHANNELS, *RESIDUAL)

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    channels: int
    """Of the image."""
    pairs: list[int]
    """Channels of each pair of convolutions."""
    features: list[int]
    """Widths of the fully connected part, from the flattened image to the classes."""


@dataclass(frozen=True)
class Conv:
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.kernel**2


@dataclass(frozen=True)
class Block:
    convs: list[Conv]
    shortcut: Conv | None
    """None: the block's input is added as it is."""


@dataclass(frozen=True)
class ResidualPlan:
    stem: Conv
    pool: bool
    """A 3x3 max-pool of stride 2 behind the stem."""
    stages: list[list[Block]]
    features: int
    classes: int
    last: tuple[int, int]
    """Height and width of the last feature maps."""


def has_norm(name: str) -> bool:
    return name in RESIDUAL


def plan(name: str, width: float, shape: Shape, classes: int) -> Plan | ResidualPlan:
    """Size a network for images of `shape` (channels, height, width).

    Raises ValueError where a hidden layer would have no channels or the image is too small to be halved so often.
    """
    if name in RESIDUAL:
        return _residual(name, RESIDUAL[name], width, shape, classes)
    pairs = [_scaled(name, channels, width) for channels in PAIR_CHANNELS.get(name, [])]
    hidden = [_scaled(name, features, width) for features in (FC_HIDDEN if name == "fc" else CONV_HIDDEN)]
    times = len(pairs)
    _fits(name, times, shape)
    height, side = shape[1] // 2**times, shape[2] // 2**times
    flat = (pairs[-1] if pairs else shape[0]) * height * side
    return Plan(channels=shape[0], pairs=pairs, features=[flat, *hidden, classes])


def weights(sizes: Plan | ResidualPlan) -> int:
    """Weights of the conv and linear layers, all of which a mask covers; no layer has a bias."""
    if isinstance(sizes, ResidualPlan):
        blocks = [block for stage in sizes.stages for block in stage]
        convs = [sizes.stem, *(conv for block in blocks for conv in [*block.convs, block.shortcut] if conv)]
        return sum(conv.weights for conv in convs) + sizes.features * sizes.classes
    total, channels = sum(a * b for a, b in zip(sizes.features, sizes.features[1:], strict=False)), sizes.channels
    for width in sizes.pairs:
        total, channels = total + 9 * width * (channels + width), width
    return total


def _residual(name: str, kind: Residual, width: float, shape: Shape, classes: int) -> ResidualPlan:
    stem = _scaled(name, STAGE_CHANNELS[0], width)
    times = 3 if kind.cifar else 5
    _fits(name, times, shape)
    # Strided convolutions and the pool round up, since they pad; a chain of such halvings is one division.
    last = -(-shape[1] // 2**times), -(-shape[2] // 2**times)
    stages, inputs = [], stem
    for stage, depth in enumerate(kind.depths):
        channels = _scaled(name, STAGE_CHANNELS[stage], width)
        inner = _scaled(name, STAGE_CHANNELS[stage] * kind.inner, width)
        outputs = 4 * channels if kind.bottleneck else channels
        blocks = []
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            if kind.bottleneck:
                convs = [Conv(inputs, inner, 1), Conv(inner, inner, 3, stride), Conv(inner, outputs, 1)]
            else:
                convs = [Conv(inputs, channels, 3, stride), Conv(channels, channels, 3)]
            changes = stride != 1 or inputs != outputs
            blocks.append(Block(convs, Conv(inputs, outputs, 1, stride) if changes else None))
            inputs = outputs
        stages.append(blocks)
    conv = Conv(shape[0], stem, 3) if kind.cifar else Conv(shape[0], stem, 7, 2)
    return ResidualPlan(conv, not kind.cifar, stages, inputs, classes, last)


def _fits(name: str, times: int, shape: Shape) -> None:
    _, height, side = shape
    smallest = 2**times
    if min(height, side) < smallest:
        raise ValueError(
            f"model={name} halves the image {times} times and needs sides of at least {smallest} pixels; "
            f"this data has {height}x{side}: choose a shallower model or data with larger images"
        )


def _scaled(name: str, size: int, width: float) -> int:
    scaled = int(Decimal(f"{width:.12g}") * size)  # in floats 100 * 0.57 is below 57
    if scaled < 1:
        raise ValueError(
            f"model.width={width:g} leaves a layer of model={name} without channels: {size} x {width:g} is below 1; "
            f"the smallest width here is {1 / size:g}"
        )
    return scaled
