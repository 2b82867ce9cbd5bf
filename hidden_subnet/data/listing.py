"""The image files of a set that lies in folders, and their classes, without opening any (and without torch).

Two layouts are read, in any mixture of training and test: <split>/<class>/.../<image>, which torchvision calls
ImageFolder, and Tiny ImageNet's own val/images/ with val/val_annotations.txt.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hidden_subnet.data.info import DataError

BELOW = {
    "imagenet": ("imagenet", "ILSVRC2012"),
    "tiny_imagenet": ("tiny_imagenet", "tiny-imagenet-200", "tinyimagenet"),
}
"""Where below the root a set is looked for, before the root itself."""

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Those that torchvision reads."""

ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True)
class Listing:
    """Images are in the order of their classes, then of their names: the same in both layouts."""

    folder: Path
    classes: list[str]
    train: list[str]
    """Paths below `folder`."""
    train_labels: list[int]
    test: list[str]
    test_labels: list[int]
    digest: str
    """Of the class, the split and the name of every image (16 hex digits); not of its pixels."""


def list_images(name: str, root: Path) -> Listing:
    """Raises DataError, in one line, for a folder that is not there or holds no data set."""
    folder = _locate(name, root.expanduser().absolute())
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
        said = [f"only in train: {_first(missing)}"] * bool(missing) + [f"only in val: {_first(added)}"] * bool(added)
        raise DataError(f"{folder}: train and val must have the same classes; {'; '.join(said)}")
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


_WANTED = "expected <folder>/<class>/<images> with two classes or more"


def _locate(name: str, root: Path) -> Path:
    candidates = [*(root / below for below in BELOW[name]), root]
    for folder in candidates:
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise DataError(
        f"data={name}: neither {root} nor {BELOW[name][0]}/ in it has the folders train/ and val/, with a folder of "
        "images for each class in both; unpack the images there, or name their folder with data.root=..."
    )


def _by_class(folder: Path, split: str) -> dict[str, list[str]]:
    """The images of each folder that lies in `split`, as paths below `folder`."""
    with os.scandir(folder / split) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if split == "val" and (folder / split / ANNOTATIONS).is_file() and "images" in names:
        names.remove("images")  # left empty by whoever moved Tiny ImageNet's images into folders
    if not names:
        raise DataError(f"{folder / split}: holds no folders of classes; {_WANTED}")
    return {name: sorted(_below(folder, f"{split}/{name}", ()), key=_name_first) for name in names}


def _below(folder: Path, inner: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """`above`: device and number of the folders on the way; links are followed, as torchvision does."""
    status = os.stat(folder / inner)
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError(f"{folder / inner}: is a link to a folder that it lies in; remove it")
    yield from (f"{inner}/{name}" for name in _image_names(folder / inner))
    with os.scandir(folder / inner) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    for name in folders:
        yield from _below(folder, f"{inner}/{name}", (*above, here))


def _image_names(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]


def _annotated(folder: Path) -> dict[str, list[str]]:
    """Lines of "val_0.JPEG<tab>n03444034<tab>...", one for each file in val/images."""
    path = folder / "val" / ANNOTATIONS
    found: dict[str, list[str]] = {}
    said = set()
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        words = line.split("\t")
        if len(words) < 2 or words[0] in said:
            raise DataError(f"{path}: line {number} must be an image, a tab and its class, each image once")
        said.add(words[0])
        found.setdefault(words[1], []).append(f"val/images/{words[0]}")
    there = set(_image_names(folder / "val" / "images"))
    if there != said:
        raise DataError(f"{path}: {_first(sorted(there ^ said))} not both in it and in val/images")
    return {each: sorted(images, key=_name_first) for each, images in found.items()}


def _name_first(path: str) -> tuple[str, str]:
    return path.rpartition("/")[2], path


def _first(names: list[str]) -> str:
    """The first three, so that one line holds them."""
    shown = ", ".join(name[:40] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
