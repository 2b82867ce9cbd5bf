"""Settings that go with any data set: a fraction, one batch, padding, other sizes; and choosing it by its option."""

import hashlib
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from image_folders import make_folder
from omegaconf import OmegaConf
from silence import QUIET
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from hidden_subnet import loading, record
from hidden_subnet.check import ConfigError
from hidden_subnet.data.batches import Batches, EvaluationBatches, normalised, scale_and_shift
from hidden_subnet.data.info import INFO, Info
from hidden_subnet.data.load import load
from hidden_subnet.data.resizing import AREA, RATIO, resized, resized_crops
from hidden_subnet.data.split import balanced_order
from hidden_subnet.dataset import info_of
from hidden_subnet.execute import execute
from hidden_subnet.feed import chosen, open_feed, open_test
from hidden_subnet.identity import folder_name, projection
from hidden_subnet.settings import Config, Data, DataName
from hydra_plugins.hidden_subnet.compose import to_checked_config
from hydra_plugins.hidden_subnet.grid_sweeper import expand
from hydra_plugins.hidden_subnet.options import refuse_names

Compose = Callable[..., Config]

SMALL = ["data=synthetic", "model=fc", "model.width=0.1", "tracker=none", "train.epochs=2"]


# A fraction


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1]),
        ([2, 1, 0, 0, 0, 0], [0, 1, 2, 0, 0, 0]),  # one of each class first, however small the class
        ([1] * 4 + [0] * 2, [0, 1, 1, 1, 0, 1]),
        ([0], [0]),
    ],
)
def test_every_beginning_is_balanced(labels: list[int], expected: list[int]) -> None:
    each = torch.tensor(labels)
    for seed in range(3):
        assert each[balanced_order(each, seed)].tolist() == expected


def test_a_beginning_holds_each_class_in_its_share() -> None:
    labels = torch.randint(0, 5, (700,), generator=torch.Generator().manual_seed(0)) ** 2 % 5
    order = balanced_order(labels, 3)
    assert sorted(order.tolist()) == list(range(700))
    counts = labels.bincount()
    for count in range(5, 701, 7):
        found = labels[order[:count]].bincount(minlength=5)
        assert ((found - counts * count / 700).abs() <= 1.5).all(), count
        assert (found[counts > 0] > 0).all()
    assert not balanced_order(labels, 4).equal(order)


def test_fractions_are_nested_and_hold_out_the_same(compose: Compose) -> None:
    labels = load("digits", Path("unused")).train_labels

    def choice(*overrides: str) -> tuple[set[int], Tensor]:
        kept, held = chosen(labels, compose(*overrides))
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
    with open_feed(config, "cpu") as feed:
        images = 64 if name == "synthetic" else 3
        assert feed.train.images_in_epoch == images
        shown = torch.cat([labels for _, labels in feed.train.epoch(0, 0)])
        assert len(shown) == images
        assert len(shown.unique()) == feed.test.info.classes == (10 if name == "synthetic" else 3)


# One batch


@pytest.mark.parametrize("name", ["synthetic", "tiny_imagenet"])
def test_one_batch_is_the_same_in_every_step(compose: Compose, tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path / "images")
    data = [f"data={name}", f"data.root={root}", "data.crop=2", "data.flip=true", "data.one_batch=true"]
    config = compose(*SMALL, *data, "data.size=12", "train.batch_size=6", "data.validation=0", "data.workers=0")
    with open_feed(config, "cpu") as feed:
        assert (len(feed.train), feed.train.images_in_epoch, feed.validation) == (1, 6, None)
        seen = []
        for epoch in range(3):
            [(images, labels)] = feed.train.epoch(0, epoch)
            seen.append(sorted(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images))
            assert len(labels.unique()) == (6 if name == "synthetic" else 3)
        assert seen[0] == seen[1] == seen[2]


def test_one_batch_is_overfitted(compose: Compose, tmp_path: Path) -> None:
    overrides = ["data=digits", "model=fc", "method=dense", "train.epochs=60", "tracker=none", f"out={tmp_path}"]
    done = execute(compose(*overrides, "data.one_batch=true", "train.batch_size=16", "train.lr=0.05"), QUIET)
    result = record.read_result(done.folder)
    assert result is not None
    assert result["last"]["train"]["top1"] == 1.0
    assert result["last"]["test"]["top1"] < 0.9
    assert [row["step"] for row in record.read_rows(done.folder)] == list(range(61))


# Padding


