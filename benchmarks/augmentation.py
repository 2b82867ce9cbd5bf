"""Microseconds an image from the stored pixels to the shuffled, cropped, flipped and normalised batch."""

import torch

from benchmarks.timing import Row, by_turns
from hidden_subnet.data.catalog import INFO
from hidden_subnet.data.in_memory import Batches


def rows(images: int, batch: int, rounds: int) -> list[Row]:
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(images) % 10
    batches = Batches(pixels, labels, INFO["cifar10"], batch_size=batch, crop=4, flip=True, device="cpu")

    def epoch() -> None:
        for _ in batches.epoch(seed=0, epoch=0):
            pass

    seconds = by_turns({"ours": epoch}, rounds)["ours"]
    topic = f"crop 4 and flip, {images:,} of 3x32x32"
    per_image = [1e6 * s / images for s in seconds]
    return [Row(topic=topic, name="ours", unit="us/image", samples=per_image, goal=8.0)]
