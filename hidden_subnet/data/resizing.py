"""Enlarges a batch on its device: each image as a whole, or a random window of it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hidden_subnet.seeding import generator

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""The constants of torchvision's RandomResizedCrop: fraction of the area, width / height (log-uniform), tries."""


def resized_crops(n: int, height: int, width: int, seed: int, epoch: int) -> Tensor:
    """Draw the windows of an epoch as RandomResizedCrop does: top, left, height and width of each, int64 (N, 4)."""
    random = torch.rand((n, 2 * TRIES + 2), dtype=torch.float64, generator=generator(seed, "resized_crop", epoch))
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * random[:, :TRIES])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * random[:, TRIES : 2 * TRIES])
    tall, wide = torch.sqrt(area / ratio).round().long(), torch.sqrt(area * ratio).round().long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.long().argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    # Where no try fits, the window is the whole image; that is right since all data sets in memory are nearly square.
    whole = ~fits.any(dim=1)
    tall, wide = torch.where(whole, height, tall), torch.where(whole, width, wide)
    top = (random[:, -2] * (height - tall + 1)).long()
    left = (random[:, -1] * (width - wide + 1)).long()
    return torch.stack([top, left, tall, wide], dim=1)


def resized(pixels: Tensor, windows: Tensor | None, size: int) -> Tensor:
    """Return the images (B, C, H, W), or their `windows` (B, 4), enlarged bilinearly to float32 (B, C, size, size).

    The result is that of cropping each window first: pixels outside of it have no effect. It is not rounded to bytes.
    """
    pixels = pixels.float()
    height, width = pixels.shape[-2:]
    if windows is None:
        windows = torch.tensor([[0, 0, height, width]], device=pixels.device).expand(len(pixels), 4)
    steps = (torch.arange(size, device=pixels.device) + 0.5) / size
    top, left, tall, wide = windows.float().unsqueeze(-1).unbind(dim=1)
    y = (top + steps * tall - 0.5).clamp(min=top, max=top + tall - 1)
    x = (left + steps * wide - 0.5).clamp(min=left, max=left + wide - 1)
    rows = ((2 * y + 1) / height - 1)[:, :, None].expand(-1, size, size)
    columns = ((2 * x + 1) / width - 1)[:, None, :].expand(-1, size, size)
    grid = torch.stack([columns, rows], dim=-1)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
