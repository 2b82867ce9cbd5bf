"""Batches from image files: read, augmented and resized in reader processes, normalised on the device.

The order of an epoch is a function of (seed, epoch), and the augmentation of an image of (seed, epoch, image), for any
number of processes. A run that resumes within an epoch does not read the images of its finished batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.data.augment import Augment
from hidden_subnet.data.in_memory import normalised, scale_and_shift
from hidden_subnet.data.interfaces import WHOLE, shard_slice
from hidden_subnet.data.pictures import NotFaithful, read_rgb
from hidden_subnet.data.reader_process import (
    begin_worker,
    cannot_read,
    require_semaphores,
)
from hidden_subnet.errors import AGAIN, DataError
from hidden_subnet.seeding import derive, generator
from hidden_subnet.signals import signals_held
from hidden_subnet.store.child_processes import place_sockets
from hidden_subnet.store.posix import reader_start_method

if TYPE_CHECKING:
    from torchvision.transforms import v2

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Augmentation:
    """The transforms of the images, from the settings of data (config/settings.py)."""

    size: int
    """Side of the resulting images, in pixels."""
    resize: int
    """Shorter side before the center crop, in pixels; for training images too, unless `resized_crop`."""
    crop: int
    flip: bool
    resized_crop: bool
    more: Sequence[Any] = ()
    """The transforms of data.augment, which come last."""

    def evaluation(self) -> "list[v2.Transform]":
        """Return the transforms of an evaluation."""
        from torchvision.transforms import v2  # here, since it takes as long to import as torch

        return [v2.Resize(self.resize), v2.CenterCrop(self.size)]

    def training(self) -> "list[v2.Transform]":
        """Return the transforms of training images, which draw from torch's global generator."""
        from torchvision.transforms import v2

        steps = [v2.RandomResizedCrop(self.size)] if self.resized_crop else self.evaluation()
        steps += [v2.RandomCrop(self.size, padding=self.crop)] if self.crop else []
        return [*steps, *([v2.RandomHorizontalFlip()] if self.flip else [])]


@dataclass(frozen=True)
class BatchRequest:
    """A batch to read: the numbers of its images, and the random stream of their augmentation."""

    images: NDArray[np.int64]
    stream: tuple[int, int] | None
    """(seed, epoch); None: not augmented, as in an evaluation."""


