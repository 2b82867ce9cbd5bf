"""The sizes of the paper's networks as plain numbers, so that a size that is not possible is refused before a run.

Conv2 to Conv8 are VGG-like: pairs of 3x3 convolutions with 64, 128, 256, 512 channels, each pair followed by a 2x2
max-pool, then fully connected layers 256-256-classes (Frankle and Carbin 2019; Ramanujan et al. 2020). The residual
networks are those of He et al. 2016, with the stride in the 3x3 convolution of a bottleneck. For CIFAR they have a 3x3
stem without a pool; the wide ones have twice the inner channels of a bottleneck (Zagoruyko and Komodakis 2016).
ResNet-20 to ResNet-110 are those of section 4.2 there, with three stages and shortcuts without weights. VGG-small is
that of Zhang et al. 2018 and biprop, VGG-16 that of Simonyan and Zisserman 2015 with batch norm and one linear layer,
as usual for CIFAR; LeNet-5 has the sizes of LeCun et al. 1998, with ReLU and max-pools.

`width` multiplies the channels or features of every hidden layer, as in Conv4Wide and Conv6Wide of Ramanujan et al.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from hidden_subnet.errors import problem

PAIR_CHANNELS = {"conv2": [64], "conv4": [64, 128], "conv6": [64, 128, 256], "conv8": [64, 128, 256, 512]}
CONV_HIDDEN = [256, 256]
FC_HIDDEN = [300, 100]

STAGE_CHANNELS = [64, 128, 256, 512]


@dataclass(frozen=True)
class Residual:
    """The architecture of a residual network, before width and images are known."""

    depths: list[int]
    """Blocks in each of the four stages."""
    bottleneck: bool
    cifar: bool
    inner: int = 1
    """Inner channels of a bottleneck, as a multiple of the channels of its stage."""
    channels: list[int] = field(default_factory=lambda: STAGE_CHANNELS)
    """Channels of each stage."""
    padded: bool = False
    """True: a shortcut to more channels takes every second pixel and adds channels of zeros, and has no weights."""


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
    **{
        f"resnet{6 * blocks + 2}": Residual(
            [blocks] * 3, bottleneck=False, cifar=True, channels=[16, 32, 64], padded=True
        )
        for blocks in (3, 5, 9, 18)
    },
}


@dataclass(frozen=True)
class Stack:
    """Blocks of convolutions, each followed by a 2x2 max-pool, and then linear layers."""

    blocks: list[list[int]]
    """Channels of the convolutions of each block."""
    hidden: list[int]
    kernel: int
    norm: bool


STACKS = {
    "vgg_small": Stack([[128, 128], [256, 256], [512, 512]], [], kernel=3, norm=True),
    "vgg16": Stack([[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3], [], kernel=3, norm=True),
    "lenet5": Stack([[6], [16]], [120, 84], kernel=5, norm=False),
}

NAMES = ("fc", *PAIR_CHANNELS, *RESIDUAL, *STACKS)

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """The sizes of fc and of conv2 to conv8."""

    channels: int
    """Channels of the images."""
    pairs: list[int]
    """Channels of each pair of convolutions."""
    features: list[int]
    """Sizes of the fully connected part, from the flattened feature maps to the classes."""


@dataclass(frozen=True)
class Conv:
    """A convolution without bias: channels, side of the square kernel, stride; padded by kernel // 2 or not at all."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padded: bool = True

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.inputs * self.outputs * self.kernel**2


@dataclass(frozen=True)
class Block:
    """The sizes of a residual block."""

    convs: list[Conv]
    shortcut: Conv | None
    """None: identity, or where the shape changes, every second pixel with channels of zeros."""


@dataclass(frozen=True)
class ResidualPlan:
    """The sizes of a residual network."""

    stem: Conv
    pool: bool
    """True: a 3x3 max-pool of stride 2 follows the stem."""
    stages: list[list[Block]]
    features: int
    classes: int
    last: tuple[int, int]
    """Height and width of the last feature maps."""


@dataclass(frozen=True)
class StackPlan:
    """The sizes of a network of STACKS."""

    blocks: list[list[Conv]]
    """The convolutions of each block, after which a 2x2 max-pool follows."""
    features: list[int]
    """Sizes of the linear part, from the flattened feature maps to the classes."""
    norm: bool
    last: tuple[int, int]
    """Height and width of the feature maps of the last convolution."""


def has_norm(name: str) -> bool:
    """Return whether the network has batch norm, as all residual ones do."""
    return name in RESIDUAL or (name in STACKS and STACKS[name].norm)


def plan(name: str, width: float, shape: Shape, classes: int) -> Plan | ResidualPlan | StackPlan:
    """Return the sizes of a network of NAMES for images of `shape` (channels, height, width).

    Raises ValueError where a hidden layer would have no channels, or where the images are too small for its pools.
    """
    if name in RESIDUAL:
        return _residual(name, RESIDUAL[name], width, shape, classes)
    if name in STACKS:
        return _stack(name, STACKS[name], width, shape, classes)
    pairs = [_scaled(name, channels, width) for channels in PAIR_CHANNELS.get(name, [])]
    hidden = [_scaled(name, features, width) for features in (FC_HIDDEN if name == "fc" else CONV_HIDDEN)]
    times = len(pairs)
    _fits(name, times, shape)
    height, side = shape[1] // 2**times, shape[2] // 2**times
    flat = (pairs[-1] if pairs else shape[0]) * height * side
    return Plan(channels=shape[0], pairs=pairs, features=[flat, *hidden, classes])


