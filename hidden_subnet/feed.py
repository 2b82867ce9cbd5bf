"""The images of a run, by its config: in memory or from files, split, and as the trainer takes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from hidden_subnet.data.batches import Batches, EvaluationBatches
from hidden_subnet.data.info import FOLDERS, trained_on
from hidden_subnet.data.interfaces import WHOLE, EvaluationImages, Share, TrainingImages, shared
from hidden_subnet.data.load import Images, load
from hidden_subnet.data.split import balanced_order, split
from hidden_subnet.dataset import info_of
from hidden_subnet.identity import seed_of
from hidden_subnet.settings import Config, Data


@dataclass(frozen=True)
class Feed:
    train: TrainingImages
    validation: EvaluationImages | None
    test: EvaluationImages


@contextmanager
def open_feed(config: Config, device: str, share: Share = WHOLE) -> Iterator[Feed]:
    """Worker processes, where there are any, end with it. Raises DataError."""
    with _open_feed(config, device) as feed:
        validation = None if feed.validation is None else shared(feed.validation, share)
        yield Feed(shared(feed.train, share), validation, shared(feed.test, share))


@contextmanager
def _open_feed(config: Config, device: str) -> Iterator[Feed]:
    if config.data.name.name in FOLDERS:
        from hidden_subnet.feed_files import open_files  # torchvision's transforms take as long to import as torch

        with open_files(config, device) as parts:
            yield Feed(*parts)
        return
    images = _padded(config.data)
    kept, held = chosen(images.train_labels, config)
    validation = None
    if len(held):
        validation = _evaluation(config.data, images, images.train[held], images.train_labels[held], device)
    yield Feed(_training(config, images, kept, device), validation, _test(config.data, images, device))


@contextmanager
def open_test(config: Config, device: str) -> Iterator[EvaluationImages]:
    """The test images alone. Raises DataError."""
    if config.data.name.name in FOLDERS:
        with open_feed(config, device) as feed:
            yield feed.test
        return
    yield _test(config.data, _padded(config.data), device)


def chosen(labels: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Which of the training images are trained on and which are held out (int64, ascending), by their labels.

    The same are held out whatever data.fraction is, and those of a smaller fraction lie in those of a larger.
    """
    data, seed = config.data, seed_of(config, "split")
    kept, held = split(len(labels), data.validation, seed)
    if data.one_batch or data.fraction < 1:
        count = config.train.batch_size if data.one_batch else trained_on(len(kept), data.fraction)
        kept = kept[balanced_order(labels[kept], seed)[:count].sort().values]
    return kept, held


def _training(config: Config, images: Images, kept: Tensor, device: str) -> Batches:
    data, augmented = config.data, not config.data.one_batch
    return Batches(
        images.train[kept],
        images.train_labels[kept],
        images.info,
        batch_size=config.train.batch_size,
        crop=data.crop if augmented else 0,
        flip=data.flip and augmented,
        device=device,
        size=data.size,
        resized_crop=data.resized_crop and augmented,
    )


def _test(data: Data, images: Images, device: str) -> EvaluationBatches:
    return _evaluation(data, images, images.test, images.test_labels, device)


def _evaluation(data: Data, images: Images, pixels: Tensor, labels: Tensor, device: str) -> EvaluationBatches:
    # Of larger images fewer at a time: conv2's first layer alone makes 4 MB of one of 128x128.
    batch = 512 if info_of(data).shape[1] <= 64 else 128
    return EvaluationBatches(pixels, labels, images.info, device, batch, side=data.size)


def _padded(data: Data) -> Images:
    images = load(data.name.name, Path(data.root))
    if data.pad == 0:
        return images
    train, test = (F.pad(pixels, (data.pad,) * 4) for pixels in (images.train, images.test))
    return Images(train, images.train_labels, test, images.test_labels, images.info)
