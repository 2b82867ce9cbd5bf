"""CIFAR-10 and CIFAR-100, from the Python pickles that their authors publish and torchvision downloads."""

import hashlib
import os
import pickle
import tarfile
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.data.downloads import ensure
from hidden_subnet.errors import AGAIN, DataError
from hidden_subnet.store.content import open_regular

LARGEST = 256 << 20
"""Most bytes of a file that are read: the largest has 155 MB."""


def prepare(name: str, root: Path) -> None:
    """Download the files that are missing or damaged in `root`. Raises DataError where that fails."""
    source = _source(name)
    by_hand = f"put {source.filename} into {root}"
    ensure(name, root, partial(_wanting, source, root), partial(_download, source, root), by_hand)


def read(name: str, root: Path, info: DataInfo) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images, uint8 (N, 3, 32, 32), and labels, int64 (N,), then the same of the test set.

    Raises DataError for a file that is not the authors', before it is unpickled: a pickle can run code.
    """
    source = _source(name)
    return (*_read(source, root, source.train_list, info), *_read(source, root, source.test_list, info))


def _read(source: Any, root: Path, files: list[tuple[str, str]], info: DataInfo) -> tuple[Tensor, Tensor]:
    pixels, labels = [], []
    for file, md5 in files:
        path = root / source.base_folder / file
        # `prepare` has compared the digests too, but since then another user may have replaced the file.
        with open_regular(path) as stream:
            content = stream.read(LARGEST)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise DataError(f"{path}: is not the authors' file; delete it, and {AGAIN}")
        batch = pickle.loads(content, encoding="latin1")
        pixels.append(batch["data"])
        labels += batch["labels"] if "labels" in batch else batch["fine_labels"]
    return torch.from_numpy(np.concatenate(pixels).reshape(-1, *info.shape)), torch.tensor(labels)


def _source(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _wanting(source: Any, root: Path) -> str:
    """Return which files are missing and which are damaged, by their md5 (which takes 0.3 s); "" if none is."""
    from torchvision.datasets.utils import check_integrity

    folder = root / source.base_folder
    files = source.train_list + source.test_list
    wanted = [file for file, md5 in files if not check_integrity(folder / file, md5)]
    damaged = [file for file in wanted if (folder / file).exists()]
    missing = [file for file in wanted if file not in damaged]
    parts = [f"lacks {', '.join(missing)} in {source.base_folder}"] * bool(missing)
    parts += [f"has damaged files in {source.base_folder} ({', '.join(damaged)})"] * bool(damaged)
    return " and ".join(parts)


def _download(source: Any, root: Path) -> None:
    """Unpack the archive, downloaded where it is not in `root`, and move only whole files to their place.

    torchvision's own functions write through links that another user has put in the place of a file, and unpack
    whatever the archive holds by then.
    """
    from torchvision.datasets.utils import check_integrity, download_url

    archive = root / source.filename
    with TemporaryDirectory(prefix=".unfinished-", dir=root) as made:
        if not check_integrity(archive, source.tgz_md5):
            download_url(source.url, made, source.filename, source.tgz_md5)
            os.replace(Path(made) / source.filename, archive)
        folder = root / source.base_folder
        folder.mkdir(exist_ok=True)
        with open_regular(archive) as file, tarfile.open(fileobj=file) as packed:
            for member in packed:
                place = PurePosixPath(member.name)
                if member.isfile() and str(place.parent) == source.base_folder:
                    content = packed.extractfile(member)
                    assert content is not None
                    (Path(made) / place.name).write_bytes(content.read(LARGEST))
                    os.replace(Path(made) / place.name, folder / place.name)
