"""Images drawn from a fixed seed, for smoke tests: a random prototype for each class, with noise."""

import numpy as np
import torch
from torch import Tensor

from hidden_subnet.config.data_info import DataInfo


def read(info: DataInfo) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images, uint8 (N, C, H, W), and labels, int64 (N,), then the same of the test set."""
    random = np.random.RandomState(0)
    labels = np.arange(info.train + info.test, dtype=np.int64) % info.classes
    prototypes = random.normal(0.5, 0.15, (info.classes, *info.shape))
    noisy = prototypes[labels] + random.normal(0, 0.2, (len(labels), *info.shape))
    pixels = np.rint(noisy.clip(0, 1) * info.max_value).astype(np.uint8)
    images, classes = torch.from_numpy(pixels), torch.from_numpy(labels)
    return images[: info.train], classes[: info.train], images[info.train :], classes[info.train :]
