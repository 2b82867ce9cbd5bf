"""Other images are another run: the content of files is part of the id, and compared whenever they are opened."""

import gzip
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.folder_runs import Compose, small
from helpers.image_folders import make_folder, picture
from helpers.one_line import assert_one_line
from helpers.other_kinds import KINDS
from helpers.runs import QUIET
from helpers.time_limit import within

import hidden_subnet
from hidden_subnet.analysis.evaluate import rebuilt
from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.registries import DATA, info_of
from hidden_subnet.config.settings import Config, Data, Device
from hidden_subnet.data import folder_content, idx
from hidden_subnet.data.folder_content import content_digest
from hidden_subnet.data.folder_listing import list_images
from hidden_subnet.data.found_images import find_images, found_by_name
from hidden_subnet.errors import DataError
from hidden_subnet.sweep.execute import execute


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# Image folders


def digest(root: Path) -> str:
    return content_digest(list_images(DATA["imagenet"].folders, "imagenet", root))


def moved(root: Path) -> Path:
    return root.rename(root.with_name("moved"))


def linked(root: Path) -> Path:
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


def copied(root: Path) -> Path:
    return Path(shutil.copytree(root, root.with_name("copy")))


def below(root: Path) -> Path:
    """Put the images one folder deeper, and move the whole set to where it is looked for in a root."""
    for inner in root.glob("*/n*"):
        (inner / "images").mkdir()
        for path in inner.glob("*.bmp"):
            path.rename(inner / "images" / path.name)
    root.rename(root.with_name("imagenet"))
    return root.parent


