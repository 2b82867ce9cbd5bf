"""Batches from image files: read, augmented and resized in worker processes, normalised on the device.

An epoch's order is a function of (seed, epoch) and an image's augmentation of (seed, epoch, image), whatever the number
of workers; a run that goes on in the middle of an epoch reads none of the images before.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from hidden_subnet.data.batches import normalised, scale_and_shift
from hidden_subnet.data.info import DataError, Info
from hidden_subnet.data.interfaces import WHOLE, rows
from hidden_subnet.data.worker import begin_worker, multiprocessing_context
from hidden_subnet.seeding import derive, generator
from hidden_subnet.signals import signals_held

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Augmentation:
    size: int
    """Side of the images that come out, in pixels."""
    resize: int
    """Shorter side before the middle is cut out; for a training image too, unless `resized_crop`."""
    crop: int
    flip: bool
    resized_crop: bool

    def evaluation(self) -> list[v2.Transform]:
        return [v2.Resize(self.resize), v2.CenterCrop(self.size)]

    def training(self) -> list[v2.Transform]:
        steps = [v2.RandomResizedCrop(self.size)] if self.resized_crop else self.evaluation()
        steps += [v2.RandomCrop(self.size, padding=self.crop)] if self.crop else []
        return [*steps, *([v2.RandomHorizontalFlip()] if self.flip else [])]


@dataclass(frozen=True)
class Order:
    """A batch to be read: which images, and the stream of their augmentation (None: as in evaluation)."""

    images: NDArray[np.int64]
    stream: tuple[int, int] | None
    """(seed, epoch)."""


class Files(Dataset[Any]):
    """Answers an Order with uint8 (B, 3, size, size), or with a line that says which file cannot be read."""

    def __init__(self, folder: Path, paths: Sequence[str], augmentation: Augmentation) -> None:
        # One array: a million strings would be copied into each worker, as their reference counts change.
        self.folder, self.paths = folder, np.array([path.encode(errors="surrogateescape") for path in paths])
        self.size = augmentation.size
        self.training = v2.Compose([*augmentation.training(), v2.PILToTensor()])
        self.evaluation = v2.Compose([*augmentation.evaluation(), v2.PILToTensor()])

    def __getitem__(self, order: Order) -> Tensor | str:
        batch = torch.empty((len(order.images), 3, self.size, self.size), dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # transforms draw from the process's own generator
            for place, image in enumerate(order.images.tolist()):
                path = self.folder / self.paths[image].decode(errors="surrogateescape")
                try:
                    with Image.open(path) as opened:
                        picture = opened.convert("RGB")
                # PIL's readers raise a dozen kinds for damaged files, SyntaxError and struct.error among them.
                except Exception as error:
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
                    return f"{path}: cannot be read as an image ({reason}); replace it, or take it away"
                if order.stream is None:
                    batch[place] = self.evaluation(picture)
                else:
                    seed, epoch = order.stream
                    torch.default_generator.manual_seed(derive(seed, "augmentation", epoch, image))
                    batch[place] = self.training(picture)
        return batch


class Orders(Sampler[Order]):
    """What is asked next; a DataLoader takes it when it is iterated anew."""

    def __init__(self) -> None:
        self.next: list[Order] = []

    def __iter__(self) -> Iterator[Order]:
        return iter(self.next)

    def __len__(self) -> int:
        return len(self.next)


class Reader:
    """The worker processes, the same for training and evaluation; answers one `read` at a time."""

    def __init__(self, files: Files, workers: int, device: str | torch.device) -> None:
        self.device, self.orders = torch.device(device), Orders()
        self._loader: DataLoader[Any] = DataLoader(
            files,
            batch_size=None,
            sampler=self.orders,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=begin_worker(),
            multiprocessing_context=multiprocessing_context() if workers else None,
            generator=torch.Generator(),  # or it would draw from the process's own
        )

    def read(self, orders: list[Order]) -> Iterator[Tensor]:
        """The answers as uint8 on the device. Raises DataError, RuntimeError if a worker dies."""
        self.orders.next = orders
        with signals_held():
            answers = iter(self._loader)
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                # It died with a batch in its hands, which torch fetches from it by a socket.
                raise RuntimeError(f"a worker process was killed while it handed over images ({error})") from error
            if isinstance(answer, str):
                raise DataError(answer)
            yield answer.to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the workers."""
        # There is no public way; else they would live until the last traceback that knows the iterator is gone.
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None and self._loader.num_workers:
            # A worker that was killed may be noticed only here, by torch's handler of SIGCHLD, which raises wherever
            # the process then is: the reader has told of it or no longer needs it.
            with suppress(RuntimeError):
                iterator._shutdown_workers()  # type: ignore[attr-defined]
            for worker in iterator._workers:  # type: ignore[attr-defined]
                worker.kill()
                worker.join()


class FolderBatches:
    """Training images, shuffled and augmented anew each epoch; the last batch may be smaller."""

    share = WHOLE

    def __init__(
        self, reader: Reader, images: Tensor, labels: Tensor, info: Info, batch_size: int, augmented: bool
    ) -> None:
        """`images`: numbers of the reader's files, int64 (n,); `labels`: theirs."""
        self.reader, self.images, self.batch_size, self.augmented = reader, images, batch_size, augmented
        self.labels = labels
        self._scale, self._shift = scale_and_shift(info, reader.device)

    @property
    def images_in_epoch(self) -> int:
        return len(self.images)

    def __len__(self) -> int:
        return -(-self.images_in_epoch // self.batch_size)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 (B, 3, size, size) and labels int64 (B,), from batch `start` of the epoch on."""
        order = torch.randperm(self.images_in_epoch, generator=generator(seed, "order", epoch))
        n, size = self.images_in_epoch, self.batch_size
        places = [order[rows(first, min(first + size, n), self.share)] for first in range(start * size, n, size)]
        stream = (seed, epoch) if self.augmented else None
        orders = [Order(self.images[each].numpy(), stream) for each in places]
        for pixels, each in zip(self.reader.read(orders), places, strict=True):
            yield normalised(pixels, self._scale, self._shift), self.labels[each].to(self.reader.device)


class FolderEvaluation:
    """Images in their own order, their middles cut out; can be gone through again and again."""

    share = WHOLE

    def __init__(self, reader: Reader, images: Tensor, labels: Tensor, info: Info) -> None:
        self.reader, self.images, self.info = reader, images, info
        self.labels = labels.to(reader.device)
        self._scale, self._shift = scale_and_shift(info, reader.device)

    def __len__(self) -> int:
        return -(-len(self.images) // EVALUATION_BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n, size = len(self.images), EVALUATION_BATCH
        places = [rows(first, min(first + size, n), self.share) for first in range(0, n, size)]
        orders = [Order(self.images[each].numpy(), None) for each in places]
        for pixels, each in zip(self.reader.read(orders), places, strict=True):
            yield normalised(pixels, self._scale, self._shift), self.labels[each]


def _as_it_is(answer: Any) -> Any:
    return answer
