"""Shuffling, cropping, flipping, normalising: against torchvision's transforms and by hand."""

import pytest
import torch
import torchvision.transforms.functional as TF
from scipy.stats import binomtest, chisquare
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.data.catalog import INFO
from hidden_subnet.data.in_memory import Batches, EvaluationBatches, epoch_plan
from hidden_subnet.data.interfaces import shared

GREY = DataInfo((1, 2, 2), 10, 3, 3, (0.5,), (0.25,), max_value=4.0)


def random_images(n: int, info: DataInfo) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, int(info.max_value) + 1, (n, *info.shape), generator=generator, dtype=torch.uint8)
    return pixels, torch.arange(n)


def by_torchvision(image: Tensor, info: DataInfo, crop: int, dy: int, dx: int, flip: bool) -> Tensor:
    """RandomCrop(padding=crop), RandomHorizontalFlip, ToTensor, Normalize with the random choices given."""
    picture = TF.pad(TF.to_pil_image(image), [crop])
    picture = TF.crop(picture, dy, dx, *info.shape[1:])
    if flip:
        picture = TF.hflip(picture)
    normalised: Tensor = TF.normalize(TF.to_tensor(picture), info.mean, info.std)
    return normalised


def test_normalises_as_written_out() -> None:
    pixels = torch.tensor([[[[0, 1], [2, 4]]]], dtype=torch.uint8)
    batches = EvaluationBatches(pixels, torch.tensor([7]), GREY, "cpu")
    (images, labels), *rest = batches
    assert not rest
    # (raw / 4 - 0.5) / 0.25
    assert images.tolist() == [[[[-2.0, -1.0], [0.0, 2.0]]]]
    assert labels.tolist() == [7]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("n", [1, 5])
def test_images_of_any_width_are_mirrored(width: int, n: int) -> None:
    """Mirror rows whose pixels are moved in words of one to eight bytes."""
    info = DataInfo((2, 3, width), 10, n, 0, (0.0, 0.0), (1.0, 1.0), max_value=1.0)  # as they are
    pixels = torch.arange(n * 2 * 3 * width, dtype=torch.uint8).view(n, *info.shape)
    batches = Batches(pixels, torch.arange(n), info, batch_size=n, crop=0, flip=True, device="cpu")
    seen = set()
    for epoch in range(8):
        plan = epoch_plan(n, 0, epoch, crop=0, flip=True)
        [(images, labels)] = batches.epoch(0, epoch)
        assert labels.equal(plan.order)
        for image, number, flip in zip(images, plan.order.tolist(), plan.flip.tolist(), strict=True):
            assert torch.equal(image, (pixels[number].flip(-1) if flip else pixels[number]).float())
            seen.add(flip)
    assert seen == {True, False}


@pytest.mark.parametrize("crop", [0, 1])
def test_rank_without_an_image_has_an_empty_batch(crop: int) -> None:
    pixels, labels = random_images(3, GREY)
    batches = Batches(pixels, labels, GREY, batch_size=2, crop=crop, flip=True, device="cpu")
    sizes = [[len(labels) for _, labels in shared(batches, (rank, 2)).epoch(0, 0)] for rank in (0, 1)]
    assert sizes == [[1, 0], [1, 1]]  # the last batch has one image
    [_, (images, _)] = shared(batches, (0, 2)).epoch(0, 0)
    assert images.shape == (0, 1, 2, 2)


def test_padding_is_black_before_normalisation() -> None:
    white = torch.full((200, 1, 2, 2), 4, dtype=torch.uint8)
    batches = Batches(white, torch.arange(200), GREY, batch_size=200, crop=1, flip=False, device="cpu")
    images, _ = next(batches.epoch(0, 0))
    assert set(images.flatten().tolist()) == {-2.0, 2.0}


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
@pytest.mark.parametrize(("crop", "flip"), [(4, True), (4, False), (0, True), (0, False), (1, True)])
def test_equals_torchvision_with_the_same_choices(name: str, crop: int, flip: bool) -> None:
    info = INFO[name]
    pixels, labels = random_images(50, info)
    plan = epoch_plan(50, 3, 2, crop, flip)
    batches = Batches(pixels, labels, info, batch_size=20, crop=crop, flip=flip, device="cpu")
    shown = list(batches.epoch(3, 2))
    assert [len(images) for images, _ in shown] == [20, 20, 10]
    assert all(images.is_contiguous() and images.dtype == torch.float32 for images, _ in shown)
    expected = [
        by_torchvision(pixels[i], info, crop, dy, dx, flipped)
        for i, dy, dx, flipped in zip(
            plan.order.tolist(), plan.dy.tolist(), plan.dx.tolist(), plan.flip.tolist(), strict=True
        )
    ]
    assert torch.cat([labels for _, labels in shown]).equal(plan.order)
    torch.testing.assert_close(torch.cat([images for images, _ in shown]), torch.stack(expected), rtol=0, atol=1e-6)
    assert plan.flip.any() == flip


def test_digits_are_normalised_by_their_own_white() -> None:
    info = INFO["digits"]
    pixels, labels = random_images(10, info)
    ((images, _),) = EvaluationBatches(pixels, labels, info, "cpu")
    expected = TF.normalize(pixels / 16, info.mean, info.std)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


