"""A data set by its name, as raw pixels."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hidden_subnet.data import cifar, digits, idx, synthetic
from hidden_subnet.data.info import INFO, Info

CIFAR = {"cifar10": "cifar10", "cifar100": "cifar100", "bigcifar10": "cifar10"}
"""Whose files each set reads."""


@dataclass(frozen=True)
class Images:
    train: Tensor
    """Raw pixels, uint8 (N, C, H, W), 0 to `info.white`."""
    train_labels: Tensor
    """int64 (N,), 0 to `info.classes` - 1."""
    test: Tensor
    test_labels: Tensor
    info: Info


def prepare(name: str, root: Path) -> None:
    """See to it that the files are there, by a download where they are not; several jobs may call it at once.

    Raises DataError, in one line, when they cannot be had. digits and synthetic have no files,
    and the sets that are read from folders (info.FOLDERS) are looked at when the config is composed.
    """
    root = root.expanduser().absolute()
    if name in ("mnist", "fashion_mnist"):
        idx.prepare(name, root)
    elif name in CIFAR:
        cifar.prepare(CIFAR[name], root)


def load(name: str, root: Path) -> Images:
    """One of the sets that lie in memory (info.FOLDERS do not).

    Raises DataError when the files are not there and cannot be downloaded, or are damaged.
    """
    info = INFO[name]
    prepare(name, root)
    root = root.expanduser().absolute()
    if name == "digits":
        parts = digits.read()
    elif name == "synthetic":
        parts = synthetic.read(info)
    elif name in ("mnist", "fashion_mnist"):
        parts = idx.read(name, root, info)
    else:
        parts = cifar.read(CIFAR[name], root, info)
    return Images(*parts, info)
