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


# Of ImageNet's training images; the authors take it for every set with larger images.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

FOLDERS = ("imagenet", "tiny_imagenet")
"""The sets that are read from folders image by image: INFO has the published counts, which need not be those found."""

# CIFAR-10: the authors' constants. The others: measured over the training images.
INFO = {
    "digits": Info((1, 8, 8), 10, 1437, 360, (0.305,), (0.376,), white=16.0),
    "mnist": Info((1, 28, 28), 10, 60_000, 10_000, (0.1307,), (0.3081,)),
    "fashion_mnist": Info((1, 28, 28), 10, 60_000, 10_000, (0.2860,), (0.3530,)),
    "cifar10": Info((3, 32, 32), 10, 50_000, 10_000, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": Info((3, 32, 32), 100, 50_000, 10_000, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "bigcifar10": Info((3, 32, 32), 10, 50_000, 10_000, *IMAGENET),
    "imagenet": Info((3, 224, 224), 1000, 1_281_167, 50_000, *IMAGENET),
    "tiny_imagenet": Info((3, 64, 64), 200, 100_000, 10_000, *IMAGENET),
    "synthetic": Info((1, 8, 8), 10, 512, 128, (0.5,), (0.25,)),
}


def trained_on(images: int, fraction: float) -> int:
    """How many of the images that are not held out are trained on (data.fraction)."""
    return round(fraction * images)


def held_out(images: int, validation: float) -> int:
    """How many of so many training images are held out."""
    return round(validation * images)
