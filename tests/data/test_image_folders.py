"""Batches from image files: torchvision's pixels, whatever the order and the number of workers."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.folder_runs import Compose, small
from helpers.image_folders import make_folder
from helpers.one_line import assert_one_line
from helpers.other_kinds import KINDS
from helpers.runs import QUIET
from helpers.time_limit import within
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from hidden_subnet.config.registries import DATA, info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.data.folder_listing import Listing, list_images
from hidden_subnet.data.in_memory import normalised, scale_and_shift
from hidden_subnet.data.loaders import Loaders
from hidden_subnet.errors import DataError
from hidden_subnet.seeding import derive
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training.experiment import open_images, resolve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes, 24 images to train on and 12 to test, in the layout of ImageFolder."""
    return make_folder(tmp_path_factory.mktemp("folder"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.size=0", ["data.size=0", "many sizes", "data.size=64"]),
        ("data.pad=2", ["data.pad=2", "data.size=12"]),
        ("data.resize=8", ["data.resize=8", "from data.size=12"]),
        ("data.resized_crop=true", ["data.crop=2", "data.resized_crop=true"]),
        ("data.fraction=0.1", ["data.fraction=0.1", "leaves 2 of 18", "3 classes"]),
        ("data.validation=0.99", ["data.validation=0.99", "24 of 24"]),
        ("data.workers=-1", ["data.workers=-1", "0"]),
        ("data.found.classes=3", ["data.found", "type: data.root="]),
        ("model.name=conv8", ["model=conv8", "12x12"]),
    ],
)
def test_wrong_settings_of_image_files(compose: Compose, folder: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^(data\.|model=)") as caught:
        small(compose, folder, override)
    assert_one_line(caught.value, words)


def listed(root: Path) -> Listing:
    return list_images(DATA["tiny_imagenet"].folders, "tiny_imagenet", root)


@contextmanager
def opened(config: Config) -> Iterator[Loaders]:
    with open_images(resolve(config, "cpu")) as loaders:
        yield loaders


def shown(config: Config, epoch: int = 1, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    with opened(config) as loaders:
        return list(loaders.train.epoch(7, epoch, start))


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    assert len(one) == len(other)
    for (images, labels), (others, other_labels) in zip(one, other, strict=True):
        assert images.equal(others)
        assert labels.equal(other_labels)


def test_test_images_are_torchvisions(compose: Compose, folder: Path) -> None:
    config = small(compose, folder, "data.resize=14")
    steps = [v2.Resize(14), v2.CenterCrop(12), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    info = info_of(config.data)
    theirs = ImageFolder(str(folder / "val"), v2.Compose([*steps, v2.Normalize(info.mean, info.std)]))
    with opened(config) as loaders:
        [(images, labels)] = list(loaders.test)
        assert labels.equal(loaders.test.labels)
    order = {Path(path).name: number for number, (path, _) in enumerate(theirs.samples)}
    here = [order[Path(path).name] for path in listed(folder).test]
    torch.testing.assert_close(images, torch.stack([theirs[each][0] for each in here]), rtol=0, atol=1e-5)
    assert labels.tolist() == [theirs[each][1] for each in here]


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (
            ["data.crop=2"],
            [v2.Resize(12), v2.CenterCrop(12), v2.RandomCrop(12, padding=2), v2.RandomHorizontalFlip()],
        ),
        (["data.crop=0", "data.resized_crop=true"], [v2.RandomResizedCrop(12), v2.RandomHorizontalFlip()]),
        (["data.crop=0", "data.flip=false", "data.resize=14"], [v2.Resize(14), v2.CenterCrop(12)]),
    ],
    ids=["crop", "resized_crop", "none"],
)
def test_training_images_are_torchvisions(
    compose: Compose, folder: Path, overrides: list[str], steps: list[v2.Transform]
) -> None:
    config = small(compose, folder, "data.validation=0", *overrides)
    theirs = ImageFolder(str(folder / "train"), v2.Compose([*steps, v2.PILToTensor()]))
    by_path = {path: number for number, (path, _) in enumerate(theirs.samples)}
    paths = [str(folder / path) for path in listed(folder).train]
    with opened(config) as loaders:
        batches = list(loaders.train.epoch(7, 1))
        assert loaders.train.images_in_epoch == 24
        assert len(loaders.train) == len(batches) == 5
    order = torch.randperm(24, generator=torch.Generator().manual_seed(derive(7, "order", 1))).tolist()
    expected = []
    for image in order:
        torch.manual_seed(derive(7, "augmentation", 1, image))
        expected.append(theirs[by_path[paths[image]]])
    images = normalised(torch.stack([image for image, _ in expected]), *scale_and_shift(info_of(config.data), "cpu"))
    assert torch.cat([each for each, _ in batches]).equal(images)
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in expected]


