"""Sets of torchvision: each one's arguments are those of its class; files that are there are read as they are."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers.small_sets import KMNIST, save_kmnist
from PIL import Image
from torch import Tensor

from hidden_subnet.config.identity import projection
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.data.loaders import open_loaders
from hidden_subnet.data.torchvision_sets import SETS, torchvision_set
from hidden_subnet.errors import DataError

Compose = Callable[..., Config]


@pytest.mark.parametrize("name", SETS)
def test_the_arguments_are_those_of_the_class(name: str) -> None:
    signature = inspect.signature(vars(torchvision.datasets)[name])
    parts = [signature.bind("root", download=True, **arguments) for arguments in SETS[name]]
    assert parts[0] != parts[1]


@pytest.fixture
def kmnist(tmp_path: Path) -> Path:
    return save_kmnist(tmp_path / "data")


def images_of(config: Config) -> tuple[Tensor, Tensor]:
    with open_loaders(config.data, info_of(config.data), seed=0, batch_size=20, device="cpu") as loaders:
        batches = list(loaders.test)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_images_are_read(kmnist: Path, compose: Compose) -> None:
    given = ["data=torchvision", "data.dataset=KMNIST", f"data.root={kmnist}", "model=fc"]
    config = compose(*given)
    info = info_of(config.data)
    assert (info.shape, info.classes, info.train, info.test) == ((1, 28, 28), 10, 20, 10)
    images, labels = images_of(config)
    raw = np.frombuffer((kmnist / "KMNIST" / "raw" / KMNIST[2]).read_bytes()[16:], dtype=np.uint8).reshape(
        10, 1, 28, 28
    )
    torch.testing.assert_close(images * info.std[0] + info.mean[0], torch.from_numpy(raw.copy()) / 255)
    assert labels.tolist() == list(range(10))
    assert projection(config)["data"]["dataset"] == "KMNIST"
    small = compose(*given, "data.side=14")
    assert info_of(small.data).shape == (1, 14, 14)
    assert projection(small)["data"]["found"] != projection(config)["data"]["found"]


class Pictures(list[tuple[Image.Image, int]]):
    """A set of torchvision with images of several sizes and modes, which has no file here."""

    def __init__(self, root: Path, *, split: str, download: bool) -> None:
        modes = ["RGB", "L"] if split == "train" else ["L", "RGB"]
        super().__init__((Image.new(mode, (30 + i, 20), 60 * i), i) for i, mode in enumerate(modes))


def test_images_of_several_sizes_need_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torchvision.datasets, "SVHN", Pictures)
    with pytest.raises(DataError) as caught:
        torchvision_set(tmp_path, dataset="SVHN", side=0)
    assert str(caught.value) == (
        "data.dataset=SVHN: has images of different sizes, as 30x20 and 31x20; type: data.side=64"
    )
    found = torchvision_set(tmp_path, dataset="SVHN", side=10)
    assert (found.train.shape, found.train.dtype, found.test.shape) == ((2, 3, 10, 10), np.uint8, (2, 3, 10, 10))
    assert found.train[1].min() == found.train[1].max() == 60
    assert found.train_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data=torchvision"], "data=torchvision: is none of torchvision's sets that can be read (CIFAR10, "),
        (
            ["data=torchvision", "data.dataset=svhn"],
            "data.dataset=svhn: is none of torchvision's sets that can be read",
        ),
    ],
)
def test_unknown_sets_are_refused_with_the_nearest(words: list[str], line: str, compose: Compose) -> None:
    with pytest.raises(DataError) as caught:
        compose(*words)
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith("type: data.dataset=SVHN")


def test_without_network_one_line_says_what_to_do(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError) as caught:
        compose("data=torchvision", "data.dataset=KMNIST", f"data.root={tmp_path}")
    assert str(caught.value).startswith("data.dataset=KMNIST: cannot be downloaded or read (")
    assert str(caught.value).endswith(f"; put its files into {tmp_path}, or choose another; type: data=digits")