@pytest.mark.parametrize("change", [moved, linked, copied, below])
def test_the_same_images_elsewhere_are_the_same(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    root = make_folder(tmp_path / "root", suffix="bmp", train=3, val=2)
    before = digest(root)
    assert digest(change(root)) == before


def test_both_layouts_of_the_same_images_are_the_same(tmp_path: Path) -> None:
    assert digest(make_folder(tmp_path / "a", annotated=True)) == digest(make_folder(tmp_path / "b"))


def one_pixel(root: Path) -> None:
    path = root / "val" / "n02" / "val_0.bmp"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def swapped(root: Path) -> None:
    """Swap two images: the label of each is that of the other."""
    one, other = root / "train" / "n00" / "n00_1.bmp", root / "train" / "n01" / "n01_1.bmp"
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


CHANGES: list[Callable[[Path], Any]] = [
    one_pixel,
    swapped,
    lambda root: (root / "train" / "n00" / "n00_1.bmp").rename(root / "train" / "n01" / "n00_1.bmp"),
    lambda root: (root / "train" / "n00" / "n00_1.bmp").unlink(),
    lambda root: (root / "train" / "n00" / "n00_1.bmp").rename(root / "train" / "n00" / "n00_9.bmp"),
    lambda root: picture(0).save(root / "train" / "n00" / "new.bmp"),
    lambda root: [path.rename(path.with_name("other")) for path in root.glob("*/n00")],
]


@pytest.mark.parametrize(
    "change", CHANGES, ids=["pixel", "swapped", "relabelled", "removed", "renamed", "added", "class renamed"]
)
def test_other_images_are_others(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    root = make_folder(tmp_path / "root", suffix="bmp")
    before = digest(root)
    change(root)
    assert digest(root) != before


def test_other_labels_of_the_annotated_layout_are_others(tmp_path: Path) -> None:
    """In classes of one image, labels that are swapped leave the files and their order as they are."""
    root = make_folder(tmp_path, annotated=True, val=1)
    before = digest(root)
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n00", "nxx").replace("n01", "n00").replace("nxx", "n01"))
    assert digest(root) != before


def test_of_a_large_set_sizes_and_a_sample_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_content, "WHOLE", 0)
    monkeypatch.setattr(folder_content, "SAMPLE", 12)  # of 36: two of each class in train, one in val
    root = make_folder(tmp_path / "root", suffix="bmp")
    before = digest(root)
    seen = set()
    for path in sorted(root.rglob("*.bmp")):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        if digest(root) != before:
            seen.add(path.stem)
        path.write_bytes(content + b"\0")
        assert digest(root) != before  # another size is always seen
        path.write_bytes(content)
    assert seen == {"n00_0", "n00_4", "n01_0", "n01_4", "n02_0", "n02_4", "val_1", "val_11", "val_0"}
    assert digest(root) == before


def test_what_is_found_is_what_the_run_is(compose: Compose, tmp_path: Path) -> None:
    one, same = (small(compose, make_folder(tmp_path / name)) for name in ("one", "same"))
    info = info_of(one.data)
    assert (info.shape, info.classes, info.train, info.test) == ((3, 12, 12), 3, 24, 12)
    assert folder_name(one) == folder_name(same)  # where it lies is nothing
    assert folder_name(small(compose, tmp_path / "one", "data.workers=3")) == folder_name(one)
    assert projection(one)["data"]["found"]["digest"] == one.data.found.digest
    for name, change in (("other", {"classes": 4}), ("more", {"train": 9}), ("type", {"suffix": "bmp"})):
        assert folder_name(small(compose, make_folder(tmp_path / name, **change))) != folder_name(one)


@pytest.mark.parametrize("make", KINDS)
def test_an_image_that_cannot_be_read_is_named_before_the_run(
    compose: Compose, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    root = make_folder(tmp_path)
    path = root / "train" / "n01" / "n01_3.png"
    path.unlink()
    make(path)
    with pytest.raises(DataError) as error, within(30):
        small(compose, root)
    assert_one_line(error.value, [str(path), "cannot be read", "replace it"])


def noise(root: Path) -> None:
    """Put other images into all files."""
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        picture(9000 + number).save(path)


@pytest.mark.parametrize("begun", [False, True], ids=["before its first step", "before it is resumed"])
def test_a_run_whose_images_were_replaced_ends_in_a_line(compose: Compose, tmp_path: Path, begun: bool) -> None:
    root = make_folder(tmp_path / "images")
    config = small(compose, root, "data.workers=0", f"out={tmp_path / 'runs'}")
    if begun:
        taken: list[int] = []
        observer = replace(QUIET, on_step=lambda epoch, batch, batches: taken.append(batch))
        assert execute(config, observer, stopped=lambda: len(taken) >= 2).state == "interrupted"
    noise(root)
    outcome = execute(config, QUIET)  # as a worker does, which does not compose it
    assert outcome.state == "failed"
    now = small(compose, root)
    words = [str(root), config.data.found.digest, now.data.found.digest, "have changed", "give the command again"]
    assert "\n" not in outcome.message
    assert all(word in outcome.message for word in words), outcome.message
    assert folder_name(now) != folder_name(config)


def test_a_finished_run_is_not_measured_on_other_images(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images")
    config = small(compose, root, "data.workers=0", "train.epochs=1", f"out={tmp_path / 'runs'}")
    done = execute(config, QUIET)
    moved(root)
    make_folder(root)
    noise(root)
    with pytest.raises(DataError, match=f"have changed.*then 3 classes, 24 \\+ 12 images .{config.data.found.digest}"):
        hidden_subnet.test_images(done.folder)
    with pytest.raises(DataError, match="have changed"), rebuilt(done.folder, Device.auto):
        pass
    with rebuilt(done.folder, Device.auto, str(tmp_path / "moved")) as (experiment, _):
        assert len(experiment.test_images.labels) == 12


# Runs of versions that knew images by name only


def older(config: Config, root: Path) -> Config:
    """The config as version 0.1.0 composed it."""
    listing = list_images(DATA["tiny_imagenet"].folders, "tiny_imagenet", root)
    return replace(config, data=replace(config.data, found=found_by_name(listing)))


@pytest.mark.parametrize("state", ["done", "interrupted"])
def test_an_older_run_is_taken_only_if_its_names_are_trusted(compose: Compose, tmp_path: Path, state: str) -> None:
    root, out = make_folder(tmp_path / "images"), f"out={tmp_path / 'runs'}"
    settings = ["data.workers=0", "train.epochs=2", out]
    new = small(compose, root, *settings)
    old = older(new, root)
    old.data.trust_names = True
    taken: list[int] = []
    observer = replace(QUIET, on_step=lambda epoch, batch, batches: taken.append(batch))
    stopped = (lambda: len(taken) >= 2) if state == "interrupted" else None
    before = execute(old, observer, stopped=stopped)
    assert before.state == state
    with pytest.raises(DataError) as error:
        small(compose, root, *settings)
    assert_one_line(error.value, [str(before.folder), "data.trust_names=true", "force=true"])
    trusting = small(compose, root, *settings, "data.trust_names=true")
    assert folder_name(trusting) == folder_name(old) != folder_name(new)
    assert execute(trusting, QUIET).state == ("skipped" if state == "done" else "done")
    assert len(hidden_subnet.test_images(before.folder)[1]) == 12
    # Another command, or the run again, has the new id.
    assert folder_name(small(compose, root, "out=elsewhere", "data.trust_names=true")) == folder_name(new)
    forced = small(compose, root, *settings, "force=true")
    assert folder_name(forced) == folder_name(new)
    assert execute(forced, QUIET).state == "done"
    assert folder_name(small(compose, root, *settings)) == folder_name(new)


def test_a_worker_does_not_trust_names_by_itself(compose: Compose, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images")
    outcome = execute(older(small(compose, root, "data.workers=0", f"out={tmp_path / 'runs'}"), root), QUIET)
    assert outcome.state == "failed"
    assert "composed by an older version" in outcome.message
    assert "give the command again" in outcome.message


# Files in memory

TINY = DataInfo((1, 3, 2), 10, 12, 10, (0.5,), (0.25,))


def write_mnist(root: Path, zipped: bool = False, **changes: Any) -> None:
    root.mkdir(exist_ok=True)
    random = np.random.RandomState(0)
    arrays = {
        "train-images-idx3-ubyte": random.randint(0, 256, (12, 3, 2)),
        "train-labels-idx1-ubyte": np.arange(12) % 10,
        "t10k-images-idx3-ubyte": random.randint(0, 256, (10, 3, 2)),
        "t10k-labels-idx1-ubyte": np.frombuffer(idx.FIRST_TEST_LABELS["mnist"], np.uint8),
    }
    for name, array in arrays.items():
        magic = 0x0800 + array.ndim
        content = b"".join(n.to_bytes(4, "big") for n in (magic, *array.shape)) + array.astype(np.uint8).tobytes()
        if name == "train-labels-idx1-ubyte" and "label" in changes:
            content = content[:-1] + bytes([changes["label"]])
        (root / f"{name}{'.gz' * zipped}").write_bytes(gzip.compress(content) if zipped else content)


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compose: Compose) -> Callable[..., Config]:
    """mnist(root, ...): a run on a mnist of a few images, whose published files are what write_mnist writes."""
    entry = replace(DATA["mnist"], info=TINY, read=partial(idx.read, "mnist", info=TINY))
    monkeypatch.setitem(DATA, "mnist", entry)
    write_mnist(tmp_path / "published")
    sums = tuple(hashlib.md5((tmp_path / "published" / name).read_bytes()).hexdigest() for name in idx.FILES)
    monkeypatch.setitem(idx.PUBLISHED, "mnist", sums)
    parts = ["data=mnist", "model=fc", "tracker=none", "model.width=0.1", "train.epochs=1", "train.batch_size=4"]
    return lambda root, *more: compose(*parts, f"data.root={root}", f"out={tmp_path / 'runs'}", *more)


def test_published_files_add_nothing_to_the_id(tmp_path: Path, mnist: Callable[..., Config]) -> None:
    write_mnist(tmp_path / "zipped", zipped=True)
    names = {folder_name(mnist(tmp_path / root)) for root in ("published", "zipped", "not there yet")}
    assert len(names) == 1
    assert "found" not in projection(mnist(tmp_path / "published"))["data"]


def test_repaired_labels_are_another_run(tmp_path: Path, mnist: Callable[..., Config]) -> None:
    write_mnist(tmp_path / "repaired", label=5)
    published, repaired = mnist(tmp_path / "published"), mnist(tmp_path / "repaired")
    content = repaired.data.found.digest
    assert folder_name(repaired).startswith(f"mnist.{content[:6]}-fc-")
    assert folder_name(repaired)[-12:] != folder_name(published)[-12:]
    outcome = execute(repaired, QUIET)
    assert outcome.state == "done", outcome.message
    write_mnist(tmp_path / "repaired", label=6)
    with pytest.raises(DataError, match=f"have changed.*then {content}"):
        hidden_subnet.test_images(outcome.folder)


def test_files_that_came_after_the_run_was_composed_are_looked_at(tmp_path: Path, mnist: Callable[..., Config]) -> None:
    config = mnist(tmp_path / "later")
    write_mnist(tmp_path / "later", label=5)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "the images of data=mnist have changed" in outcome.message
    assert "then the published files" in outcome.message


@pytest.mark.skipif(
    idx.find("fashion_mnist", Path("nowhere")) is None, reason="Debian's dataset-fashion-mnist is not installed"
)
def test_debians_fashion_mnist_is_the_published_one(tmp_path: Path) -> None:
    """It is compressed by another program than the files that are downloaded."""
    assert find_images(Data(name="fashion_mnist", root=str(tmp_path)))[0].digest == ""


def test_images_that_come_with_the_installation_are_not_looked_for(tmp_path: Path) -> None:
    for name in ("digits", "synthetic"):
        assert find_images(Data(name=name, root=str(tmp_path / "nowhere")))[0].digest == ""


def test_a_damaged_file_is_named_before_the_run(tmp_path: Path, mnist: Callable[..., Config]) -> None:
    write_mnist(tmp_path / "broken", zipped=True)
    path = tmp_path / "broken" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError) as error:
        mnist(tmp_path / "broken")
    assert_one_line(error.value, [str(path), "cannot be read", "replace it"])
