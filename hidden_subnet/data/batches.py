"""Batches from a data set that lies whole, as uint8, on the device: gathered, augmented, normalised there.

An epoch's order and augmentation are functions of (seed, epoch), drawn on the CPU: the same for every
method and device, and a run that goes on in the middle of an epoch needs no saved generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hidden_subnet.data.info import Info
from hidden_subnet.data.interfaces import WHOLE, rows
from hidden_subnet.data.resizing import resized, resized_crops
from hidden_subnet.seeding import generator


@dataclass(frozen=True)
class Plan:
    """An epoch's random choices, one entry an image in the order in which they are shown."""

    order: Tensor
    """int64 (n,), a permutation."""
    dy: Tensor
    """int64 (n,), 0 to 2 * crop: the window's upper edge in the padded image; crop is the middle."""
    dx: Tensor
    flip: Tensor
    """bool (n,)."""

    def to(self, device: str | torch.device) -> "Plan":
        return Plan(self.order.to(device), self.dy.to(device), self.dx.to(device), self.flip.to(device))


def epoch_plan(n: int, seed: int, epoch: int, crop: int, flip: bool) -> Plan:
    order = torch.randperm(n, generator=generator(seed, "order", epoch))
    augmentation = generator(seed, "augmentation", epoch)
    # Drawn whether used or not, so that the crops do not depend on whether images are flipped.
    flips = torch.randint(0, 2, (n,), generator=augmentation).bool()
    dy, dx = torch.randint(0, 2 * crop + 1, (2, n), generator=augmentation)
    return Plan(order, dy, dx, flips if flip else torch.zeros_like(flips))


class Batches:
    """The training images, shuffled and augmented anew each epoch; the last batch may be smaller.

    In law the same as torchvision's RandomCrop(padding=crop), RandomHorizontalFlip, ToTensor, Normalize:
    black pixels are added around the raw image, which is normalised after. With `resized_crop` the same in law as
    RandomResizedCrop(size), and with `size` alone each image is enlarged as a whole (data/resizing.py).
    """

    share = WHOLE

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        info: Info,
        *,
        batch_size: int,
        crop: int,
        flip: bool,
        device: str | torch.device,
        size: int = 0,
        resized_crop: bool = False,
    ) -> None:
        self.size, self.resized_crop = size, resized_crop
        self.info, self.batch_size, self.crop, self.flip, self.device = info, batch_size, crop, flip, device
        self.labels = labels.to(device)
        self._windows = _windows(images.to(device), crop)
        self._scale, self._shift = scale_and_shift(info, device)

    @property
    def images_in_epoch(self) -> int:
        return len(self.labels)

    def __len__(self) -> int:
        return -(-self.images_in_epoch // self.batch_size)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 (B, C, H, W) and labels int64 (B,), from batch `start` of the epoch on."""
        n, (_, height, width) = self.images_in_epoch, self._windows.shape[3:]
        plan = epoch_plan(n, seed, epoch, self.crop, self.flip).to(self.device)
        crops = resized_crops(n, height, width, seed, epoch).to(self.device) if self.resized_crop else None
        for first in range(start * self.batch_size, self.images_in_epoch, self.batch_size):
            batch = rows(first, min(first + self.batch_size, n), self.share)
            index = plan.order[batch]
            pixels = _taken(self._windows, index, plan.dy[batch], plan.dx[batch])
            if self.flip:
                pixels = _flipped(pixels, plan.flip[batch])
            if crops is not None:
                pixels = resized(pixels, crops[batch], self.size or height)
            elif self.size:
                pixels = resized(pixels, None, self.size)
            yield normalised(pixels, self._scale, self._shift), self.labels.index_select(0, index)


class EvaluationBatches:
    """Images in their own order, as they are or enlarged to `side`; can be gone through again and again."""

    share = WHOLE

    def __init__(
        self, images: Tensor, labels: Tensor, info: Info, device: str | torch.device, size: int = 512, side: int = 0
    ) -> None:
        self.info, self.size, self.side = info, size, side
        self.images, self.labels = images.to(device), labels.to(device)
        self._scale, self._shift = scale_and_shift(info, device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(self.labels), self.size):
            batch = rows(first, min(first + self.size, len(self.labels)), self.share)
            pixels = self.images[batch]
            if self.side:
                pixels = resized(pixels, None, self.side)
            yield normalised(pixels, self._scale, self._shift), self.labels[batch]


def _windows(images: Tensor, crop: int) -> Tensor:
    """Every window of every zero-padded image, (N, 2 crop + 1, 2 crop + 1, C, H, W): a view, no copies."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (crop, crop, crop, crop)).contiguous()
    image, channel, row, column = padded.stride()
    shifts = 2 * crop + 1
    return padded.as_strided((n, shifts, shifts, channels, height, width), (image, row, column, channel, row, column))


def _taken(windows: Tensor, *index: Tensor) -> Tensor:
    """windows[index]; on the CPU by numpy, which copies rows where torch copies bytes: a third of the time."""
    if windows.shape[1:3] == (1, 1):  # no crop
        return windows[:, 0, 0].index_select(0, index[0])
    if windows.device.type != "cpu" or not index[0].numel():  # numpy's empty arrays have no strides
        return windows[index]
    return torch.from_numpy(windows.numpy()[tuple(each.numpy() for each in index)])


def _flipped(pixels: Tensor, which: Tensor) -> Tensor:
    """Those of the images (B, C, H, W) mirrored; by words of several pixels, an eighth of the time of bytes."""
    width = pixels.shape[-1] * pixels.element_size()
    word = next((word for word in (torch.int64, torch.int32, torch.int16) if width % word.itemsize == 0), pixels.dtype)
    mirrored, plain = (each.contiguous().view(word) for each in (pixels.flip(-1), pixels))
    return torch.where(which[:, None, None, None], mirrored, plain).view(pixels.dtype)


def scale_and_shift(info: Info, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """(C, 1, 1) each, so that raw * scale + shift = (raw / white - mean) / std."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (info.mean, info.std))
    scale, shift = 1 / (std * info.white), -mean / std
    return scale.float().to(device), shift.float().to(device)


def normalised(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return (pixels if pixels.is_floating_point() else pixels.float()).mul_(scale).add_(shift)
