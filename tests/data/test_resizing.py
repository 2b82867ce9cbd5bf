"""Images enlarged, and windows of them: against torchvision's functions and its law."""

import math

import torch
import torchvision
from torchvision.transforms.v2 import functional as F

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.data.in_memory import Batches, EvaluationBatches, normalised, scale_and_shift
from hidden_subnet.data.resizing import AREA, RATIO, resized, resized_crops

GREY = DataInfo((1, 6, 6), 2, 0, 0, (0.5,), (0.25,))


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
