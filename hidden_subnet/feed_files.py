"""The part of feed.py for sets of image files, apart for what it imports."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from hidden_subnet.data.folders import Augmentation, Files, FolderBatches, FolderEvaluation, Reader
from hidden_subnet.data.info import DataError
from hidden_subnet.data.listing import Listing, list_images
from hidden_subnet.dataset import found_in, info_of
from hidden_subnet.feed import chosen
from hidden_subnet.settings import Config, Data

MOST_WORKERS = 8

Parts = tuple[FolderBatches, FolderEvaluation | None, FolderEvaluation]


@contextmanager
def open_files(
    config: Config, device: str
) -> Iterator[tuple[FolderBatches, FolderEvaluation | None, FolderEvaluation]]:
    """Training, validation and test images, read by the same workers, which end with it. Raises DataError."""
    data, info = config.data, info_of(config.data)
    listing = _listing(data)
    labels, test_labels = torch.tensor(listing.train_labels), torch.tensor(listing.test_labels)
    kept, held = chosen(labels, config)
    with closing(_reader(data, listing, device)) as reader:
        yield (
            FolderBatches(reader, kept, labels[kept], info, config.train.batch_size, augmented=not data.one_batch),
            FolderEvaluation(reader, held, labels[held], info) if len(held) else None,
            # The reader's files are first those to train on.
            FolderEvaluation(reader, torch.arange(len(test_labels)) + len(labels), test_labels, info),
        )


def _listing(data: Data) -> Listing:
    listing = list_images(data.name.name, Path(data.root))
    now, then = found_in(listing), data.found
    if now != then:
        raise DataError(
            f"{listing.folder}: is not what it was when the run was composed: {now.classes} classes, "
            f"{now.train} + {now.test} images ({now.digest}), then {then.classes}, {then.train} + {then.test} "
            f"({then.digest}); give the command again, or the folder with data.root"
        )
    return listing


def _reader(data: Data, listing: Listing, device: str) -> Reader:
    augmentation = Augmentation(
        size=data.size,
        resize=data.resize or data.size,
        crop=data.crop,
        flip=data.flip,
        resized_crop=data.resized_crop,
    )
    workers = min(torch.get_num_threads(), MOST_WORKERS) if data.workers is None else data.workers
    return Reader(Files(listing.folder, [*listing.train, *listing.test], augmentation), workers, device)
