"""Enlarging a batch on its device, each image as a whole or a random window of it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hidden_subnet.seeding import generator

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""torchvision's RandomResizedCrop: share of the area, width over height (log-uniform), tries to fit in."""


def resized_crops(n: int, height: int, width: int, seed: int, epoch: int) -> Tensor:
    """An epoch's windows, int64 (n, 4): top, left, height and width of each, as RandomResizedCrop draws them."""
    random = torch.rand((n, 2 * TRIES + 2), dtype=torch.float64, generator=generator(seed, "resized_crop", epoch))
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * random[:, :TRIES])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * random[:, TRIES : 2 * TRIES])
    tall, wide = torch.sqrt(area / ratio).round().long(), torch.sqrt(area * ratio).round().long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.long().argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    # Where none of the tries fits, the whole of a nearly square image, which all sets are that lie in memory.
    whole = ~fits.any(dim=1)
    tall, wide = torch.where(whole, height, tall), torch.where(whole, width, wide)
    top = (random[:, -2] * (height - tall + 1)).long()
    left = (random[:, -1] * (width - wide + 1)).long()
    return torch.stack([top, left, tall, wide], dim=1)


def resized(pixels: Tensor, windows: Tensor | None, size: int) -> Tensor:
    """(B, C, H, W) or its `windows` (B, 4), bilinearly enlarged to float32 (B, C, size, size); not rounded to bytes.

    As cutting each window out and enlarging it: no pixel beside a window takes part.
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