def count_weights(sizes: Plan | ResidualPlan | StackPlan) -> int:
    """Return the number of weights of the conv and linear layers, all of which are masked; no layer has a bias."""
    if isinstance(sizes, ResidualPlan):
        blocks = [block for stage in sizes.stages for block in stage]
        convs = [sizes.stem, *(conv for block in blocks for conv in [*block.convs, block.shortcut] if conv)]
        return sum(conv.weights for conv in convs) + sizes.features * sizes.classes
    total = sum(a * b for a, b in zip(sizes.features, sizes.features[1:], strict=False))
    if isinstance(sizes, StackPlan):
        return total + sum(conv.weights for block in sizes.blocks for conv in block)
    channels = sizes.channels
    for width in sizes.pairs:
        total, channels = total + 9 * width * (channels + width), width
    return total


def _residual(name: str, kind: Residual, width: float, shape: Shape, classes: int) -> ResidualPlan:
    stem = _scaled(name, kind.channels[0], width)
    times = len(kind.depths) - 1 if kind.cifar else 5
    _fits(name, times, shape)
    # Strided convolutions and the pool are padded and so round up; halving so `times` times is one division.
    last = -(-shape[1] // 2**times), -(-shape[2] // 2**times)
    stages, inputs = [], stem
    for stage, depth in enumerate(kind.depths):
        channels = _scaled(name, kind.channels[stage], width)
        inner = _scaled(name, kind.channels[stage] * kind.inner, width)
        outputs = 4 * channels if kind.bottleneck else channels
        blocks = []
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            if kind.bottleneck:
                convs = [Conv(inputs, inner, 1), Conv(inner, inner, 3, stride), Conv(inner, outputs, 1)]
            else:
                convs = [Conv(inputs, channels, 3, stride), Conv(channels, channels, 3)]
            changes = (stride != 1 or inputs != outputs) and not kind.padded
            blocks.append(Block(convs, Conv(inputs, outputs, 1, stride) if changes else None))
            inputs = outputs
        stages.append(blocks)
    conv = Conv(shape[0], stem, 3) if kind.cifar else Conv(shape[0], stem, 7, 2)
    return ResidualPlan(conv, not kind.cifar, stages, inputs, classes, last)


def _stack(name: str, kind: Stack, width: float, shape: Shape, classes: int) -> StackPlan:
    # Kernels of 3 are padded everywhere; those of LeNet-5, of 5, in the first layer only.
    later_padded = kind.kernel == 3
    smallest = 2 ** len(kind.blocks) if later_padded else 12
    if min(shape[1:]) < smallest:
        rule = f"needs images with sides of at least {smallest} pixels; these are {shape[1]}x{shape[2]}"
        raise ValueError(problem(f"model={name}", rule, f"data.size={smallest}", lead="as in"))
    inputs, (height, side) = shape[0], shape[1:]
    blocks, last = [], (height, side)
    for index, channels in enumerate(kind.blocks):
        block = []
        for each in channels:
            block.append(Conv(inputs, _scaled(name, each, width), kind.kernel, padded=later_padded or index == 0))
            inputs = block[-1].outputs
            height, side = (each if block[-1].padded else each - kind.kernel + 1 for each in (height, side))
        blocks.append(block)
        last = (height, side)
        height, side = height // 2, side // 2
    hidden = [_scaled(name, each, width) for each in kind.hidden]
    return StackPlan(blocks, [inputs * height * side, *hidden, classes], kind.norm, last)


def _fits(name: str, times: int, shape: Shape) -> None:
    _, height, side = shape
    smallest = 2**times
    if min(height, side) < smallest:
        rule = (
            f"halves the image {times} times and needs sides of at least {smallest} pixels; images are {height}x{side}"
        )
        raise ValueError(problem(f"model={name}", rule, f"data.size={smallest}", lead="as in"))


def _scaled(name: str, size: int, width: float) -> int:
    scaled = int(Decimal(f"{width:.12g}") * size)  # in floats 100 * 0.57 is below 57
    if scaled < 1:
        rule = f"leaves a layer of model={name} without channels, as {size} x {width:g} is below 1"
        least = _smallest(name)
        raise ValueError(problem(f"model.width={width:g}", rule, f"model.width={1 / least:g}", lead="as in"))
    return scaled


def _smallest(name: str) -> int:
    """Return the smallest number of channels or features of a hidden layer at width 1."""
    if name in STACKS:
        return min([*STACKS[name].hidden, *(each for block in STACKS[name].blocks for each in block)])
    if name in RESIDUAL:
        return min(RESIDUAL[name].channels)
    return min(FC_HIDDEN if name == "fc" else STAGE_CHANNELS)
