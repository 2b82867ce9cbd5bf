"""Files of a few images: one of numpy's, and those that torchvision reads as KMNIST."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

GREY = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2])
KMNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def save_npz(path: Path, images: Any = GREY, labels: Any = LABELS, **more: Any) -> Path:
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:3], test_labels=labels[:3], **more)
    return path


def save_kmnist(root: Path) -> Path:
    """20 training images and 10 test images of 28x28, 10 classes; returns `root`."""
    raw = root / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    for name, array in zip(KMNIST, (pixels, np.arange(20) % 10, pixels[:10], np.arange(10)), strict=True):
        kind = 2051 if array.ndim == 3 else 2049
        (raw / name).write_bytes(
            struct.pack(f">{1 + array.ndim}i", kind, *array.shape) + array.astype(np.uint8).tobytes()
        )
    return root
