"""Lists the image files of a data set in folders, and their classes, without opening them.

Two layouts are supported: <split>/<class>/.../<image> for both splits, which torchvision calls ImageFolder, and for val
also that of Tiny ImageNet, val/images/ with val/val_annotations.txt.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet.errors import AGAIN, DataError
from hidden_subnet.store.content import open_regular

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""The file names that torchvision's ImageFolder reads."""

ANNOTATIONS = "val_annotations.txt"
ANNOTATIONS_BYTES = 64 << 20
"""Most bytes of that file that are read: those of a million images."""


@dataclass(frozen=True)
class Listing:
    """The images of a data set, sorted by class and then by name, in both layouts."""

    folder: Path
    classes: list[str]
    train: list[str]
    """Paths relative to `folder`."""
    train_labels: list[int]
    test: list[str]
    test_labels: list[int]
    digest: str
    """Digest of split, class and name of every image, 16 hex digits; pixels are not read."""


def list_images(folders: Sequence[str], name: str, root: Path) -> Listing:
    """List the data set `name`, in the first of `folders` in `root`, or `root` itself, that has train/ and val/.

    Raises DataError, in one line, where none has, or where classes or images are missing.
    """
    folder = _locate(folders, name, root.expanduser().absolute())
    train = _by_class(folder, "train")
    if (folder / "val" / ANNOTATIONS).is_file() and _image_names(folder / "val" / "images"):
        test = _annotated(folder)
    else:
        test = _by_class(folder, "val")
    for split, found in (("train", train), ("val", test)):
        if empty := [each for each, images in found.items() if not images]:
            raise DataError(f"{folder / split}: {_first(empty)} of {len(found)} classes without images; {_WANTED}")
    if train.keys() != test.keys():
        missing, added = sorted(train.keys() - test.keys()), sorted(test.keys() - train.keys())
        only = [f"only in train: {_first(missing)}"] * bool(missing) + [f"only in val: {_first(added)}"] * bool(added)
        raise DataError(
            f"{folder}: train and val must have the same classes; {'; '.join(only)}; mend the folders, or name others, "
            f"{ELSEWHERE}"
        )
    if len(train) < 2:
        raise DataError(f"{folder / 'train'}: has one class only, {_first(list(train))}; {_WANTED}")
    classes = sorted(train)
    digest = hashlib.sha256()
    for split, found in (("train", train), ("val", test)):
        for each in classes:
            lines = [f"{split}/{each}/{image.rpartition('/')[2]}\n" for image in found[each]]
            digest.update("".join(lines).encode(errors="surrogateescape"))
    return Listing(
        folder,
        classes,
        [image for each in classes for image in train[each]],
        [label for label, each in enumerate(classes) for _ in train[each]],
        [image for each in classes for image in test[each]],
        [label for label, each in enumerate(classes) for _ in test[each]],
        digest.hexdigest()[:16],
    )


ELSEWHERE = "as in: data.root=data"
_WANTED = f"expected <folder>/<class>/<images> with two classes or more; name the folder that holds them, {ELSEWHERE}"
_UNPACK = f"unpack the archive once more, and {AGAIN}"


def _locate(folders: Sequence[str], name: str, root: Path) -> Path:
    candidates = [*(root / below for below in folders), root]
    for folder in candidates:
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise DataError(
        f"data={name}: neither {root} nor {folders[0]}/ in it has the folders train/ and val/, with a folder of "
        "images for each class in both; unpack the images there, or name their folder, as in: data.root=data"
    )


def _by_class(folder: Path, split: str) -> dict[str, list[str]]:
    """Return the images of each class folder in `split`, as paths relative to `folder`."""
    with os.scandir(folder / split) as entries:
        names = sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))
    if split == "val" and (folder / split / ANNOTATIONS).is_file() and "images" in names:
        names.remove("images")  # a remnant, where Tiny ImageNet's images were moved into class folders
    if not names:
        raise DataError(f"{folder / split}: holds no folders of classes; {_WANTED}")
    return {name: sorted(_below(folder, f"{split}/{name}", ()), key=_name_first) for name in names}


def _below(folder: Path, inner: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the images in the folder `inner` and below; links are followed, as torchvision does.

    `above`: device and inode of the folders that contain it, to detect circular links.
    """
    status = os.stat(folder / inner)
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError(f"{folder / inner}: is a link to a folder that contains it; remove it, and {AGAIN}")
    yield from (f"{inner}/{name}" for name in _image_names(folder / inner))
    with os.scandir(folder / inner) as entries:
        folders = sorted(entry.name for entry in entries if _is_folder(entry))
    for name in folders:
        yield from _below(folder, f"{inner}/{name}", (*above, here))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _image_names(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]


def _annotated(folder: Path) -> dict[str, list[str]]:
    """Return the images of each class in val/images, from lines of "val_0.JPEG<tab>n03444034<tab>..."."""
    path = folder / "val" / ANNOTATIONS
    found: dict[str, list[str]] = {}
    annotated = set()
    try:
        with open_regular(path) as file:
            text = file.read(ANNOTATIONS_BYTES).decode(errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); replace it, or remove it, and {AGAIN}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("\t")
        if len(words) < 2 or words[0] in annotated:
            raise DataError(f"{path}: line {number} must be an image, a tab and its class, each image once; {_UNPACK}")
        annotated.add(words[0])
        found.setdefault(words[1], []).append(f"val/images/{words[0]}")
    present = set(_image_names(folder / "val" / "images"))
    if present != annotated:
        raise DataError(f"{path}: {_first(sorted(present ^ annotated))} not both in it and in val/images; {_UNPACK}")
    return {each: sorted(images, key=_name_first) for each, images in found.items()}


def _name_first(path: str) -> tuple[str, str]:
    return path.rpartition("/")[2], path


def _first(names: list[str]) -> str:
    """Return the first three names and the number of the others, as one line."""
    shown = ", ".join(name[:40] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
