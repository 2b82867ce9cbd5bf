"""Opens the images of a run for the trainer: split, from memory or from files, and for each rank its shard."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo, trained_on
from hidden_subnet.config.registries import DATA
from hidden_subnet.config.settings import Data
from hidden_subnet.data.augment import Augment
from hidden_subnet.data.catalog import Images, load
from hidden_subnet.data.folder_listing import Listing
from hidden_subnet.data.found_images import listing_of, require_content
from hidden_subnet.data.image_folders import (
    Augmentation,
    FolderBatches,
    FolderEvaluation,
    ImageFileDataset,
    ImageReader,
)
from hidden_subnet.data.in_memory import Batches, EvaluationBatches
from hidden_subnet.data.interfaces import WHOLE, EvaluationImages, Shard, TrainingImages, shared
from hidden_subnet.data.split import balanced_order, split

MOST_WORKERS = 8
"""Maximum number of reader processes where data.workers is not set."""


@dataclass(frozen=True)
class Loaders:
    """The images of a run."""

    train: TrainingImages
    validation: EvaluationImages | None
    """None where data.validation=0 holds out no images."""
    test: EvaluationImages


@contextmanager
def open_loaders(
    data: Data, info: DataInfo, *, seed: int, batch_size: int, device: str, shard: Shard = WHOLE
) -> Iterator[Loaders]:
    """Open the images of a run; reader processes, if there are any, end with the context.

    `info`: of the images as the network gets them (registries.info_of). `seed`: of the split. Raises DataError.
    """
    if DATA[data.name].in_folders:
        opened = _image_folders(data, info, seed, batch_size, device)
    else:
        opened = _in_memory(data, info, seed, batch_size, device)
    with opened as whole:
        validation = None if whole.validation is None else shared(whole.validation, shard)
        yield Loaders(shared(whole.train, shard), validation, shared(whole.test, shard))


def train_val_indices(labels: Tensor, data: Data, *, seed: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the training images that are used, and of those held out, int64 and ascending.

    labels: int64 (N,). The images held out do not depend on data.fraction, and a larger fraction includes the images
    of a smaller one.
    """
    kept, held = split(len(labels), data.validation, seed)
    if data.one_batch or data.fraction < 1:
        count = batch_size if data.one_batch else trained_on(len(kept), data.fraction)
        kept = kept[balanced_order(labels[kept], seed)[:count].sort().values]
    return kept, held


@contextmanager
def _in_memory(data: Data, info: DataInfo, seed: int, batch_size: int, device: str) -> Iterator[Loaders]:
    images = _padded(data)
    kept, held = train_val_indices(images.train_labels, data, seed=seed, batch_size=batch_size)
    augmented = not data.one_batch
    train = Batches(
        images.train[kept],
        images.train_labels[kept],
        images.info,
        batch_size=batch_size,
        crop=data.crop if augmented else 0,
        flip=data.flip and augmented,
        device=device,
        size=data.size,
        resized_crop=data.resized_crop and augmented,
        augment=Augment(data.augment, images.info.max_value) if data.augment and augmented else None,
        numbers=kept,
    )
    # Fewer images where they are large: the output of the first layer of conv2 is 4 MB for one image of 128x128.
    batch = 512 if info.shape[1] <= 64 else 128

    def evaluation(pixels: Tensor, labels: Tensor) -> EvaluationBatches:
        return EvaluationBatches(pixels, labels, images.info, device, batch, side=data.size)

    validation = evaluation(images.train[held], images.train_labels[held]) if len(held) else None
    yield Loaders(train, validation, evaluation(images.test, images.test_labels))


def _padded(data: Data) -> Images:
    own = DATA[data.name].own
    images: Images = load(data.name, Path(data.root)) if own is None else own(data)
    require_content(data)  # after a download
    if data.pad == 0:
        return images
    train, test = (F.pad(pixels, (data.pad,) * 4) for pixels in (images.train, images.test))
    return Images(train, images.train_labels, test, images.test_labels, images.info)


@contextmanager
def _image_folders(data: Data, info: DataInfo, seed: int, batch_size: int, device: str) -> Iterator[Loaders]:
    """Give training, validation and test images that are read by the same processes."""
    listing = listing_of(data)
    labels, test_labels = torch.tensor(listing.train_labels), torch.tensor(listing.test_labels)
    kept, held = train_val_indices(labels, data, seed=seed, batch_size=batch_size)
    with closing(_reader(data, listing, device)) as reader:
        yield Loaders(
            FolderBatches(reader, kept, labels[kept], info, batch_size, augmented=not data.one_batch),
            FolderEvaluation(reader, held, labels[held], info) if len(held) else None,
            # Among the reader's files, the test images follow the training images.
            FolderEvaluation(reader, torch.arange(len(test_labels)) + len(labels), test_labels, info),
        )


def _reader(data: Data, listing: Listing, device: str) -> ImageReader:
    augmentation = Augmentation(
        size=data.size,
        resize=data.resize or data.size,
        crop=data.crop,
        flip=data.flip,
        resized_crop=data.resized_crop,
        more=data.augment,
    )
    workers = min(torch.get_num_threads(), MOST_WORKERS) if data.workers is None else data.workers
    return ImageReader(ImageFileDataset(listing.folder, [*listing.train, *listing.test], augmentation), workers, device)
