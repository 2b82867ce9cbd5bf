"""MNIST and Fashion-MNIST from idx files, plain or gzipped, wherever they come from."""

import gzip
import http.client
import os
import shutil
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hidden_subnet.data.download import ensure, reason
from hidden_subnet.data.info import DataError, Info

IMAGES, LABELS = 0x0803, 0x0801
FILES = {
    "train-images-idx3-ubyte": IMAGES,
    "train-labels-idx1-ubyte": LABELS,
    "t10k-images-idx3-ubyte": IMAGES,
    "t10k-labels-idx1-ubyte": LABELS,
}
"""File name (.gz may follow) and the magic number that it begins with."""

DOWNLOADED = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
"""Where torchvision keeps its copy, below the root."""

PACKAGED = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
"""Where Debian's package dataset-fashion-mnist puts its files."""

FIRST_TEST_LABELS = {"mnist": b"\7\2\1\0\4\1\4\x09\5\x09", "fashion_mnist": b"\x09\2\1\1\6\1\4\6\5\7"}
"""The two sets differ in nothing else that could be seen: names, shapes and counts are the same."""


def prepare(name: str, root: Path) -> None:
    """Raises DataError when the files are neither there nor to be had."""
    by_hand = f"put {', '.join(f'{file}.gz' for file in FILES)} into {root}"
    if name in PACKAGED:
        by_hand += ", or install Debian's package dataset-fashion-mnist"
    ensure(
        name,
        root,
        lambda: "" if find(name, root) else "its four files",
        partial(_download, name, root),
        by_hand,
    )


def find(name: str, root: Path) -> list[Path] | None:
    """The four files, in the order of FILES: the root's, torchvision's below it, or Debian's."""
    folders = [root, root / DOWNLOADED[name]]
    if name in PACKAGED:
        folders.append(PACKAGED[name])
    for folder in folders:
        paths = [_plain_or_gzipped(folder / file) for file in FILES]
        if all(os.path.isfile(path) for path in paths):
            return paths
    return None


def _plain_or_gzipped(path: Path) -> Path:
    return path if os.path.isfile(path) else path.with_name(f"{path.name}.gz")


def read(name: str, root: Path, info: Info) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 1, H, W) uint8 and labels int64, then the same of the test set.

    Raises DataError naming the file that is damaged, not of the size in `info`, or of another data set.
    """
    paths = find(name, root)
    if paths is None:
        raise DataError(f"data={name}: the files are not in {root}")
    parts = []
    for path, magic, count in zip(paths, FILES.values(), (info.train, info.train, info.test, info.test), strict=True):
        shape = (count, *info.shape[1:]) if magic == IMAGES else (count,)
        parts.append(_parse(path, magic, shape))
    train, train_labels, test, test_labels = parts
    if test_labels[:10].tobytes() != FIRST_TEST_LABELS[name]:
        raise DataError(f"{paths[3]}: these are not the labels of {name}; give the folder of its files as data.root")
    for path, labels in ((paths[1], train_labels), (paths[3], test_labels)):
        if labels.max() >= info.classes:
            raise _damaged(path, f"label {labels.max()} of {info.classes} classes")
    return (
        torch.from_numpy(train).unsqueeze(1),
        torch.from_numpy(train_labels.astype(np.int64)),
        torch.from_numpy(test).unsqueeze(1),
        torch.from_numpy(test_labels.astype(np.int64)),
    )


def _parse(path: Path, magic: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """idx: the magic number, a 32-bit big-endian size a dimension, then the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, reason(error)) from error
    header = np.array([magic, *shape], dtype=">u4").tobytes()
    if content[: len(header)] != header:
        raise _damaged(path, f"its header is not that of {' x '.join(map(str, shape))} bytes")
    if len(content) != len(header) + np.prod(shape):
        raise _damaged(path, f"{len(content) - len(header)} bytes of {np.prod(shape)}")
    # A copy, since torch warns of memory that it may not write.
    array = np.frombuffer(content, dtype=np.uint8, offset=len(header)).copy()
    shaped: NDArray[np.uint8] = array.reshape(shape)
    return shaped


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: cannot be read ({why}); replace it, or delete it to have it downloaded again")


def _source(name: str) -> Any:
    from torchvision import datasets

    return {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]


def _download(name: str, root: Path) -> None:
    """Only whole files come under their names: torchvision's own unpacking leaves half a file when killed."""
    from torchvision.datasets.utils import check_integrity, download_url

    folder, source = root / DOWNLOADED[name], _source(name)
    unfinished = folder / "unfinished"
    try:
        for file, md5 in source.resources:
            if check_integrity(folder / file, md5):
                continue
            for mirror in source.mirrors:
                try:
                    download_url(f"{mirror}{file}", unfinished, file, md5)
                    break
                except (OSError, RuntimeError, http.client.HTTPException) as error:
                    failure = error
            else:
                raise failure
            os.replace(unfinished / file, folder / file)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