class ImageFileDataset(Dataset[Any]):
    """Maps a BatchRequest to a batch, uint8 (B, 3, size, size), or to the error message of a file that is damaged."""

    def __init__(self, folder: Path, paths: Sequence[str], augmentation: Augmentation) -> None:
        # An array, since the pages of a million strings would be copied into each worker when reference counts change.
        self.folder, self.paths = folder, np.array([path.encode(errors="surrogateescape") for path in paths])
        self.size = augmentation.size
        from torchvision.transforms import v2

        self.augment = Augment(augmentation.more) if augmentation.more else None
        self.training = v2.Compose([*augmentation.training(), v2.PILToTensor()])
        self.evaluation = v2.Compose([*augmentation.evaluation(), v2.PILToTensor()])

    def __getitem__(self, request: BatchRequest) -> Tensor | str:
        batch = torch.empty((len(request.images), 3, self.size, self.size), dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # transforms draw from torch's global generator
            for place, image in enumerate(request.images.tolist()):
                path = self.folder / self.paths[image].decode(errors="surrogateescape")
                try:
                    picture = read_rgb(path)
                except NotFaithful as error:
                    return f"{path}: has no faithful form in 8-bit RGB ({error}); convert it, or remove it, and {AGAIN}"
                # For damaged files PIL raises many kinds of errors, as SyntaxError and struct.error.
                except Exception as error:
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
                    return f"{path}: cannot be read as an image ({reason}); replace it, or remove it, and {AGAIN}"
                if request.stream is None:
                    batch[place] = self.evaluation(picture)
                else:
                    seed, epoch = request.stream
                    torch.default_generator.manual_seed(derive(seed, "augmentation", epoch, image))
                    pixels = self.training(picture)
                    batch[place] = pixels if self.augment is None else self.augment.of_image(pixels, seed, epoch, image)
        return batch


class RequestSampler(Sampler[BatchRequest]):
    """Gives a DataLoader the requests in `next`, each time an iteration starts."""

    def __init__(self) -> None:
        self.next: list[BatchRequest] = []

    def __iter__(self) -> Iterator[BatchRequest]:
        return iter(self.next)

    def __len__(self) -> int:
        return len(self.next)


class ImageReader:
    """The reader processes, which training and evaluation share; only one `read` can be active at a time."""

    def __init__(self, files: ImageFileDataset, workers: int, device: str | torch.device) -> None:
        if workers:
            place_sockets()
            require_semaphores(workers)
        self.device, self.requests = torch.device(device), RequestSampler()
        self._loader: DataLoader[Any] = DataLoader(
            files,
            batch_size=None,
            sampler=self.requests,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=begin_worker(),
            multiprocessing_context=reader_start_method() if workers else None,
            generator=torch.Generator(),  # otherwise it would draw from torch's global generator
        )

    def read(self, requests: list[BatchRequest]) -> Iterator[Tensor]:
        """Yield for each request its images, uint8 (B, 3, size, size), on the device.

        Raises DataError for a damaged file, and RuntimeError where a reader process dies.
        """
        self.requests.next = requests
        try:
            with signals_held():
                answers = iter(self._loader)
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            raise DataError(cannot_read(self._loader.num_workers, str(error))) from error
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                # It died while torch fetched a batch from it through a socket.
                raise RuntimeError(f"a worker process was killed while it handed over images ({error})") from error
            except RuntimeError as error:
                if "Original Traceback" not in str(error):
                    raise
                # The last line of the traceback that torch appends, of a reader process that could not begin.
                raise DataError(cannot_read(self._loader.num_workers, str(error).splitlines()[-1])) from error
            if isinstance(answer, str):
                raise DataError(answer)
            yield answer.to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the workers."""
        # By private names, since torch has no public function; otherwise the workers would live as long as a traceback
        # refers to the iterator.
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None and self._loader.num_workers:
            # torch's handler of SIGCHLD may notice a killed worker only here, and raises. `read` has raised for it
            # already, or no longer needs it.
            with suppress(RuntimeError):
                iterator._shutdown_workers()  # type: ignore[attr-defined]
            for worker in iterator._workers:  # type: ignore[attr-defined]
                worker.kill()
                worker.join()


class FolderBatches:
    """Training images, shuffled and augmented differently in each epoch; the last batch may be smaller."""

    shard = WHOLE

    def __init__(
        self, reader: ImageReader, images: Tensor, labels: Tensor, info: DataInfo, batch_size: int, augmented: bool
    ) -> None:
        """Take the images with numbers `images`, int64 (N,), among the reader's files, and their labels, int64 (N,)."""
        self.reader, self.images, self.batch_size, self.augmented = reader, images, batch_size, augmented
        self.labels = labels
        self._scale, self._shift = scale_and_shift(info, reader.device)

    @property
    def images_in_epoch(self) -> int:
        """Number of training images."""
        return len(self.images)

    def __len__(self) -> int:
        return -(-self.images_in_epoch // self.batch_size)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float32 (B, 3, size, size), and labels, int64 (B,), from batch `start` of the epoch on."""
        order = torch.randperm(self.images_in_epoch, generator=generator(seed, "order", epoch))
        n, size = self.images_in_epoch, self.batch_size
        places = [order[shard_slice(first, min(first + size, n), self.shard)] for first in range(start * size, n, size)]
        stream = (seed, epoch) if self.augmented else None
        requests = [BatchRequest(self.images[each].numpy(), stream) for each in places]
        for pixels, each in zip(self.reader.read(requests), places, strict=True):
            yield normalised(pixels, self._scale, self._shift), self.labels[each].to(self.reader.device)


class FolderEvaluation:
    """Evaluation images in a fixed order, resized and center-cropped; can be iterated any number of times."""

    shard = WHOLE

    def __init__(self, reader: ImageReader, images: Tensor, labels: Tensor, info: DataInfo) -> None:
        self.reader, self.images, self.info = reader, images, info
        self.labels = labels.to(reader.device)
        self._scale, self._shift = scale_and_shift(info, reader.device)

    def __len__(self) -> int:
        return -(-len(self.images) // EVALUATION_BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n, size = len(self.images), EVALUATION_BATCH
        places = [shard_slice(first, min(first + size, n), self.shard) for first in range(0, n, size)]
        requests = [BatchRequest(self.images[each].numpy(), None) for each in places]
        for pixels, each in zip(self.reader.read(requests), places, strict=True):
            yield normalised(pixels, self._scale, self._shift), self.labels[each]


def _as_it_is(answer: Any) -> Any:
    return answer
