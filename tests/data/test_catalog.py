"""The data sets by name: their sizes and pixels, and the line about one that cannot be had."""

from pathlib import Path

import pytest
import torch
import torchvision
from helpers.loaded_images import UNREACHABLE, assert_mean_and_std, assert_message_is_one_line, assert_sound, digest

from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Data
from hidden_subnet.data import idx
from hidden_subnet.data.catalog import INFO, Images, load, prepare
from hidden_subnet.errors import DataError


def nearest_mean_accuracy(images: Images) -> float:
    train, test = images.train.flatten(1).float(), images.test.flatten(1).float()
    means = torch.stack([train[images.train_labels == c].mean(0) for c in range(images.info.classes)])
    return (torch.cdist(test, means).argmin(1) == images.test_labels).float().mean().item()


def test_digits_and_their_split_are_fixed(tmp_path: Path) -> None:
    images = load("digits", tmp_path / "unused")
    assert_sound(images)
    assert_mean_and_std(images, 0.001)
    assert digest(images) == "eae0a7c05d5c643f5d498435567fca0c4fe15b3787ab98409a8c1184d4c68c11"
    assert not (tmp_path / "unused").exists()


def test_digits_are_scikit_learns_and_stratified(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    images = load("digits", tmp_path)
    ours = torch.cat([images.train, images.test]).flatten(1).tolist()
    assert sorted(ours) == sorted(load_digits().data.astype(int).tolist())
    everything = torch.cat([images.train_labels, images.test_labels]).bincount()
    assert (images.test_labels.bincount() - everything / 5).abs().max() <= 1


def test_synthetic_is_fixed_and_learnable(tmp_path: Path) -> None:
    images = load("synthetic", tmp_path / "unused")
    assert_sound(images)
    assert_mean_and_std(images, 0.02)
    assert digest(images) == "98ec91e067560f3344c869e985856000510b333eae8106d96fa27daab71b7c19"
    assert nearest_mean_accuracy(images) > 0.95
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]),
        ("fashion_mnist", ["train-images-idx3-ubyte.gz", "Debian's package dataset-fashion-mnist"]),
        ("cifar10", ["cifar-10-python.tar.gz"]),
        ("cifar100", ["cifar-100-python.tar.gz"]),
    ],
)
def test_without_network_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    monkeypatch.setattr(idx, "PACKAGED", {"fashion_mnist": tmp_path / "not installed"})
    monkeypatch.setenv("no_proxy", "*")
    for source in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(source, "mirrors", [UNREACHABLE, UNREACHABLE])
    for source in (torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100):
        monkeypatch.setattr(source, "url", UNREACHABLE)
    for _ in range(2):
        with pytest.raises(DataError) as error:
            load(name, tmp_path / "root")
        assert_message_is_one_line(error, *words, str(tmp_path / "root"), "Connection refused", "type: data=digits")
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file() and path.stat().st_size] == []


@pytest.mark.parametrize("below", ["", "folder"])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_file_in_the_way_of_the_root(tmp_path: Path, name: str, below: str) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / below
    with pytest.raises(DataError) as error:
        prepare(name, root)
    assert_message_is_one_line(error, f"data.root={root}", name, "data=digits")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("name", list(INFO))
def test_the_config_tells_the_shape_of_what_is_shown(name: str) -> None:
    if name in ("imagenet", "tiny_imagenet"):
        with pytest.raises(ValueError, match="not counted"):
            info_of(Data(name=name))
        return
    assert info_of(Data(name=name)) == INFO[name]
    channels, height, width = INFO[name].shape
    assert info_of(Data(name=name, pad=3)).shape == (channels, height + 6, width + 6)
    assert info_of(Data(name=name, pad=3, size=99)).shape == (channels, 99, 99)
