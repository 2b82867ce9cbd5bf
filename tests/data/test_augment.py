"""data.augment: transforms of torchvision by name, the same for an image whoever asks for it, and what is refused."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.folder_runs import small as small_folder
from helpers.image_folders import make_folder
from helpers.runs import QUIET, assert_same_run, interrupt, small
from torch import Tensor
from torchvision.transforms import v2

from hidden_subnet.config.identity import id_of, projection
from hidden_subnet.config.settings import Config
from hidden_subnet.data.augment import Augment, refuse_wrong_transforms
from hidden_subnet.data.catalog import INFO
from hidden_subnet.data.in_memory import Batches
from hidden_subnet.data.interfaces import Shard, shared
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.plan import print_plan
from hidden_subnet.seeding import derive
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.training.experiment import open_images, resolve

Compose = Callable[..., Config]
TURNED = {"RandomRotation": {"degrees": 30}}
MANY = ["RandomVerticalFlip", TURNED, {"RandomErasing": {"p": 0.9}}, {"ColorJitter": {"brightness": 0.5}}]
PIXELS = torch.randint(0, 256, (23, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def by_image(batch_size: int, shard: Shard | None = None, start: int = 0, **given: Any) -> dict[int, Tensor]:
    """Return the images of an epoch by their number, which is their label."""
    labels = torch.arange(len(PIXELS))
    batches = Batches(PIXELS, labels, INFO["cifar10"], batch_size=batch_size, crop=2, flip=True, device="cpu", **given)
    mine = batches if shard is None else shared(batches, shard)
    return {int(n): each for images, labels in mine.epoch(3, 1, start) for n, each in zip(labels, images, strict=True)}


def test_an_image_is_what_torchvision_makes_of_it() -> None:
    augment = Augment([{"RandomVerticalFlip": {"p": 1}}, {"RandomRotation": {"degrees": [90, 90]}}])
    assert augment(PIXELS, torch.arange(23), 0, 0).equal(PIXELS.flip(2).rot90(1, (2, 3)))
    theirs = v2.Compose([v2.RandomVerticalFlip(), v2.RandomRotation(30), v2.RandomErasing(0.9), v2.ColorJitter(0.5)])
    found = Augment(MANY)(PIXELS[:5], torch.tensor([4, 0, 7, 7, 2]), 11, 6)
    for place, number in enumerate([4, 0, 7, 7, 2]):
        torch.manual_seed(derive(11, "augment", 6, number))
        assert found[place].equal(theirs(PIXELS[place]))


def test_it_depends_on_seed_epoch_and_image_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole = by_image(23, augment=Augment(MANY))
    assert torch.get_rng_state().equal(before)
    parts = [by_image(4, augment=Augment(MANY)), by_image(4, augment=Augment(MANY), start=3)]
    ranks = [by_image(6, (rank, 2), augment=Augment(MANY)) for rank in (0, 1)]
    assert ranks[0].keys() | ranks[1].keys() == parts[0].keys() == whole.keys()
    for part in (*parts, *ranks):
        assert part
        assert all(image.equal(whole[number]) for number, image in part.items())
    images, numbers = PIXELS[:2], torch.tensor([0, 1])
    others = [Augment(MANY)(images, numbers, seed, epoch) for seed, epoch in ((0, 0), (1, 0), (0, 1))]
    assert not others[0].equal(others[1])
    assert not others[0].equal(others[2])


def test_crop_and_flip_stay_as_they_are_without_it() -> None:
    plain, nothing = by_image(5), by_image(5, augment=Augment([{"RandomInvert": {"p": 0}}]))
    assert all(image.equal(plain[number]) for number, image in nothing.items())


def test_with_a_fraction_of_the_images_each_is_transformed_as_among_all(compose: Compose) -> None:
    words = ("data=digits", "data.augment=[{RandomRotation:{degrees:30}}]")
    found = []
    for part in ("data.fraction=1", "data.fraction=0.1"):
        with open_images(resolve(compose(*words, part), "cpu")) as loaders:
            found.append({image.numpy().tobytes() for images, _ in loaders.train.epoch(0, 0) for image in images})
    assert found[1] < found[0]


def test_pixels_whose_white_is_not_255_are_fractions_of_it_to_the_transforms() -> None:
    digits = torch.tensor([0, 4, 16], dtype=torch.uint8).view(1, 1, 1, 3)
    inverted = Augment([{"RandomInvert": {"p": 1}}], white=16)(digits, torch.tensor([0]), 0, 0)
    assert inverted.tolist() == [[[[16, 12, 0]]]]
    assert inverted.dtype == torch.float32


def test_images_in_folders_have_the_same_transforms_with_any_number_of_workers(
    compose: Compose, tmp_path: Path
) -> None:
    root = make_folder(tmp_path)
    shown = []
    # The images without it, and with it by the process itself and by two workers.
    for words in (["data.workers=0"], *(["data.augment=[RandomInvert]", f"data.workers={n}"] for n in (0, 2))):
        with open_images(resolve(small_folder(compose, root, "data.validation=0", *words), "cpu")) as loaders:
            shown.append(torch.cat([images for images, _ in loaders.train.epoch(7, 1)]))
            assert loaders.train.images_in_epoch == 24
    assert shown[1].equal(shown[2])
    same = [one.equal(other) for one, other in zip(shown[0], shown[1], strict=True)]
    assert 4 < sum(same) < 20  # the others are inverted


def test_a_run_is_resumed_to_the_bit(tmp_path: Path) -> None:
    def config(out: str) -> Config:
        given = small(tmp_path / out, epochs=2)
        return replace(given, data=replace(given.data, augment=[TURNED, "RandomErasing"]))

    whole = execute(config("whole"), QUIET)
    assert whole.state == "done", whole.message
    interrupt(config("cut"), 7)
    assert_same_run(whole.folder, execute(config("cut"), QUIET).folder)


def test_it_is_part_of_the_id_where_it_is_set_and_written_in_one_way(compose: Compose) -> None:
    assert "augment" not in projection(compose())["data"]
    ids = {id_of(compose(f"data.augment=[{each}]")) for each in ("RandomErasing", "{RandomErasing:{}}", "")}
    assert ids == {id_of(compose()), id_of(compose("data.augment=[RandomErasing]"))}
    assert len(ids) == 2
    typed = "data.augment=[RandomInvert,{RandomAffine:{translate:[0.1,0.1],degrees:5}}]"
    config = compose(typed)
    assert config.data.augment == ["RandomInvert", {"RandomAffine": {"degrees": 5, "translate": [0.1, 0.1]}}]
    assert id_of(config) == id_of(
        compose(typed.replace("translate:[0.1,0.1],degrees:5", "degrees:5,translate:[0.1,0.1]"))
    )
    assert id_of(compose(typed, "method=random")) == id_of(compose("method=random"))


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ("RandomRotaton", "[RandomRotaton]: torchvision.transforms.v2 has no such transform (near: RandomRotation, "
                          "RandomCrop, RandomErasing); did you mean: 'data.augment=[RandomRotation]'"),
        ("Nonsense", "[Nonsense]: torchvision.transforms.v2 has no such transform; as in: "),
        ("RandomRotation", "[RandomRotation]: RandomRotation needs degrees (of its arguments degrees, interpolation, "
                           "expand, center, fill); as in: "),
        ({"RandomRotation": {"degree": 9}}, "[{RandomRotation:{degree:9}}]: RandomRotation has no argument degree "
         "(degrees, interpolation, expand, center, fill); as in: 'data.augment=[{RandomRotation:{degrees:9}}]'"),
        ({"RandomRotation": {"degrees": -9}}, "[{RandomRotation:{degrees:-9}}]: torchvision refuses it (If degrees"),
        ({"RandomErasing": {"p": 2}}, "[{RandomErasing:{p:2}}]: torchvision refuses it "),
        ({"Resize": {"size": 10}}, "[{Resize:{size:10}}]: must keep size and type of an image (3x32x32 uint8), and "
                                   "makes 3x10x10 uint8; as in: "),
        ({"FiveCrop": {"size": 10}}, "[{FiveCrop:{size:10}}]: must keep size and type of an image (3x32x32 uint8), "
                                     "and makes a tuple; as in: "),
        ("MixUp", "[MixUp]: does not take an image of 3x32x32 uint8 alone (ValueError: labels"),
        (3, "[3]: each is the name of a transform, or its name with its arguments; as in: "),
        ({"RandomErasing": 0.5}, "[{RandomErasing:0.5}]: each is the name of a transform, or its name with its "),
        ({"RandomApply": {"transforms": ["Nonsens"]}}, "[Nonsens]: torchvision.transforms.v2 has no such transform"),
    ],
)  # fmt: skip
def test_a_wrong_transform_is_refused_in_one_line(item: Any, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_wrong_transforms([item], (3, 32, 32), 255)
    assert str(caught.value).startswith(f"data.augment={line}")
    assert "\n" not in str(caught.value)


def test_a_wrong_transform_is_refused_before_anything_starts_and_in_a_plan(compose: Compose, tmp_path: Path) -> None:
    config = compose("data.augment=[Nonsense]", f"out={tmp_path / 'runs'}")
    for start in (preflight, print_plan):
        with pytest.raises(ConfigError, match=r"^data\.augment=\[Nonsense\]: "):
            start([config])  # type: ignore[operator]
    assert not (tmp_path / "runs").exists()


def test_transforms_within_transforms_and_members_of_enums_have_names() -> None:
    nested = {"RandomApply": {"transforms": [{"RandomInvert": {"p": 1}}], "p": 1}}
    assert Augment([nested])(PIXELS, torch.arange(23), 0, 0).equal(255 - PIXELS)
    for item in (
        {"AutoAugment": {"policy": "cifar10"}},
        {"RandomRotation": {"degrees": 9, "interpolation": "bilinear"}},
    ):
        refuse_wrong_transforms([item], (3, 32, 32), 255)


def without_arguments() -> list[str]:
    """Return the names of the transforms that need no argument."""
    kinds = {name: each for name, each in vars(v2).items() if inspect.isclass(each) and issubclass(each, v2.Transform)}
    has = {name: inspect.signature(kind).parameters.values() for name, kind in kinds.items()}
    return [name for name, given in has.items() if all(each.default is not each.empty for each in given)]


def test_every_transform_draws_from_the_generator_that_is_seeded() -> None:
    image = PIXELS[0].repeat(1, 4, 4)
    taken = []
    for name in without_arguments():
        try:
            refuse_wrong_transforms([name], (3, 32, 32), 255)
        except ConfigError:
            continue
        taken.append(name)
        augment = Augment([name])
        with torch.random.fork_rng(devices=[]):
            assert all(augment.of_image(image, 1, 2, n).equal(augment.of_image(image, 1, 2, n)) for n in range(5)), name
    assert {"RandAugment", "TrivialAugmentWide", "AugMix", "RandomErasing", "RandomPerspective"} <= {*taken}
