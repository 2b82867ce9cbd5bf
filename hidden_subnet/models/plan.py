"""The sizes of the paper's networks, worked out without torch so that a wrong one is refused before anything starts.

Conv2 to Conv8 are VGG-like: pairs of 3x3 convolutions with 64, 128, 256, 512 channels, each pair followed by a 2x2
max-pool, then a fully connected part 256-256-classes (Frankle and Carbin 2019; Ramanujan et al. 2020).
"""

from dataclasses import dataclass
from decimal import Decimal

PAIR_CHANNELS = {"conv2": [64], "conv4": [64, 128], "conv6": [64, 128, 256], "conv8": [64, 128, 256, 512]}
CONV_HIDDEN = [256, 256]
FC_HIDDEN = [300, 100]

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    pairs: list[int]
    """Channels of each pair of convolutions."""
    features: list[int]
    """Widths of the fully connected part, from the flattened image to the classes."""


def plan(name: str, width: float, shape: Shape, classes: int) -> Plan:
    """Size a network for images of `shape` (channels, height, width).

    Raises ValueError where a hidden layer would have no channels or the image is too small to be halved once a pair.
    """
    pairs = [_scaled(name, channels, width) for channels in PAIR_CHANNELS.get(name, [])]
    hidden = [_scaled(name, features, width) for features in (FC_HIDDEN if name == "fc" else CONV_HIDDEN)]
    channels, height, side = shape
    smallest = 2 ** len(pairs)
    if min(height, side) < smallest:
        raise ValueError(
            f"model={name} halves the image {len(pairs)} times and needs sides of at least {smallest} pixels; "
            f"this data has {height}x{side}: choose a shallower model or data with larger images"
        )
    flat = (pairs[-1] if pairs else channels) * (height // smallest) * (side // smallest)
    return Plan(pairs=pairs, features=[flat, *hidden, classes])


def _scaled(name: str, size: int, width: float) -> int:
    scaled = int(Decimal(f"{width:.12g}") * size)  # in floats 100 * 0.57 is below 57
    if scaled < 1:
        raise ValueError(
            f"model.width={width:g} leaves a layer of model={name} without channels: {size} x {width:g} is below 1; "
            f"the smallest width here is {1 / size:g}"
        )
    return scaled
