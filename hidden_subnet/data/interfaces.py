"""What the trainer asks of images, wherever they come from."""

import copy
from collections.abc import Iterator
from typing import Protocol, TypeVar

from torch import Tensor

from hidden_subnet.data.info import Info

Share = tuple[int, int]
"""(rank, ranks): of every batch only that rank's part is given."""
WHOLE: Share = (0, 1)


class TrainingImages(Protocol):
    share: Share

    @property
    def images_in_epoch(self) -> int: ...

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised float32 (B, C, H, W) and int64 (B,) on the device, from batch `start` of the epoch on.

        A function of its arguments alone.
        """
        ...


class EvaluationImages(Protocol):
    """The same images in the same batches each time that it is gone through."""

    share: Share
    info: Info
    labels: Tensor
    """Of all of them, whatever the share."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


Images = TypeVar("Images", TrainingImages, EvaluationImages)


def shared(images: Images, share: Share) -> Images:
    """The same images in the same batches, of which only a part is read."""
    part = copy.copy(images)
    part.share = share
    return part


def rows(first: int, last: int, share: Share) -> slice:
    """Of the images `first` to `last` of a batch those of a rank: contiguous parts, as equal as can be."""
    (rank, ranks), n = share, last - first
    return slice(first + n * rank // ranks, first + n * (rank + 1) // ranks)
