"""MNIST and Fashion-MNIST, from idx files, plain or gzipped, of any origin."""

import gzip
import hashlib
import http.client
import os
import zlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.data.downloads import ensure, reason
from hidden_subnet.errors import AGAIN, DataError
from hidden_subnet.store.content import open_regular, remembered

IMAGES, LABELS = 0x0803, 0x0801
FILES = {
    "train-images-idx3-ubyte": IMAGES,
    "train-labels-idx1-ubyte": LABELS,
    "t10k-images-idx3-ubyte": IMAGES,
    "t10k-labels-idx1-ubyte": LABELS,
}
"""Name of each file, with or without .gz, and the magic number with which it starts."""

DOWNLOADED = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
"""Folder in data.root to which torchvision downloads."""

PACKAGED = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
"""Folder of Debian's package dataset-fashion-mnist."""

PUBLISHED = {
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion_mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
"""MD5 digests of the published files, unpacked, in the order of FILES."""

FIRST_TEST_LABELS = {"mnist": b"\7\2\1\0\4\1\4\x09\5\x09", "fashion_mnist": b"\x09\2\1\1\6\1\4\6\5\7"}
"""They identify the data set, since names, shapes and counts are the same in both."""


def prepare(name: str, root: Path) -> None:
    """Download the files where `find` does not find all. Raises DataError where that fails."""
    by_hand = f"put {', '.join(f'{file}.gz' for file in FILES)} into {root}"
    if name in PACKAGED:
        by_hand += ", or install Debian's package dataset-fashion-mnist"
    ensure(
        name,
        root,
        lambda: "" if find(name, root) else "lacks its four files",
        partial(_download, name, root),
        by_hand,
    )


def find(name: str, root: Path) -> list[Path] | None:
    """Return the four files in the order of FILES: in `root`, in torchvision's folder in it, or in Debian's package.

    Returns None where no folder has all of them.
    """
    folders = [root, root / DOWNLOADED[name]]
    if name in PACKAGED:
        folders.append(PACKAGED[name])
    for folder in folders:
        paths = [_plain_or_gzipped(folder / file) for file in FILES]
        if all(os.path.isfile(path) for path in paths):
            return paths
    return None


def elsewhere(name: str, root: Path) -> str:
    """Return the folder of Debian's package where the files are taken from it, since `root` has none of them; or ""."""
    found = find(name, root)
    return str(PACKAGED[name]) if found and name in PACKAGED and found[0].parent == PACKAGED[name] else ""


def changed_content(name: str, root: Path) -> str:
    """Return a digest of what the four files hold, 32 hex digits, or "" where it is what is published.

    Also "" where a file is missing, since then the published ones are downloaded. Raises DataError for a damaged file.
    """
    if (paths := find(name, root)) is None:
        return ""

    def compute(sizes: list[int]) -> str:
        return " ".join(hashlib.md5(unpacked(path), usedforsecurity=False).hexdigest() for path in paths)

    try:
        digests = remembered("idx", [os.path.realpath(path) for path in paths], compute)
    except OSError as error:
        raise _damaged(Path(error.filename), reason(error)) from error
    if digests == " ".join(PUBLISHED[name]):
        return ""
    return hashlib.sha256(digests.encode()).hexdigest()[:32]


def _plain_or_gzipped(path: Path) -> Path:
    return path if os.path.isfile(path) else path.with_name(f"{path.name}.gz")


def read(name: str, root: Path, info: DataInfo) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images, uint8 (N, 1, H, W), and labels, int64 (N,), then the same of the test set.

    Raises DataError for a file that is missing, damaged, of another size than in `info`, or of the other data set.
    """
    paths = find(name, root)
    if paths is None:
        raise DataError(
            f"data={name}: the files are not in {root}; put them there, or choose another, as in: data.root=data"
        )
    parts = []
    for path, magic, count in zip(paths, FILES.values(), (info.train, info.train, info.test, info.test), strict=True):
        shape = (count, *info.shape[1:]) if magic == IMAGES else (count,)
        parts.append(_parse(path, magic, shape))
    train, train_labels, test, test_labels = parts
    if test_labels[:10].tobytes() != FIRST_TEST_LABELS[name]:
        raise DataError(
            f"{paths[3]}: these are not the labels of {name}; give the folder of its files, as in: data.root=data"
        )
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
    """Return the array of an idx file: a magic number, a 32-bit big-endian size for each dimension, then the bytes."""
    content = unpacked(path)
    header = np.array([magic, *shape], dtype=">u4").tobytes()
    if content[: len(header)] != header:
        raise _damaged(path, f"its header is not that of {' x '.join(map(str, shape))} bytes")
    if len(content) != len(header) + np.prod(shape):
        raise _damaged(path, f"{len(content) - len(header)} bytes of {np.prod(shape)}")
    # A copy, since torch warns about memory that is not writable.
    array = np.frombuffer(content, dtype=np.uint8, offset=len(header)).copy()
    shaped: NDArray[np.uint8] = array.reshape(shape)
    return shaped


LARGEST = 64 << 20
"""Most bytes of an unpacked idx file: 60,000 images of 28 x 28 are 47 MB. A small .gz can hold terabytes."""


def unpacked(path: Path, largest: int = LARGEST) -> bytes:
    """Return the content of an idx file, unpacked. Raises DataError for one of more than `largest` bytes."""
    try:
        with open_regular(path) as file, gzip.open(file) if path.suffix == ".gz" else file as plain:
            content = plain.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, reason(error)) from error
    if len(content) > largest:
        raise _damaged(path, f"it holds more than {largest >> 20} MB, and no file of these data does")
    return content


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: cannot be read ({why}); replace it, or delete it to have it downloaded again, and {AGAIN}"
    )


def _source(name: str) -> Any:
    from torchvision import datasets

    return {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]


def _download(name: str, root: Path) -> None:
    """Download the files into another folder, and move only whole ones to their place.

    torchvision's own download leaves half a file behind where it is killed, and writes through a link that another user
    has put in its place.
    """
    from torchvision.datasets.utils import check_integrity, download_url

    folder, source = root / DOWNLOADED[name], _source(name)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
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
            os.replace(Path(unfinished) / file, folder / file)
