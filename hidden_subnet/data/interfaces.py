"""The interfaces by which the trainer reads images, from memory or files, and the shards of the ranks."""

import copy
from collections.abc import Iterator
from typing import Protocol, TypeVar

from torch import Tensor

from hidden_subnet.config.data_info import DataInfo

Shard = tuple[int, int]
"""(rank, number of ranks): the part of every batch that a rank reads."""
WHOLE: Shard = (0, 1)


class TrainingImages(Protocol):
    """Training images, shuffled and augmented in each epoch."""

    shard: Shard

    @property
    def images_in_epoch(self) -> int:
        """Number of images in an epoch, over all shards."""
        ...

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images, float32 (B, C, H, W), and labels, int64 (B,), on the device.

        They start at batch `start` of the epoch, and are a function of the arguments alone.
        """
        ...


class EvaluationImages(Protocol):
    """Evaluation images: every iteration gives the same images, (B, C, H, W) and labels (B,), in the same batches."""

    shard: Shard
    info: DataInfo
    labels: Tensor
    """Labels of all images, over all shards, int64 (N,)."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


Images = TypeVar("Images", TrainingImages, EvaluationImages)


def shared(images: Images, shard: Shard) -> Images:
    """Return a copy of `images` that reads only the given shard of each batch; the tensors are not copied."""
    part = copy.copy(images)
    part.shard = shard
    return part


def shard_slice(first: int, last: int, shard: Shard) -> slice:
    """Return the shard of a batch of the images `first` to `last` (exclusive); shards differ by at most one image."""
    (rank, ranks), n = shard, last - first
    return slice(first + n * rank // ranks, first + n * (rank + 1) // ranks)
