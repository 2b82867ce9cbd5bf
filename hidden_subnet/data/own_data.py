"""Registers images of the user's own: a function that makes them, whose further arguments become settings.

    @hidden_subnet.register_data("my_images")
    def my_images(root, *, noise: float = 0.1):
        return hidden_subnet.ImageData(train, train_labels, test, test_labels)

`python launch.py use=my_parts.py data=my_images data.noise=0.3`. A digest of the images is part of a run's id.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.own_parts import said
from hidden_subnet.config.registries import DATA, DataEntry, register_own
from hidden_subnet.config.settings import Data
from hidden_subnet.config.signature import arguments_in, arguments_of, settings_of
from hidden_subnet.data.catalog import Images
from hidden_subnet.errors import AGAIN, DataError

MEND = f"mend the function, and {AGAIN}"
FIRST = ("root",)
KEPT = 4
"""Number of data sets that a process keeps in memory, of one function with different settings."""
Maker = TypeVar("Maker", bound=Callable[..., "ImageData"])


@dataclass(frozen=True)
class ImageData:
    """Images in memory with their labels, and what a network needs to know of them.

    >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> data = hs.ImageData(images[:10], labels[:10], images[10:], labels[10:])
    """

    train: Any
    """Training images, uint8 (0 to 255) or float32, (N, C, H, W); a tensor or a numpy array."""
    train_labels: Any
    """Whole numbers from 0 on, (N,)."""
    test: Any
    test_labels: Any
    classes: int | None = None
    """Number of classes; None: the largest label of the training images and 1."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, by which images are normalised, uint8 ones as fractions of 255; None: that of the training
    images."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, likewise."""


def register_data(name: str) -> Callable[[Maker], Maker]:
    """Return a decorator that makes `data=<name>` take the images of a function `(root, **settings) -> ImageData`.

    >>> @hs.register_data("halves")
    ... def halves(root, *, count: int = 20):
    ...     images, labels = torch.rand(count, 1, 8, 8), torch.arange(count) % 2
    ...     return hs.ImageData(images[:10], labels[:10], images[10:], labels[10:])

    root: the folder data.root as a Path. Further arguments need a default or a type (bool, int, float, str, lists of
    these). The function is called in every process of a run, and must return the same images each time: random numbers
    come from a generator with a fixed seed. Raises TypeError for arguments that cannot be settings, ValueError for a
    name in use.
    """

    def enter(make: Maker) -> Maker:
        settings = settings_of(name, make, Data, "data", FIRST)
        register_own("data", DATA, name, make)(made_by(name, make, settings))
        return make

    return enter


def made_by(name: str, make: Callable[..., ImageData], settings: type[Data]) -> DataEntry:
    """Return the entry of images that a function `(root, **settings)` makes, once in a process for equal settings."""
    own = arguments_of(make, FIRST)
    kept: dict[str, Images] = {}

    def call(data: Data) -> Callable[[], ImageData]:
        return partial(make, Path(data.root).expanduser().absolute(), **arguments_in(data, own))

    def read(data: Data) -> Images:
        asked = repr(call(data))
        if asked not in kept:
            while len(kept) >= KEPT:
                kept.pop(next(iter(kept)))
            kept[asked] = _made(name, call(data))
        return kept[asked]

    def forget(data: Data) -> None:
        kept.pop(repr(call(data)), None)

    return DataEntry(None, own=read, forget=forget, settings=settings)


def _made(name: str, make: Callable[[], Any]) -> Images:
    # The processes of a sweep have other numbers of threads, by which torch's sums differ in their last bits.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _checked(name, make())
    except DataError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise DataError(f"data={name}: {said(error)}; {MEND}") from error
    finally:
        torch.set_num_threads(threads)


def digest_of(images: Images) -> str:
    """Return 16 hex digits of the content of the images and labels, and of the numbers that normalise them."""
    digest = hashlib.sha256(repr((images.info.classes, images.info.mean, images.info.std)).encode())
    for tensor in (images.train, images.train_labels, images.test, images.test_labels):
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _checked(name: str, images: Any) -> Images:
    """Return the images as they are kept in memory. Raises DataError, in one line, for what are no images."""
    if not isinstance(images, ImageData):
        raise DataError(
            f"data={name}: must return hidden_subnet.ImageData, and returns {type(images).__name__}; as in: "
            "return ImageData(train, train_labels, test, test_labels)"
        )
    train, test = _pixels(name, "train", images.train), _pixels(name, "test", images.test)
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise DataError(
            f"data={name}: training and test images differ: {tuple(train.shape)} {train.dtype} and "
            f"{tuple(test.shape)} {test.dtype}; give both the same shape and type: {MEND}"
        )
    labels = [
        _labels(name, part, given, pixels)
        for part, given, pixels in (("train", images.train_labels, train), ("test", images.test_labels, test))
    ]
    classes = int(labels[0].max()) + 1 if images.classes is None else images.classes
    if classes < 2 or (most := int(max(each.max() for each in labels))) >= classes:
        found = f"a label {most}" if classes >= 2 else "a single class"
        raise DataError(
            f"data={name}: {classes} classes and {found}; labels are 0 to classes - 1, of 2 or more classes: {MEND}"
        )
    white = 255.0 if train.dtype == torch.uint8 else 1.0
    channels, height, width = train.shape[1:]
    by_channel = train.double().transpose(0, 1).reshape(channels, -1) / white
    mean = images.mean or tuple(by_channel.mean(1).tolist())
    std = images.std or tuple(by_channel.std(1, correction=0).clamp_min(1e-6).tolist())
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"data={name}: mean {mean} and std {std} must have a number for each of {channels} channels; {MEND}"
        )
    info = DataInfo((channels, height, width), classes, len(train), len(test), mean, std, max_value=white)
    return Images(train, labels[0], test, labels[1], info)


def _pixels(name: str, part: str, given: Any) -> Tensor:
    # numpy's mirrored arrays, as x[:, :, ::-1], are none that torch takes.
    pixels = torch.as_tensor(np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given)
    if pixels.ndim != 4 or not len(pixels):
        raise DataError(
            f"data={name}: {part} must be images of shape (N, C, H, W), and is {tuple(pixels.shape)}; {MEND}"
        )
    if pixels.shape[3] == 3 and pixels.shape[1] == pixels.shape[2] > 4:
        raise DataError(
            f"data={name}: {part} must be images of shape (N, C, H, W), and is {tuple(pixels.shape)}, which looks like "
            f"(N, H, W, C); in the function, type: np.moveaxis({part}, 3, 1)"
        )
    if pixels.dtype != torch.uint8:
        if not pixels.is_floating_point():
            raise DataError(f"data={name}: {part} must be uint8 or float32, and is {pixels.dtype}; {MEND}")
        pixels = pixels.float()
        if not bool(pixels.isfinite().all()):
            raise DataError(f"data={name}: {part} has values that are NaN or infinite; remove these: {MEND}")
    return pixels.contiguous()


def _labels(name: str, part: str, given: Any, pixels: Tensor) -> Tensor:
    labels = torch.as_tensor(given)
    if labels.shape != pixels.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(
            f"data={name}: {part}_labels must be {len(pixels)} whole numbers, one for each image, and are of shape "
            f"{tuple(labels.shape)}, {labels.dtype}; {MEND}"
        )
    if int(labels.min()) < 0:
        raise DataError(f"data={name}: {part}_labels has {int(labels.min())}; labels are 0 to classes - 1: {MEND}")
    return labels.long()
