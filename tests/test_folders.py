"""Sets of image files: what is found in folders, what is read from them, and that order and workers do not matter."""

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection
from multiprocessing.resource_sharer import DupFd
from pathlib import Path
from typing import Any

import pytest
import torch
from folder_runs import Compose, _remove, small
from image_folders import make_folder, picture
from silence import QUIET
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from hidden_subnet.data.batches import normalised, scale_and_shift
from hidden_subnet.data.folders import FolderBatches
from hidden_subnet.data.info import DataError
from hidden_subnet.data.listing import list_images
from hidden_subnet.data.worker import begin_worker
from hidden_subnet.dataset import info_of
from hidden_subnet.execute import execute
from hidden_subnet.feed import Feed, open_feed, open_test
from hidden_subnet.identity import folder_name, projection
from hidden_subnet.seeding import derive
from hidden_subnet.settings import Config
from hydra_plugins.hidden_subnet.errors import one_line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes, 24 images to train on and 12 to test, in the layout of ImageFolder."""
    return make_folder(tmp_path_factory.mktemp("folder"))


@pytest.mark.parametrize("below", ["", "imagenet", "ILSVRC2012"])
def test_an_image_folder_is_found(tmp_path: Path, below: str) -> None:
    make_folder(tmp_path / below, classes=2, train=2, val=1)
    (tmp_path / below / "train" / "n00" / "notes.txt").write_text("no image")
    (tmp_path / below / "train" / "n00" / "._n00_0.png").write_text("what macOS adds")
    (tmp_path / below / "train" / "README").write_text("no class")
    found = list_images("imagenet", tmp_path)
    assert found.folder == tmp_path / below
    assert found.classes == ["n00", "n01"]
    assert found.train == [f"train/n0{label}/n0{label}_{number}.png" for label in (0, 1) for number in (0, 1)]
    assert found.train_labels == [0, 0, 1, 1]
    assert found.test == ["val/n00/val_1.png", "val/n01/val_0.png"]
    assert found.test_labels == [0, 1]


def test_both_layouts_are_the_same_set(tmp_path: Path) -> None:
    archive = list_images("tiny_imagenet", make_folder(tmp_path / "a" / "tiny-imagenet-200", annotated=True).parent)
    sorted_in = list_images("tiny_imagenet", make_folder(tmp_path / "b"))
    assert archive.digest == sorted_in.digest
    assert (archive.train_labels, archive.test_labels) == (sorted_in.train_labels, sorted_in.test_labels)
    for one, other in zip([*archive.train, *archive.test], [*sorted_in.train, *sorted_in.test], strict=True):
        assert (archive.folder / one).read_bytes() == (sorted_in.folder / other).read_bytes()
    assert archive.test[0] == "val/images/val_1.png"  # not in the order of their names, but of their classes
    assert archive.train[0] == "train/n00/images/n00_0.png"


def test_emptied_images_are_no_class(tmp_path: Path) -> None:
    """As whoever moves Tiny ImageNet's validation images into folders leaves it behind."""
    root = make_folder(tmp_path)
    before = list_images("tiny_imagenet", root)
    (root / "val" / "images").mkdir()
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn00\t0\t0\t9\t9\n")
    assert list_images("tiny_imagenet", root) == before


# (name, damage, what the line must contain)
WRONG: list[tuple[str, Callable[[Path], Any], list[str]]] = [
    ("no val", lambda root: _remove(root / "val"), ["data=imagenet", "train/ and val/", "data.root="]),
    ("nothing", lambda root: [_remove(root / split) for split in ("train", "val")], ["train/ and val/", "data.root="]),
    ("a file", lambda root: [_remove(root / "val"), (root / "val").touch()], ["train/ and val/"]),
    (
        "no classes",
        lambda root: [_remove(root / "val" / f"n0{label}") for label in range(5)],
        ["val: holds no folders", "<folder>/<class>/<images>"],
    ),
    (
        "no images",
        lambda root: [path.unlink() for path in root.rglob("train/*/*.png")],
        ["train: n00, n01, n02 and 2 more of 5 classes without images"],
    ),
    ("an empty class", lambda root: (root / "train" / "n99").mkdir(), ["train: n99 of 6 classes without images"]),
    (
        "one class",
        lambda root: [_remove(path) for path in root.glob("*/n0[1-4]")],
        ["has one class only, n00", "two classes or more"],
    ),
    (
        "other classes",
        lambda root: [path.rename(path.with_name(f"x{path.name}")) for path in sorted(root.glob("val/n0*"))],
        ["the same classes", "only in train: n00, n01, n02 and 2 more", "only in val: xn00, xn01, xn02 and 2 more"],
    ),
    (
        "a loop of links",
        lambda root: (root / "train" / "n00" / "more").symlink_to(root / "train"),
        ["train/n00/more/n00: is a link to a folder that it lies in"],
    ),
    ("a class less", lambda root: _remove(root / "val" / "n03"), ["the same classes; only in train: n03"]),
]


