"""Listing of image folders in both layouts, and the line about folders that are wrong."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree as remove
from typing import Any

import pytest
from helpers.image_folders import make_folder, picture

from hidden_subnet.config.registries import DATA
from hidden_subnet.data.folder_listing import Listing, list_images
from hidden_subnet.errors import DataError
from hydra_plugins.hidden_subnet.errors import one_line


def listed(name: str, root: Path) -> Listing:
    return list_images(DATA[name].folders, name, root)


@pytest.mark.parametrize("below", ["", "imagenet", "ILSVRC2012"])
def test_an_image_folder_is_found(tmp_path: Path, below: str) -> None:
    make_folder(tmp_path / below, classes=2, train=2, val=1)
    (tmp_path / below / "train" / "n00" / "notes.txt").write_text("no image")
    (tmp_path / below / "train" / "n00" / "._n00_0.png").write_text("what macOS adds")
    (tmp_path / below / "train" / "README").write_text("no class")
    found = listed("imagenet", tmp_path)
    assert found.folder == tmp_path / below
    assert found.classes == ["n00", "n01"]
    assert found.train == [f"train/n0{label}/n0{label}_{number}.png" for label in (0, 1) for number in (0, 1)]
    assert found.train_labels == [0, 0, 1, 1]
    assert found.test == ["val/n00/val_1.png", "val/n01/val_0.png"]
    assert found.test_labels == [0, 1]


def test_both_layouts_are_the_same_set(tmp_path: Path) -> None:
    archive = listed("tiny_imagenet", make_folder(tmp_path / "a" / "tiny-imagenet-200", annotated=True).parent)
    sorted_in = listed("tiny_imagenet", make_folder(tmp_path / "b"))
    assert archive.digest == sorted_in.digest
    assert (archive.train_labels, archive.test_labels) == (sorted_in.train_labels, sorted_in.test_labels)
    for one, other in zip([*archive.train, *archive.test], [*sorted_in.train, *sorted_in.test], strict=True):
        assert (archive.folder / one).read_bytes() == (sorted_in.folder / other).read_bytes()
    assert archive.test[0] == "val/images/val_1.png"  # not in the order of their names, but of their classes
    assert archive.train[0] == "train/n00/images/n00_0.png"


def test_emptied_images_are_no_class(tmp_path: Path) -> None:
    """Ignore the folder that is left when Tiny ImageNet's validation images are moved into folders."""
    root = make_folder(tmp_path)
    before = listed("tiny_imagenet", root)
    (root / "val" / "images").mkdir()
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn00\t0\t0\t9\t9\n")
    assert listed("tiny_imagenet", root) == before


# (name, damage, what the line must contain)
WRONG: list[tuple[str, Callable[[Path], Any], list[str]]] = [
    ("no val", lambda root: remove(root / "val"), ["data=imagenet", "train/ and val/", "data.root="]),
    (
        "nothing",
        lambda root: [remove(root / split) for split in ("train", "val")],
        ["train/ and val/", "data.root="],
    ),
    ("a file", lambda root: [remove(root / "val"), (root / "val").touch()], ["train/ and val/"]),
    (
        "no classes",
        lambda root: [remove(root / "val" / f"n0{label}") for label in range(5)],
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
        lambda root: [remove(path) for path in root.glob("*/n0[1-4]")],
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
        ["train/n00/more/n00: is a link to a folder that contains it"],
    ),
    ("a class less", lambda root: remove(root / "val" / "n03"), ["the same classes; only in train: n03"]),
]


@pytest.mark.parametrize(("damage", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_folders_are_named(tmp_path: Path, damage: Callable[[Path], Any], words: list[str]) -> None:
    root = make_folder(tmp_path, classes=5, train=2, val=1)
    damage(root)
    with pytest.raises(DataError) as caught:
        listed("imagenet", root)
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
        listed("tiny_imagenet", tmp_path)
    assert "\n" not in str(caught.value)
    for word in ["val_annotations.txt", *words]:
        assert word in str(caught.value)
