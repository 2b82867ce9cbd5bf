"""data=torchvision: the image classification sets of torchvision, downloaded to data.root, as in data.dataset=SVHN."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hidden_subnet.config.ranges import Range
from hidden_subnet.config.registries import DATA, nearest, register
from hidden_subnet.config.settings import Data, setting
from hidden_subnet.data.downloads import reason
from hidden_subnet.data.own_data import ImageData, made_by
from hidden_subnet.errors import DataError, problem

Arguments = dict[str, Any]
BY_TRAIN: tuple[Arguments, Arguments] = ({"train": True}, {"train": False})
BY_SPLIT: tuple[Arguments, Arguments] = ({"split": "train"}, {"split": "test"})
BOTH_TRAINED: tuple[Arguments, Arguments] = ({"split": "trainval"}, {"split": "test"})
SETS: dict[str, tuple[Arguments, Arguments]] = {
    "CIFAR10": BY_TRAIN, "CIFAR100": BY_TRAIN, "FashionMNIST": BY_TRAIN, "KMNIST": BY_TRAIN, "MNIST": BY_TRAIN,
    "QMNIST": BY_TRAIN, "USPS": BY_TRAIN,
    "Country211": BY_SPLIT, "DTD": BY_SPLIT, "Flowers102": BY_SPLIT, "Food101": BY_SPLIT, "GTSRB": BY_SPLIT,
    "PCAM": BY_SPLIT, "RenderedSST2": BY_SPLIT, "STL10": BY_SPLIT, "SVHN": BY_SPLIT,
    "FGVCAircraft": BOTH_TRAINED, "OxfordIIITPet": BOTH_TRAINED,
    "EMNIST": ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    "Imagenette": ({"split": "train"}, {"split": "val"}),
}  # fmt: skip
"""By name, the arguments that choose training and test images."""


@dataclass(kw_only=True, slots=True)
class TorchvisionData(Data):
    """The settings of `torchvision`."""

    name: str = setting("torchvision", id="always")
    dataset: str = setting("", id="always")
    """The name of a class in torchvision.datasets, one of SETS."""
    side: int = setting(
        0, id="if_changed", within=Range(0, 4096, "the side in pixels", "0 keeps the images as they are")
    )
    """Needed where the images have different sizes: the shorter side is resized to it, and the center is cut out."""


def torchvision_set(root: Path, *, dataset: str, side: int) -> ImageData:
    """Return the images of a set, downloaded where they are not in `root`: grey where all are, else RGB.

    Raises DataError where they cannot be downloaded, or have different sizes and no `side` is given.
    """
    from torchvision import datasets

    if dataset not in SETS:
        near = nearest(dataset, SETS) or "SVHN"
        rule = f"is none of torchvision's sets that can be read ({', '.join(sorted(SETS))})"
        raise DataError(
            problem(f"data.dataset={dataset}" if dataset else "data=torchvision", rule, f"data.dataset={near}")
        )
    make = partial(vars(datasets)[dataset], root, download=True)
    try:
        parts = [_pictures(make(**arguments), side) for arguments in SETS[dataset]]
    except (OSError, RuntimeError, ValueError) as error:
        rule = f"cannot be downloaded or read ({reason(error)}); put its files into {root}, or choose another"
        raise DataError(problem(f"data.dataset={dataset}", rule, "data=digits")) from error
    (train, train_labels), (test, test_labels) = parts
    mode = "L" if all(each.mode == "L" for each in [*train, *test]) else "RGB"
    return ImageData(_stacked(dataset, train, mode), train_labels, _stacked(dataset, test, mode), test_labels)


def _pictures(found: Any, side: int) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the PIL images of a torchvision data set, and labels (N,)."""
    pairs = [found[index] for index in range(len(found))]
    return [_resized(picture, side) for picture, _ in pairs], np.array([int(label) for _, label in pairs])


def _resized(picture: Any, side: int) -> Any:
    """Return the center of a PIL image after its shorter side is resized to `side`; 0 leaves it as it is."""
    if not side:
        return picture
    from torchvision.transforms.functional import center_crop, resize

    return center_crop(resize(picture, [side]), [side, side])


def _stacked(dataset: str, pictures: list[Any], mode: str) -> NDArray[np.uint8]:
    """Return (N, C, H, W)."""
    sizes = sorted({each.size for each in pictures})
    if len(sizes) > 1:
        found = " and ".join("x".join(map(str, size)) for size in (sizes[0], sizes[-1]))
        raise DataError(
            problem(f"data.dataset={dataset}", f"has images of different sizes, as {found}", "data.side=64")
        )
    images = np.stack([np.asarray(each.convert(mode)) for each in pictures])
    return images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)


register(DATA, "torchvision")(made_by("torchvision", torchvision_set, TorchvisionData))