@pytest.mark.parametrize(("damage", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_folders_are_told(tmp_path: Path, damage: Callable[[Path], Any], words: list[str]) -> None:
    root = make_folder(tmp_path, classes=5, train=2, val=1)
    damage(root)
    with pytest.raises(DataError) as caught:
        list_images("imagenet", root)
    line = one_line(caught.value)
    assert "\n" not in line
    assert len(line) <= 400
    assert str(root) in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda val: (val / "images" / "val_3.png").unlink(), ["val_3.png not both in it and in val/images"]),
        (lambda val: picture(0).save(val / "images" / "new.png"), ["new.png not both in it and in val/images"]),
        (lambda val: (val / "val_annotations.txt").write_text("val_0.png n00\n"), ["line 1", "a tab and its class"]),
        (
            lambda val: (val / "val_annotations.txt").write_text("val_0.png\tn00\nval_0.png\tn01\n"),
            ["line 2", "each image once"],
        ),
    ],
    ids=["a file less", "a file more", "no tabs", "twice"],
)
def test_wrong_annotations(tmp_path: Path, damage: Callable[[Path], Any], words: list[str]) -> None:
    damage(make_folder(tmp_path, annotated=True) / "val")
    with pytest.raises(DataError) as caught:
        list_images("tiny_imagenet", tmp_path)
    assert "\n" not in str(caught.value)
    for word in ["val_annotations.txt", *words]:
        assert word in str(caught.value)


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
        ("data.found.classes=3", ["data.found", "leave it away"]),
        ("model.name=conv8", ["model=conv8", "12x12"]),
    ],
)
def test_wrong_settings_of_image_files(compose: Compose, folder: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^(data\.|model=)") as caught:
        small(compose, folder, override)
    line = one_line(caught.value)
    for word in words:
        assert word in line


def test_what_is_found_is_what_the_run_is(compose: Compose, tmp_path: Path) -> None:
    one, same = (small(compose, make_folder(tmp_path / name)) for name in ("one", "same"))
    info = info_of(one.data)
    assert (info.shape, info.classes, info.train, info.test) == ((3, 12, 12), 3, 24, 12)
    assert folder_name(one) == folder_name(same)  # where it lies is nothing
    assert folder_name(small(compose, tmp_path / "one", "data.workers=3")) == folder_name(one)
    assert projection(one)["data"]["found"]["digest"] == one.data.found.digest
    for name, change in (("other", {"classes": 4}), ("more", {"train": 9}), ("type", {"suffix": "bmp"})):
        assert folder_name(small(compose, make_folder(tmp_path / name, **change))) != folder_name(one)


@contextmanager
def opened(config: Config) -> Iterator[Feed]:
    with open_feed(config, "cpu") as feed:
        yield feed


def shown(config: Config, epoch: int = 1, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    with opened(config) as feed:
        return list(feed.train.epoch(7, epoch, start))


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
    with open_test(config, "cpu") as test:
        [(images, labels)] = list(test)
        assert labels.equal(test.labels)
    order = {Path(path).name: number for number, (path, _) in enumerate(theirs.samples)}
    listed = [order[Path(path).name] for path in list_images("tiny_imagenet", folder).test]
    torch.testing.assert_close(images, torch.stack([theirs[each][0] for each in listed]), rtol=0, atol=1e-5)
    assert labels.tolist() == [theirs[each][1] for each in listed]


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
    paths = [str(folder / path) for path in list_images("tiny_imagenet", folder).train]
    with opened(config) as feed:
        batches = list(feed.train.epoch(7, 1))
        assert feed.train.images_in_epoch == 24
        assert len(feed.train) == len(batches) == 5
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
    with opened(config) as feed:
        next(feed.train.epoch(7, 0))
        assert feed.validation is not None
        held = list(feed.validation)
        assert_same(list(feed.train.epoch(7, 1)), whole)
        assert_same(list(feed.validation), held)
        assert len(multiprocessing.active_children()) == 2
        # Held out images are shown as in evaluation, and none of them is trained on.
        assert sum(len(labels) for _, labels in held) + feed.train.images_in_epoch == 24
    assert multiprocessing.active_children() == []


def test_skipped_images_are_not_read(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    config = small(compose, root, "data.workers=0", "data.validation=0")
    whole = shown(config)
    with opened(config) as feed:
        assert isinstance(feed.train, FolderBatches)
        files = feed.train.reader._loader.dataset
        order = torch.randperm(24, generator=torch.Generator().manual_seed(derive(7, "order", 1)))[:10].tolist()
    for image in order:
        (root / files.paths[image].decode()).write_bytes(b"")  # type: ignore[attr-defined]
    assert_same(shown(config, start=2), whole[2:])
    with pytest.raises(DataError, match="cannot be read"):
        shown(config, start=1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "content", [b"", b"no image", None, "gone"], ids=["empty", "text", "half a picture", "taken away"]
)
def test_an_unreadable_image_is_named(compose: Compose, tmp_path: Path, workers: int, content: Any) -> None:
    root = make_folder(tmp_path, suffix="jpg")
    config = small(compose, root, f"data.workers={workers}", f"out={tmp_path / 'runs'}")
    path = root / "train" / "n01" / "n01_3.jpg"
    if content == "gone":
        target = path.with_name("elsewhere")
        path.rename(target)
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(path.read_bytes()[:300] if content is None else content)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert str(path) in outcome.message
    assert "cannot be read as an image" in outcome.message
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_an_error(compose: Compose, folder: Path) -> None:
    with opened(small(compose, folder, "data.workers=2", "train.batch_size=1")) as feed:
        batches = feed.train.epoch(7, 0)
        next(batches)
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(RuntimeError, match=r"worker.*(killed|exited)"):
            list(batches)
    assert multiprocessing.active_children() == []


def _hands_over(begin: Callable[[int], None], pipe: Connection) -> None:
    begin(0)
    pipe.send(DupFd(1))
    pipe.recv()
    sys.excepthook(ValueError, ValueError("another error"), None)
    sys.stderr.flush()
    os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="there alone are workers forked, and hand over by sockets")
def test_a_worker_says_nothing_of_a_run_that_goes_away(capfd: pytest.CaptureFixture[str]) -> None:
    """As a run does that is killed while it fetches images."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    worker = context.Process(target=_hands_over, args=(begin_worker(), its))
    worker.start()
    shared = ours.recv()
    address = shared._id[0]
    Client(address, authkey=multiprocessing.current_process().authkey).close()
    os.close(shared.detach())  # it serves the next one
    ours.send("end")
    worker.join(60)
    assert capfd.readouterr().err == "ValueError: another error\n"


class Owner:
    """Refers to itself, so that only the garbage collector destroys it, and says where."""

    def __init__(self, told: Path) -> None:
        self.me, self.told = self, told

    def __del__(self) -> None:
        with self.told.open("a") as file:
            print(os.getpid(), file=file)


def _collects(begin: Callable[[int], None]) -> None:
    begin(0)
    gc.collect()
    os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="there alone are workers forked")
def test_a_worker_leaves_to_the_run_what_it_no_longer_needs(tmp_path: Path) -> None:
    """Objects of torch that own threads abort the process where a fork destroys them."""
    gc.disable()
    try:
        Owner(tmp_path / "told")
        worker = multiprocessing.get_context("fork").Process(target=_collects, args=(begin_worker(),))
        worker.start()
        worker.join(60)
        gc.collect()
    finally:
        gc.enable()
    assert (tmp_path / "told").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_changed_is_another_run(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    config = small(compose, root)
    picture(9).save(root / "train" / "n00" / "new.png")
    with pytest.raises(DataError, match=r"25 \+ 12 images.*then 3, 24 \+ 12.*give the command again"), opened(config):
        pass
