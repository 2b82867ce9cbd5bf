"""The data sets by name, with their sizes and the functions that read them.

A new data set is a file like digits.py in this folder, with a function that reads the images, a DataEntry here or in
that file, and a yaml in conf/data/.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.registries import DATA, DataEntry, register
from hidden_subnet.data import cifar, digits, idx, synthetic

# Mean and standard deviation of ImageNet's training images, which Ramanujan et al. use for all larger images.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# CIFAR-10: the constants of Ramanujan et al. The others: measured over the training images.
INFO = {
    "digits": DataInfo((1, 8, 8), 10, 1437, 360, (0.305,), (0.376,), max_value=16.0),
    "mnist": DataInfo((1, 28, 28), 10, 60_000, 10_000, (0.1307,), (0.3081,)),
    "fashion_mnist": DataInfo((1, 28, 28), 10, 60_000, 10_000, (0.2860,), (0.3530,)),
    "cifar10": DataInfo((3, 32, 32), 10, 50_000, 10_000, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": DataInfo((3, 32, 32), 100, 50_000, 10_000, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "bigcifar10": DataInfo((3, 32, 32), 10, 50_000, 10_000, *IMAGENET),
    "imagenet": DataInfo((3, 224, 224), 1000, 1_281_167, 50_000, *IMAGENET),
    "tiny_imagenet": DataInfo((3, 64, 64), 200, 100_000, 10_000, *IMAGENET),
    "synthetic": DataInfo((1, 8, 8), 10, 512, 128, (0.5,), (0.25,)),
}

register(DATA, "digits")(DataEntry(INFO["digits"], lambda root: digits.read(), has_files=False))
register(DATA, "synthetic")(
    DataEntry(INFO["synthetic"], lambda root: synthetic.read(INFO["synthetic"]), has_files=False)
)
for _name in ("mnist", "fashion_mnist"):
    register(DATA, _name)(
        DataEntry(
            INFO[_name],
            partial(idx.read, _name, info=INFO[_name]),
            partial(idx.prepare, _name),
            partial(idx.changed_content, _name),
            partial(idx.elsewhere, _name),
        )
    )
# Their files are compared with the published ones before they are opened, so that there is no other content.
for _name, _files in {"cifar10": "cifar10", "cifar100": "cifar100", "bigcifar10": "cifar10"}.items():
    register(DATA, _name)(
        DataEntry(INFO[_name], partial(cifar.read, _files, info=INFO[_name]), partial(cifar.prepare, _files))
    )
register(DATA, "imagenet")(DataEntry(INFO["imagenet"], folders=("imagenet", "ILSVRC2012")))
register(DATA, "tiny_imagenet")(
    DataEntry(INFO["tiny_imagenet"], folders=("tiny_imagenet", "tiny-imagenet-200", "tinyimagenet"))
)


@dataclass(frozen=True)
class Images:
    """A data set in memory, before the validation split."""

    train: Tensor
    """Raw pixels, uint8 (N, C, H, W), 0 to `info.max_value`."""
    train_labels: Tensor
    """int64 (N,), 0 to `info.classes` - 1."""
    test: Tensor
    test_labels: Tensor
    info: DataInfo


def prepare(name: str, root: Path) -> None:
    """Download the files of a data set that are missing in `root`; several jobs may call this at the same time.

    Raises DataError where they cannot be downloaded. Image folders are never downloaded.
    """
    DATA[name].prepare(root.expanduser().absolute())


def taken_from(name: str, root: Path) -> str:
    """Return a line where the files are taken from another folder than `root`, which the user has named; or ""."""
    named = root.expanduser().absolute()
    place = DATA[name].elsewhere(named) if named != Path("data").absolute() else ""
    return f"data={name}: {root} does not have its files; they are read from {place}" if place else ""


def load(name: str, root: Path) -> Images:
    """Return the images of a data set that fits in memory, downloaded if necessary; not for image folders.

    Raises DataError where the files are missing and cannot be downloaded, or are damaged.
    """
    entry = DATA[name]
    assert entry.read is not None
    assert entry.info is not None
    prepare(name, root)
    return Images(*entry.read(root.expanduser().absolute()), entry.info)
