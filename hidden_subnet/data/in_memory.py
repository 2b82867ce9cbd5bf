"""Batches from a data set that is in the memory of the device as uint8: gathered, augmented and normalised there.

Order and augmentation of an epoch are functions of (seed, epoch), drawn on the CPU. So they are the same for every
method and device, and a run that resumes within an epoch needs no saved state of a generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.data.augment import Augment
from hidden_subnet.data.interfaces import WHOLE, shard_slice
from hidden_subnet.data.resizing import resized, resized_crops
from hidden_subnet.seeding import generator


@dataclass(frozen=True)
class EpochPlan:
    """The random choices of an epoch, one element for each image, in the order in which the epoch shows them."""

    order: Tensor
    """int64 (N,): a permutation of the images."""
    dy: Tensor
    """int64 (N,), 0 to 2 * crop: upper edge of the window in the padded image; crop is the centre."""
    dx: Tensor
    """Left edge, likewise."""
    flip: Tensor
    """bool (N,)."""

    def to(self, device: str | torch.device) -> "EpochPlan":
        """Return the plan on `device`."""
        return EpochPlan(self.order.to(device), self.dy.to(device), self.dx.to(device), self.flip.to(device))


def epoch_plan(n: int, seed: int, epoch: int, crop: int, flip: bool) -> EpochPlan:
    """Draw the plan of an epoch of `n` images, on the CPU, with random crops by up to `crop` pixels."""
    order = torch.randperm(n, generator=generator(seed, "order", epoch))
    augmentation = generator(seed, "augmentation", epoch)
    # Flips are always drawn, so that the crops do not depend on whether images are flipped.
    flips = torch.randint(0, 2, (n,), generator=augmentation).bool()
    dy, dx = torch.randint(0, 2 * crop + 1, (2, n), generator=augmentation)
    return EpochPlan(order, dy, dx, flips if flip else torch.zeros_like(flips))


class Batches:
    """Training images, shuffled and augmented differently in each epoch; the last batch may be smaller.

    Augmented images have the distribution of torchvision's RandomCrop(padding=crop), RandomHorizontalFlip, ToTensor,
    Normalize: black pixels are added around the raw image, which is normalised afterwards. With `resized_crop` it is
    that of RandomResizedCrop(size). With `size` alone, each image is enlarged as a whole (data/resizing.py). Before
    that come the transforms of `augment`.
    """

    shard = WHOLE

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        info: DataInfo,
        *,
        batch_size: int,
        crop: int,
        flip: bool,
        device: str | torch.device,
        size: int = 0,
        resized_crop: bool = False,
        augment: Augment | None = None,
        numbers: Tensor | None = None,
    ) -> None:
        """Take images (N, C, H, W) and labels (N,). numbers: of the images, for `augment`; by default 0 to N - 1."""
        self.augment, self.numbers = augment, torch.arange(len(images)) if numbers is None else numbers
        self.size, self.resized_crop = size, resized_crop
        self.info, self.batch_size, self.crop, self.flip, self.device = info, batch_size, crop, flip, device
        self.labels = labels.to(device)
        self._windows = _windows(images.to(device), crop)
        self._scale, self._shift = scale_and_shift(info, device)

    @property
    def images_in_epoch(self) -> int:
        """Number of training images."""
        return len(self.labels)

    def __len__(self) -> int:
        return -(-self.images_in_epoch // self.batch_size)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float32 (B, C, H, W), and labels, int64 (B,), from batch `start` of the epoch on."""
        n, (_, height, width) = self.images_in_epoch, self._windows.shape[3:]
        plan = epoch_plan(n, seed, epoch, self.crop, self.flip).to(self.device)
        crops = resized_crops(n, height, width, seed, epoch).to(self.device) if self.resized_crop else None
        for first in range(start * self.batch_size, self.images_in_epoch, self.batch_size):
            batch = shard_slice(first, min(first + self.batch_size, n), self.shard)
            index = plan.order[batch]
            pixels = _taken(self._windows, index, plan.dy[batch], plan.dx[batch])
            if self.flip:
                pixels = _flipped(pixels, plan.flip[batch])
            if self.augment is not None:
                pixels = self.augment(pixels, self.numbers[index.cpu()], seed, epoch)
            if crops is not None:
                pixels = resized(pixels, crops[batch], self.size or height)
            elif self.size:
                pixels = resized(pixels, None, self.size)
            yield normalised(pixels, self._scale, self._shift), self.labels.index_select(0, index)


class EvaluationBatches:
    """Evaluation images in a fixed order, enlarged to `side` unless it is 0; can be iterated any number of times.

    `size`: images per batch.
    """

    shard = WHOLE

    def __init__(
        self, images: Tensor, labels: Tensor, info: DataInfo, device: str | torch.device, size: int = 512, side: int = 0
    ) -> None:
        self.info, self.size, self.side = info, size, side
        self.images, self.labels = images.to(device), labels.to(device)
        self._scale, self._shift = scale_and_shift(info, device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(self.labels), self.size):
            batch = shard_slice(first, min(first + self.size, len(self.labels)), self.shard)
            pixels = self.images[batch]
            if self.side:
                pixels = resized(pixels, None, self.side)
            yield normalised(pixels, self._scale, self._shift), self.labels[batch]


def _windows(images: Tensor, crop: int) -> Tensor:
    """Return every window of every zero-padded image, (N, 2 crop + 1, 2 crop + 1, C, H, W), as a view."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (crop, crop, crop, crop)).contiguous()
    image, channel, row, column = padded.stride()
    shifts = 2 * crop + 1
    return padded.as_strided((n, shifts, shifts, channels, height, width), (image, row, column, channel, row, column))


def _taken(windows: Tensor, *index: Tensor) -> Tensor:
    """Return windows[index]; on the CPU by numpy, which copies whole rows and takes a third of torch's time."""
    if windows.shape[1:3] == (1, 1):  # data.crop=0
        return windows[:, 0, 0].index_select(0, index[0])
    if windows.device.type != "cpu" or not index[0].numel():  # numpy's empty arrays have no strides
        return windows[index]
    return torch.from_numpy(windows.numpy()[tuple(each.numpy() for each in index)])


def _flipped(pixels: Tensor, which: Tensor) -> Tensor:
    """Return the images (B, C, H, W), mirrored where `which` (B,) is True.

    It selects words of several pixels, which takes an eighth of the time of single bytes.
    """
    width = pixels.shape[-1] * pixels.element_size()
    word = next((word for word in (torch.int64, torch.int32, torch.int16) if width % word.itemsize == 0), pixels.dtype)
    mirrored, plain = (each.contiguous().view(word) for each in (pixels.flip(-1), pixels))
    return torch.where(which[:, None, None, None], mirrored, plain).view(pixels.dtype)


def scale_and_shift(info: DataInfo, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift, float32 (C, 1, 1), with raw * scale + shift = (raw / max_value - mean) / std."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (info.mean, info.std))
    scale, shift = 1 / (std * info.max_value), -mean / std
    return scale.float().to(device), shift.float().to(device)


def normalised(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return pixels * scale + shift as float32 (B, C, H, W), a new tensor."""
    return (pixels.mul(scale) if pixels.is_floating_point() else pixels.float().mul_(scale)).add_(shift)
