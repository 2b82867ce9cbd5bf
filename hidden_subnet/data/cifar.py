"""CIFAR-10 and CIFAR-100 from the Python pickles of their authors, as torchvision downloads them."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hidden_subnet.data.download import ensure
from hidden_subnet.data.info import Info


def prepare(name: str, root: Path) -> None:
    """Raises DataError when the files are neither there, whole, nor to be had."""
    source = _source(name)
    by_hand = f"put {source.filename} into {root}"
    ensure(name, root, partial(_wanting, source, root), partial(_download, source, root), by_hand)


def read(name: str, root: Path, info: Info) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 3, 32, 32) uint8 and labels int64, then the same of the test set.

    Only after `prepare`, which compares digests: a pickle can run code, and none but the authors' are opened.
    """
    source = _source(name)
    return (*_read(source, root, source.train_list, info), *_read(source, root, source.test_list, info))


def _read(source: Any, root: Path, files: list[tuple[str, str]], info: Info) -> tuple[Tensor, Tensor]:
    pixels, labels = [], []
    for file, _ in files:
        with (root / source.base_folder / file).open("rb") as stream:
            batch = pickle.load(stream, encoding="latin1")
        pixels.append(batch["data"])
        labels += batch["labels"] if "labels" in batch else batch["fine_labels"]
    return torch.from_numpy(np.concatenate(pixels).reshape(-1, *info.shape)), torch.tensor(labels)


def _source(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _wanting(source: Any, root: Path) -> str:
    """The names of the files that are missing or damaged (by their md5, which takes 0.3 s)."""
    from torchvision.datasets.utils import check_integrity

    folder = root / source.base_folder
    files = source.train_list + source.test_list
    wanted = [file for file, md5 in files if not check_integrity(folder / file, md5)]
    return f"{', '.join(wanted)} (whole and unchanged) in {source.base_folder}" if wanted else ""


def _download(source: Any, root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5)
