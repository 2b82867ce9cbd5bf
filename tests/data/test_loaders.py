"""The images of a run, split and prepared: a fraction, one batch, padding, other sizes."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers.image_folders import make_folder
from helpers.runs import QUIET
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from hidden_subnet.analysis import load as loading
from hidden_subnet.config.identity import folder_name, seed_of
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.data.catalog import load
from hidden_subnet.data.loaders import train_val_indices
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.experiment import open_images, resolve

Compose = Callable[..., Config]


SMALL = ["data=synthetic", "model=fc", "model.width=0.1", "tracker=none", "train.epochs=2"]


def test_fractions_are_nested_and_hold_out_the_same(compose: Compose) -> None:
    labels = load("digits", Path("unused")).train_labels

    def choice(*overrides: str) -> tuple[set[int], Tensor]:
        config = compose(*overrides)
        seed = seed_of(config, "split")
        kept, held = train_val_indices(labels, config.data, seed=seed, batch_size=config.train.batch_size)
        assert kept.equal(kept.sort().values)
        return set(kept.tolist()), held

    whole, held = choice()
    small, large = (choice(f"data.fraction={fraction}")[0] for fraction in (0.1, 0.2))
    assert (len(whole), len(large), len(small)) == (1293, 259, 129)
    assert small < large < whole
    assert choice("data.fraction=0.1")[1].equal(held)
    counts = labels[sorted(small)].bincount()
    assert counts.min() >= 12
    assert counts.max() <= 14
    other, other_held = choice("data.fraction=0.1", "seeds.split=1")
    assert other != small
    assert not other_held.equal(held)
    assert choice("data.fraction=0.1", "seeds.data=1")[0] == small


@pytest.mark.parametrize("name", ["synthetic", "tiny_imagenet"])
def test_a_run_on_a_fraction(compose: Compose, tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path / "images")
    data = [f"data={name}", f"data.root={root}", *(["data.size=8"] if name == "tiny_imagenet" else [])]
    config = compose(*SMALL, *data, "data.fraction=0.25", "data.validation=0.5", "data.workers=0")
    with open_images(resolve(config, "cpu")) as loaders:
        images = 64 if name == "synthetic" else 3
        assert loaders.train.images_in_epoch == images
        shown = torch.cat([labels for _, labels in loaders.train.epoch(0, 0)])
        assert len(shown) == images
        assert len(shown.unique()) == loaders.test.info.classes == (10 if name == "synthetic" else 3)


@pytest.mark.parametrize("name", ["synthetic", "tiny_imagenet"])
def test_one_batch_is_the_same_in_every_step(compose: Compose, tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path / "images")
    data = [f"data={name}", f"data.root={root}", "data.crop=2", "data.flip=true", "data.one_batch=true"]
    config = compose(*SMALL, *data, "data.size=12", "train.batch_size=6", "data.validation=0", "data.workers=0")
    with open_images(resolve(config, "cpu")) as loaders:
        assert (len(loaders.train), loaders.train.images_in_epoch, loaders.validation) == (1, 6, None)
        seen = []
        for epoch in range(3):
            [(images, labels)] = loaders.train.epoch(0, epoch)
            seen.append(sorted(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images))
            assert len(labels.unique()) == (6 if name == "synthetic" else 3)
        assert seen[0] == seen[1] == seen[2]


def test_one_batch_is_overfitted(compose: Compose, tmp_path: Path) -> None:
    overrides = ["data=digits", "model=fc", "method=dense", "train.epochs=60", "tracker=none", f"out={tmp_path}"]
    done = execute(compose(*overrides, "data.one_batch=true", "train.batch_size=16", "train.lr=0.05"), QUIET)
    result = files.read_result(done.folder)
    assert result is not None
    assert result["last"]["train"]["top1"] == 1.0
    assert result["last"]["test"]["top1"] < 0.9
    assert [row["step"] for row in files.read_rows(done.folder)] == list(range(61))


@pytest.mark.parametrize("crop", [0, 1])
def test_padding_surrounds_every_image_with_black(compose: Compose, crop: int) -> None:
    config = compose(*SMALL, "data=digits", "data.pad=4", f"data.crop={crop}", "train.batch_size=2000")
    info = info_of(config.data)
    assert info.shape == (1, 16, 16)
    digits = compose(*SMALL, "data=digits")
    black = -info.mean[0] / info.std[0]
    with open_images(resolve(config, "cpu")) as loaders, open_images(resolve(digits, "cpu")) as plain:
        for padded, images in ((loaders.test, plain.test), (loaders.validation, plain.validation)):
            assert padded is not None
            assert images is not None
            [(wide, labels)], [(small, expected)] = list(padded), list(images)
            assert wide[:, :, 4:-4, 4:-4].equal(small)
            assert labels.equal(expected)
            wide[:, :, 4:-4, 4:-4] = black
            torch.testing.assert_close(wide, torch.full_like(wide, black), rtol=0, atol=1e-6)
        [(images, _)] = loaders.train.epoch(0, 0)
        assert images.shape == (1293, 1, 16, 16)
        # The crop still moves the image by at most `crop` pixels.
        edge = 4 - crop
        around = torch.ones(16, 16, dtype=torch.bool)
        around[edge:-edge, edge:-edge] = False
        torch.testing.assert_close(images[..., around], torch.full_like(images[..., around], black), rtol=0, atol=1e-6)
        inner = images[:, :, edge, :] if crop else images[:, :, 4, :]
        assert (inner > black + 0.1).any()


def test_fashion_mnist_fits_the_deepest_network_when_padded(compose: Compose) -> None:
    config = compose("data=fashion_mnist", "data.pad=2", "model=conv8")
    assert info_of(config.data).shape == (1, 32, 32)
    assert folder_name(config) != folder_name(compose("data=fashion_mnist", "model=conv8"))


def test_bigcifar10_reads_cifars_files(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = torchvision.datasets.CIFAR10
    folder = tmp_path / source.base_folder
    folder.mkdir()
    sums = []
    for seed, (file, count) in enumerate((("data_batch_1", 20), ("test_batch", 6))):
        pixels = np.random.RandomState(seed).randint(0, 256, (count, 3072)).astype(np.uint8)
        content = pickle.dumps({"data": pixels, "labels": [number % 10 for number in range(count)]})
        (folder / file).write_bytes(content)
        sums.append([file, hashlib.md5(content).hexdigest()])
    monkeypatch.setattr(source, "train_list", sums[:1])
    monkeypatch.setattr(source, "test_list", sums[1:])
    config = compose("data=bigcifar10", f"data.root={tmp_path}", "model=conv8", "train.batch_size=16")
    assert info_of(config.data).shape == (3, 128, 128)
    assert (config.data.resized_crop, config.data.flip, config.data.crop) == (True, True, 0)
    with open_images(resolve(config, "cpu")) as loaders:
        [(images, _), (rest, _)] = loaders.train.epoch(0, 0)
        assert (images.shape, rest.shape) == ((16, 3, 128, 128), (2, 3, 128, 128))
        [(images, _)] = loaders.test
    raw = load("bigcifar10", tmp_path).test
    expected = F.normalize(F.resize(raw / 255, [128, 128]), list(loaders.test.info.mean), list(loaders.test.info.std))
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)


def test_a_run_on_enlarged_and_padded_images_comes_back(compose: Compose, tmp_path: Path) -> None:
    config = compose(*SMALL, "model=conv2", "data.pad=1", "data.size=12", "data.crop=1", f"out={tmp_path}")
    done = execute(config, QUIET)
    assert done.state == "done", done.message
    images, labels = loading.test_images(done.folder)
    assert images.shape == (128, 1, 12, 12)
    top1 = (loading.load(done.folder)(images).argmax(1) == labels).double().mean().item()
    assert done.result is not None
    assert top1 == done.result["last"]["test"]["top1"]
