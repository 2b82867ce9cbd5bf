"""What the trainer asks of images, wherever they come from."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from hidden_subnet.data.info import Info


class TrainingImages(Protocol):
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

    info: Info
    labels: Tensor

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
