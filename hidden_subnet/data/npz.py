"""data=npz: images and labels in a file of numpy's, as MedMNIST, Keras and `np.savez` have them."""

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hidden_subnet.config.registries import DATA, register
from hidden_subnet.config.settings import Data, setting
from hidden_subnet.data.downloads import reason
from hidden_subnet.data.own_data import ImageData, made_by
from hidden_subnet.errors import DataError, problem
from hidden_subnet.store.content import open_regular

PARTS = {
    "train": ("train_images", "x_train", "train"),
    "train_labels": ("train_labels", "y_train"),
    "test": ("test_images", "x_test", "test"),
    "test_labels": ("test_labels", "y_test"),
}
"""The names under which a file may hold each array; the first that is there is taken."""

SMALL, MOST = 64 << 20, 100
"""Bytes that any file may unpack to; how often its own size a larger one may."""


@dataclass(kw_only=True, slots=True)
class NpzData(Data):
    """The settings of `npz`."""

    name: str = setting("npz", id="always")
    file: str = setting("", id="never", is_path=True)
    """The file. Its path is not part of a run's id, which holds a digest of the images and labels."""


def npz(root: Path, *, file: str) -> ImageData:
    """Return what a file holds: images (N, H, W), (N, H, W, C) or (N, C, H, W), labels (N,) or (N, 1).

    Arrays `mean` and `std`, a number for each channel, and `classes`, a number, may be among them. Raises DataError.
    """
    if not file:
        raise DataError(problem("data=npz", "needs a file", "data.file=images.npz"))
    path = Path(file).expanduser()
    try:
        found = read_arrays(path)
    except (OSError, ValueError) as error:
        why = str(error.strerror or error) if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: cannot be read ({why}); write it with numpy.savez, {_names()}") from error
    arrays = {part: _first(path, found, names) for part, names in PARTS.items()}
    more: dict[str, Any] = {name: tuple(found[name].ravel().tolist()) for name in ("mean", "std") if name in found}
    if "classes" in found:
        more["classes"] = int(found["classes"])
    for part in ("train", "test"):
        arrays[part] = _channels_first(arrays[part])
    for part in ("train_labels", "test_labels"):
        arrays[part] = arrays[part].ravel()
    return ImageData(**arrays, **more)


def read_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a file of numpy.savez by name; {} of one of numpy.save.

    Raises OSError, and ValueError for a damaged file, one that unpacks to far more than its size, or one that holds
    more than arrays, of which no code is run.
    """
    with open_regular(path) as opened:
        try:
            _refuse_bomb(opened)
            loaded = np.load(opened, allow_pickle=False)
            return {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {}
        except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(reason(error)) from error


def _refuse_bomb(file: BinaryIO) -> None:
    """Raise ValueError for an archive of a few MB that holds gigabytes; leave the file at its beginning."""
    if zipfile.is_zipfile(file):
        packed, unpacked = file.seek(0, os.SEEK_END), sum(each.file_size for each in zipfile.ZipFile(file).infolist())
        if unpacked > max(SMALL, MOST * packed):
            raise ValueError(f"it unpacks to {unpacked >> 20} MB, more than {MOST} times its size")
    file.seek(0)


def _first(path: Path, found: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if name in found:
            return found[name]
    holds = ", ".join(found) or "no arrays by name"
    raise DataError(f"{path}: holds {holds} and no {names[0]}; write it with numpy.savez, {_names()}")


def _names() -> str:
    return f"as in: np.savez('images.npz', {', '.join(f'{names[0]}=...' for names in PARTS.values())})"


def _channels_first(images: Any) -> Any:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] > 4:
        return np.moveaxis(images, 3, 1)
    return images


register(DATA, "npz")(made_by("npz", npz, NpzData))
