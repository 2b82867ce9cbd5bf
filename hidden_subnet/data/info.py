"""What each data set is, without loading it (and without torch)."""

from dataclasses import dataclass


class DataError(ValueError):
    """Data that is not there or cannot be read, told in one line."""


@dataclass(frozen=True)
class Info:
    shape: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    train: int
    """Number of training images, before any are held out."""
    test: int
    mean: tuple[float, ...]
    """Of a channel, as a fraction of `white`."""
    std: tuple[float, ...]
    white: float = 255.0
    """The raw value of the brightest pixel."""


# CIFAR-10: the authors' constants. The others: measured over the training images.
INFO = {
    "digits": Info((1, 8, 8), 10, 1437, 360, (0.305,), (0.376,), white=16.0),
    "mnist": Info((1, 28, 28), 10, 60_000, 10_000, (0.1307,), (0.3081,)),
    "fashion_mnist": Info((1, 28, 28), 10, 60_000, 10_000, (0.2860,), (0.3530,)),
    "cifar10": Info((3, 32, 32), 10, 50_000, 10_000, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": Info((3, 32, 32), 100, 50_000, 10_000, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "synthetic": Info((1, 8, 8), 10, 512, 128, (0.5,), (0.25,)),
}


def held_out(name: str, validation: float) -> int:
    return round(validation * INFO[name].train)