def test_neither_workers_nor_the_place_of_beginning_matter(compose: Compose, folder: Path) -> None:
    configs = [small(compose, folder, f"data.workers={workers}") for workers in (0, 1, 2)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole = shown(configs[0])
    assert [len(labels) for _, labels in whole] == [5, 5, 5, 3]
    assert torch.get_rng_state().equal(before)
    for config in configs[1:]:
        assert_same(shown(config), whole)
        assert_same(shown(config, start=2), whole[2:])
        assert shown(config, start=4) == []
    other = shown(configs[0], epoch=2)
    assert not torch.cat([images for images, _ in other]).equal(torch.cat([images for images, _ in whole]))
    assert torch.get_rng_state().equal(before)


def test_workers_serve_epochs_left_halfway_and_evaluations(compose: Compose, folder: Path) -> None:
    config = small(compose, folder, "data.workers=2")
    whole = shown(config)
    with opened(config) as loaders:
        next(loaders.train.epoch(7, 0))
        assert loaders.validation is not None
        held = list(loaders.validation)
        assert_same(list(loaders.train.epoch(7, 1)), whole)
        assert_same(list(loaders.validation), held)
        assert len(multiprocessing.active_children()) == 2
        # Held out images are shown as in evaluation, and none of them is trained on.
        assert sum(len(labels) for _, labels in held) + loaders.train.images_in_epoch == 24
    assert multiprocessing.active_children() == []


def test_skipped_images_are_not_read(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    config = small(compose, root, "data.workers=0", "data.validation=0")
    whole = shown(config)
    files = listed(root).train  # all of them are trained on
    order = torch.randperm(24, generator=torch.Generator().manual_seed(derive(7, "order", 1)))[:10].tolist()
    for image in order:
        (root / files[image]).write_bytes(b"")
    config = small(compose, root, "data.workers=0", "data.validation=0")
    assert_same(shown(config, start=2), whole[2:])
    with pytest.raises(DataError, match="cannot be read"):
        shown(config, start=1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "half a picture"])
def test_an_unreadable_image_is_named(compose: Compose, tmp_path: Path, workers: int, content: Any) -> None:
    root = make_folder(tmp_path, suffix="jpg")
    path = root / "train" / "n01" / "n01_3.jpg"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    outcome = execute(small(compose, root, f"data.workers={workers}", f"out={tmp_path / 'runs'}"), QUIET)
    assert outcome.state == "failed"
    assert str(path) in outcome.message
    assert "cannot be read as an image" in outcome.message
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("make", KINDS)
def test_what_takes_the_place_of_an_image_during_the_run_is_named(
    compose: Compose, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    root = make_folder(tmp_path)
    path = root / "train" / "n01" / "n01_3.png"
    with opened(small(compose, root, "data.workers=0", "data.validation=0")) as loaders:
        path.unlink()
        make(path)
        with pytest.raises(DataError, match=r"n01_3\.png: cannot be read as an image"), within(30):
            list(loaders.train.epoch(7, 0))


def test_a_worker_that_dies_is_an_error(compose: Compose, folder: Path) -> None:
    with opened(small(compose, folder, "data.workers=2", "train.batch_size=1")) as loaders:
        batches = loaders.train.epoch(7, 0)
        next(batches)

        def killed_and_read_on() -> None:
            # torch's handler of SIGCHLD may raise between two of these lines.
            for child in multiprocessing.active_children():
                child.kill()
            list(batches)

        with pytest.raises(RuntimeError, match=r"worker.*(killed|exited)"):
            killed_and_read_on()
    # It may raise before the second one is killed, which then ends with the loaders, a moment later.
    for child in multiprocessing.active_children():
        child.join(10)
    assert multiprocessing.active_children() == []