def test_offsets_and_flips_are_uniform() -> None:
    n = 81 * 500
    plan = epoch_plan(n, 0, 0, crop=4, flip=True)
    counts = (plan.dy * 9 + plan.dx).bincount()
    assert counts.numel() == 81
    assert counts.min() > 0
    assert chisquare(counts.numpy()).pvalue > 0.001
    assert binomtest(int(plan.flip.sum()), n).pvalue > 0.001
    # Flipped images are cropped as the others are.
    flipped = (plan.dy * 9 + plan.dx)[plan.flip].bincount(minlength=81)
    assert chisquare(flipped.numpy()).pvalue > 0.001


def test_plan_is_a_function_of_seed_and_epoch() -> None:
    plan, again = epoch_plan(1000, 5, 1, 4, True), epoch_plan(1000, 5, 1, 4, True)
    for one, two in (
        (plan.order, again.order),
        (plan.dy, again.dy),
        (plan.dx, again.dx),
        (plan.flip, again.flip),
    ):
        assert one.equal(two)
    for other in (epoch_plan(1000, 6, 1, 4, True), epoch_plan(1000, 5, 2, 4, True)):
        assert not plan.order.equal(other.order)
        assert not plan.dy.equal(other.dy)
        assert not plan.flip.equal(other.flip)
    assert not plan.dy.equal(plan.dx)


def test_order_and_crops_do_not_depend_on_the_other_choices() -> None:
    plan, unflipped, uncropped = (
        epoch_plan(100, 5, 1, 4, True),
        epoch_plan(100, 5, 1, 4, False),
        epoch_plan(100, 5, 1, 0, True),
    )
    assert plan.order.equal(unflipped.order)
    assert plan.order.equal(uncropped.order)
    assert plan.dy.equal(unflipped.dy)
    assert plan.flip.equal(uncropped.flip)
    assert not unflipped.flip.any()
    assert not uncropped.dy.any()


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 4, [3])])
def test_every_image_once_an_epoch_and_the_last_batch_kept(n: int, batch_size: int, sizes: list[int]) -> None:
    pixels, labels = random_images(n, GREY)
    batches = Batches(pixels, labels, GREY, batch_size=batch_size, crop=1, flip=True, device="cpu")
    for epoch in range(3):
        shown = [labels for _, labels in batches.epoch(0, epoch)]
        assert [len(labels) for labels in shown] == sizes
        assert sorted(torch.cat(shown).tolist()) == list(range(n))
    assert len(batches) == len(sizes)
    assert batches.images_in_epoch == n


def test_the_middle_of_an_epoch_is_reached_without_its_beginning() -> None:
    pixels, labels = random_images(50, INFO["cifar10"])

    def batches() -> Batches:
        return Batches(pixels, labels, INFO["cifar10"], batch_size=8, crop=4, flip=True, device="cpu")

    whole = list(batches().epoch(1, 4))
    for start in (0, 3, 6):
        rest = list(batches().epoch(1, 4, start=start))
        assert len(rest) == len(whole) - start
        for (images, shown), (expected, expected_labels) in zip(rest, whole[start:], strict=True):
            assert images.equal(expected)
            assert shown.equal(expected_labels)
    assert list(batches().epoch(1, 4, start=7)) == []


def test_a_batch_is_left_alone_by_the_next() -> None:
    pixels, labels = random_images(6, GREY)
    batches = Batches(pixels, labels, GREY, batch_size=2, crop=0, flip=False, device="cpu")
    stream = batches.epoch(0, 0)
    first, _ = next(stream)
    kept = first.clone()
    second, _ = next(stream)
    second.zero_()
    assert first.equal(kept)
    assert next(batches.epoch(0, 0))[0].equal(kept)


def test_evaluation_shows_all_in_order_again_and_again() -> None:
    pixels, labels = random_images(7, GREY)
    batches = EvaluationBatches(pixels, labels, GREY, "cpu", size=3)
    for _ in range(2):
        shown = list(batches)
        assert [len(labels) for _, labels in shown] == [3, 3, 1]
        assert torch.cat([labels for _, labels in shown]).equal(labels)
        assert torch.cat([images for images, _ in shown]).equal((pixels / 4 - 0.5) / 0.25)
    assert len(batches) == 3


@pytest.mark.gpu
def test_same_bits_on_a_gpu_and_no_synchronisation() -> None:
    pixels, labels = random_images(50, INFO["cifar10"])
    here, there = (
        Batches(pixels, labels, INFO["cifar10"], batch_size=8, crop=4, flip=True, device=device)
        for device in ("cpu", "cuda")
    )
    stream = there.epoch(1, 4)
    shown = [next(stream)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        shown += stream
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (images, shown_labels), (expected, expected_labels) in zip(shown, here.epoch(1, 4), strict=True):
        torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=1e-6)
        assert shown_labels.cpu().equal(expected_labels)


def test_golden_choices() -> None:
    """Seed 0's choices are part of what a run is: a change here changes what finished runs mean."""
    plan = epoch_plan(6, 0, 0, crop=4, flip=True)
    assert plan.order.tolist() == [3, 5, 2, 1, 0, 4]
    assert plan.dy.tolist() == [3, 8, 7, 8, 4, 6]
    assert plan.dx.tolist() == [1, 7, 5, 6, 8, 1]
    assert plan.flip.tolist() == [True, False, True, False, True, False]