@pytest.mark.parametrize("crop", [0, 1])
def test_padding_surrounds_every_image_with_black(compose: Compose, crop: int) -> None:
    config = compose(*SMALL, "data=digits", "data.pad=4", f"data.crop={crop}", "train.batch_size=2000")
    info = info_of(config.data)
    assert info.shape == (1, 16, 16)
    black = -info.mean[0] / info.std[0]
    with open_feed(config, "cpu") as feed, open_feed(compose(*SMALL, "data=digits"), "cpu") as plain:
        for padded, images in ((feed.test, plain.test), (feed.validation, plain.validation)):
            assert padded is not None
            assert images is not None
            [(wide, labels)], [(small, expected)] = list(padded), list(images)
            assert wide[:, :, 4:-4, 4:-4].equal(small)
            assert labels.equal(expected)
            wide[:, :, 4:-4, 4:-4] = black
            torch.testing.assert_close(wide, torch.full_like(wide, black), rtol=0, atol=1e-6)
        [(images, _)] = feed.train.epoch(0, 0)
        assert images.shape == (1293, 1, 16, 16)
        # The crop still moves the image by at most so many pixels.
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


# Other sizes


GREY = Info((1, 6, 6), 2, 0, 0, (0.5,), (0.25,))


def test_enlarged_images_are_torchvisions() -> None:
    pixels = torch.randint(0, 256, (5, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = resized(pixels, None, 24)
    torch.testing.assert_close(whole, F.resize(pixels.float(), [24, 24], antialias=False), rtol=0, atol=1e-3)
    windows = torch.tensor([[0, 0, 9, 9], [1, 2, 3, 4], [8, 8, 1, 1], [0, 5, 7, 4], [4, 0, 5, 9]])
    for image, window, found in zip(pixels, windows, resized(pixels, windows, 24), strict=True):
        expected = F.resized_crop(image.float(), *window.tolist(), size=[24, 24], antialias=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(resized(pixels, None, 9), pixels.float(), rtol=0, atol=1e-3)


def test_windows_follow_the_law_of_random_resized_crop() -> None:
    top, left, tall, wide = resized_crops(20_000, 32, 32, 0, 0).double().T
    assert top.min() == left.min() == 0
    assert ((top + tall) <= 32).all()
    assert ((left + wide) <= 32).all()
    share, ratio = tall * wide / 1024, wide / tall
    assert share.max() == 1
    assert share.min() > AREA[0] - 0.02
    assert ratio.min() > RATIO[0] - 0.06
    assert ratio.max() < RATIO[1] + 0.09
    assert abs(ratio.log().mean()) < 0.01  # wide as often as tall
    torch.manual_seed(0)
    image = torch.empty(1, 32, 32)
    crop = torchvision.transforms.RandomResizedCrop(32)
    theirs = torch.tensor([crop.get_params(image, list(AREA), list(RATIO)) for _ in range(4000)]).double().T
    for ours, others in ((tall, theirs[2]), (wide, theirs[3]), (top, theirs[0]), (left, theirs[1])):
        error = math.sqrt(float(others.var()) / 4000)
        assert abs(float(ours.mean() - others.mean())) < 5 * error
        assert abs(float(ours.std() / others.std()) - 1) < 0.06


def test_a_resized_batch_is_cut_flipped_and_normalised() -> None:
    pixels = torch.randint(0, 256, (7, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches = Batches(
        pixels,
        torch.arange(7),
        GREY,
        batch_size=4,
        crop=0,
        flip=False,
        device="cpu",
        size=10,
        resized_crop=True,
    )
    whole = list(batches.epoch(3, 1))
    windows = resized_crops(7, 6, 6, 3, 1)
    shown = torch.cat([labels for _, labels in whole])
    expected = normalised(resized(pixels[shown], windows, 10), *scale_and_shift(GREY, "cpu"))
    torch.testing.assert_close(torch.cat([images for images, _ in whole]), expected, rtol=0, atol=1e-6)
    [(rest, _)] = batches.epoch(3, 1, start=1)
    assert rest.equal(whole[1][0])
    enlarged = EvaluationBatches(pixels, torch.arange(7), GREY, "cpu", side=10)
    [(images, _)] = enlarged
    assert images.shape == (7, 1, 10, 10)


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
    with open_feed(config, "cpu") as feed:
        [(images, _), (rest, _)] = feed.train.epoch(0, 0)
        assert (images.shape, rest.shape) == ((16, 3, 128, 128), (2, 3, 128, 128))
    with open_test(config, "cpu") as test:
        [(images, _)] = test
    raw = load("bigcifar10", tmp_path).test
    expected = F.normalize(F.resize(raw / 255, [128, 128]), list(test.info.mean), list(test.info.std))
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


# What a run is


def test_a_setting_that_changes_nothing_is_no_part_of_a_run(compose: Compose) -> None:
    def name(*overrides: str) -> str:
        return folder_name(compose(*overrides))

    assert projection(compose())["data"] == {"name": "digits", "validation": 0.1, "crop": 0, "flip": False}
    assert name("data.fraction=1", "data.pad=0", "data.one_batch=false", "data.size=0") == name()
    assert name("data.one_batch=true", "data.crop=2") == name("data.one_batch=true", "data.flip=true")
    assert "crop" not in projection(compose("data.one_batch=true"))["data"]
    random = name("method=random")
    assert name("method=random", "data.fraction=0.5") == name("method=random", "data.one_batch=true") == random
    # The split's seed chooses the images of a fraction even where none are held out.
    for setting in ("data.fraction=0.5", "data.one_batch=true"):
        assert name("data.validation=0", setting, "seeds.split=1") != name("data.validation=0", setting)


@pytest.mark.parametrize("name", list(INFO))
def test_the_config_tells_the_shape_of_what_is_shown(name: str) -> None:
    if name in ("imagenet", "tiny_imagenet"):
        with pytest.raises(ValueError, match="not counted"):
            info_of(Data(name=DataName[name]))
        return
    assert info_of(Data(name=DataName[name])) == INFO[name]
    channels, height, width = INFO[name].shape
    assert info_of(Data(name=DataName[name], pad=3)).shape == (channels, height + 6, width + 6)
    assert info_of(Data(name=DataName[name], pad=3, size=99)).shape == (channels, 99, 99)


# (settings, what the line must contain)
RULES: list[tuple[str, list[str]]] = [
    ("data.fraction=0", ["data.fraction=0", "above 0 and at most 1"]),
    ("data.fraction=1.5", ["data.fraction=1.5", "above 0 and at most 1"]),
    ("data.fraction=nan", ["data.fraction=nan", "above 0 and at most 1"]),
    ("data.fraction=0.005", ["data.fraction=0.005", "leaves 6 of 1293", "10 classes"]),
    ("data.fraction=0.5 data.one_batch=true", ["data.fraction=0.5", "data.one_batch=true"]),
    ("data.pad=-1", ["data.pad=-1", "0 to 64"]),
    ("data.pad=65", ["data.pad=65", "0 to 64"]),
    ("data.size=-1", ["data.size=-1", "0 (as they are)"]),
    ("data.size=7", ["data.size=7", "8x8", "only enlarged"]),
    ("data.size=9 data.pad=1", ["data.size=9", "10x10", "only enlarged"]),
    ("data.resize=9", ["data.resize=9", "data=imagenet", "data.size"]),
    ("data.resized_crop=true data.crop=1", ["data.crop=1", "data.resized_crop=true"]),
]


@pytest.mark.parametrize(("arguments", "words"), RULES, ids=[arguments for arguments, _ in RULES])
def test_broken_rules(compose: Compose, arguments: str, words: list[str]) -> None:
    config = OmegaConf.structured(compose())
    config.merge_with_dotlist(arguments.split())
    with pytest.raises(ConfigError) as caught:
        to_checked_config(config)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("data.name=cifar10", "write data=cifar10,"),
        ("-m seed=0,1 data.name=cifar10,mnist", "write data=cifar10,mnist,"),
        ("++init.name=standard", "write init=standard,"),
        ("model.name=conv4", "write model=conv4,"),
    ],
)
def test_the_name_alone_is_refused(arguments: str, word: str) -> None:
    with pytest.raises(ConfigError, match=r"brings its settings with it") as caught:
        refuse_names(arguments.split())
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "arguments", ["data=cifar10 model.width=2", "model=torchvision model.name=vit_b_16", "tracker.project=data.name=x"]
)
def test_other_names_are_settings(arguments: str) -> None:
    refuse_names(arguments.split())


def test_a_preset_gives_options_too() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    grid: dict[str, Any] = {"data.name": ["cifar10", "mnist"]}
    with pytest.raises(ConfigError, match=r"data\.name=cifar10: write data=cifar10,"):
        expand(OverridesParser.create(), [], [grid])
