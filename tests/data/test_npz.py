"""A file of numpy's is a data set: its arrays under any of the usual names, in any of the usual shapes."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.other_kinds import pipe
from helpers.small_sets import GREY, LABELS, save_npz
from helpers.time_limit import within

from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config
from hidden_subnet.data.loaders import open_loaders
from hidden_subnet.errors import DataError
from hidden_subnet.store import files, sweeps

Compose = Callable[..., Config]
RGB = np.stack([GREY, GREY + 1, GREY + 2], axis=1)  # (N, C, H, W)


def composed(compose: Compose, path: Path, *more: str) -> Config:
    return compose("data=npz", f"data.file={path}", "model=fc", "data.validation=0", *more)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (RGB, RGB),
        (np.moveaxis(RGB, 1, 3), RGB),
        ((GREY / 255).astype(np.float32), (GREY[:, None] / 255).astype(np.float32)),
    ],
    ids=["N H W", "N 1 H W", "N H W 1", "N 3 H W", "N H W 3", "floats"],
)
def test_images_of_any_usual_shape(tmp_path: Path, compose: Compose, images: Any, expected: Any) -> None:
    config = composed(compose, save_npz(tmp_path / "x.npz", images, LABELS[:, None]))
    info = info_of(config.data)
    assert (info.shape, info.classes, info.train, info.test) == (expected.shape[1:], 3, 6, 3)
    fractions = expected / (255 if expected.dtype == np.uint8 else 1)
    with open_loaders(config.data, info, seed=0, batch_size=6, device="cpu") as loaders:
        [(test, labels)] = list(loaders.test)
    mean, std = (np.array(each).reshape(1, -1, 1, 1) for each in (info.mean, info.std))
    np.testing.assert_allclose(test.numpy() * std + mean, fractions[:3], atol=1e-6)
    np.testing.assert_allclose(mean.ravel(), fractions.mean((0, 2, 3)), atol=1e-6)
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
        ("x_train", "y_train", "x_test", "y_test"),  # Keras
        ("train", "train_labels", "test", "test_labels"),
    ],
)
def test_arrays_of_any_usual_name(tmp_path: Path, compose: Compose, names: tuple[str, ...]) -> None:
    parts = (GREY, LABELS, GREY[:3], LABELS[:3])
    np.savez_compressed(tmp_path / "x.npz", **dict(zip(names, parts, strict=True)))  # type: ignore[arg-type]
    assert info_of(composed(compose, tmp_path / "x.npz").data).shape == (1, 5, 4)


def test_numbers_in_the_file_go_before_those_of_the_images(tmp_path: Path, compose: Compose) -> None:
    info = info_of(composed(compose, save_npz(tmp_path / "x.npz", mean=[0.5], std=[0.25], classes=7)).data)
    assert (info.mean, info.std, info.classes) == ((0.5,), (0.25,), 7)


def test_the_content_is_part_of_the_id_and_the_path_is_not(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, same = composed(compose, save_npz(Path("x.npz"))), composed(compose, save_npz(tmp_path / "y.npz"))
    assert folder_name(one) == folder_name(same)
    other = composed(compose, save_npz(tmp_path / "z.npz", GREY + 1))
    assert folder_name(other) != folder_name(one)
    assert files.portable(one)["data"]["file"] == f"{tmp_path}/x.npz"  # for workers in other directories
    sweep = sweeps.write(sweeps.plan([one], "one"), {})
    assert sweep.configs == sweeps.read(sweep.folder).configs


def other_file(path: Path) -> None:
    path.write_text("no zip")


def half(path: Path) -> None:
    save_npz(path)
    path.write_bytes(path.read_bytes()[:300])


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, GREY)


def without_labels(path: Path) -> None:
    np.savez(path, train_images=GREY, test_images=GREY)


def objects(path: Path) -> None:
    save_npz(path, np.array([{}, {}, {}, {}, {}, {}], dtype=object))


def bomb(path: Path) -> None:
    np.savez_compressed(path, train_images=np.zeros((100, 1000, 1000), np.uint8))


def more_than_memory(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed, packed.open("train_images.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 60,)})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (pipe, "x.npz: cannot be read (is not a regular file); write it with numpy.savez, as in: np.savez("),
        (bomb, "x.npz: cannot be read (it unpacks to 95 MB, more than 100 times its size); write it with numpy.savez"),
        (more_than_memory, "x.npz: cannot be read ("),
        (None, "x.npz: cannot be read (No such file or directory); write it with numpy.savez, as in: np.savez("),
        (other_file, "x.npz: cannot be read ("),
        (half, "x.npz: cannot be read ("),
        (one_array, "x.npz: holds no arrays by name and no train_images; write it with numpy.savez, as in: np.savez("),
        (
            without_labels,
            "x.npz: holds train_images, test_images and no train_labels; write it with numpy.savez, as in",
        ),
        (objects, "x.npz: cannot be read ("),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(
    tmp_path: Path, compose: Compose, make: Callable[[Path], None] | None, words: str
) -> None:
    path = tmp_path / "x.npz"
    if make is not None:
        make(path)
    with pytest.raises(DataError) as caught, within(30):
        composed(compose, path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/{words}")
    assert "\n" not in line
    assert "as in: np.savez('images.npz', train_images=..., train_labels=..., test_images=..., test_labels=...)" in line


def test_the_file_must_be_named(compose: Compose) -> None:
    with pytest.raises(DataError, match=r"^data=npz: needs a file; type: data\.file=images\.npz$"):
        compose("data=npz")


@pytest.mark.parametrize("labels", [np.array([0, 1, 2, 0, 1, -1]), LABELS / 2, LABELS[:5]])
def test_wrong_labels_are_refused(tmp_path: Path, compose: Compose, labels: Any) -> None:
    with pytest.raises(DataError, match=r"^data=npz: train_labels "):
        composed(compose, save_npz(tmp_path / "x.npz", labels=labels))


def test_torch_reads_what_was_saved(tmp_path: Path, compose: Compose) -> None:
    config = composed(compose, save_npz(tmp_path / "x.npz"))
    with open_loaders(config.data, info_of(config.data), seed=0, batch_size=4, device="cpu") as loaders:
        images = torch.cat([images for images, _ in loaders.train.epoch(0, 0)])
    assert images.shape == (6, 1, 5, 4)
