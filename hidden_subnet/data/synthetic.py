"""Images made from a fixed seed, for smoke tests: a random prototype a class, and noise on it."""

import numpy as np
import torch
from torch import Tensor

from hidden_subnet.data.info import Info


def read(info: Info) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, C, H, W) uint8 and labels int64, then the test set's; classes take turns."""
    random = np.random.RandomState(0)
    labels = np.arange(info.train + info.test, dtype=np.int64) % info.classes
    prototypes = random.normal(0.5, 0.15, (info.classes, *info.shape))
    noisy = prototypes[labels] + random.normal(0, 0.2, (len(labels), *info.shape))
    pixels = np.rint(noisy.clip(0, 1) * info.white).astype(np.uint8)
    images, classes = torch.from_numpy(pixels), torch.from_numpy(labels)
    return images[: info.train], classes[: info.train], images[info.train :], classes[info.train :]
