"""Images of three channels, and networks measured on the images of their run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hidden_subnet
from hidden_subnet.config.registries import DATA, DataEntry
from hidden_subnet.data import synthetic


def synthetic_data(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let data=synthetic be of another shape, or of fewer images."""
    info = replace(DATA["synthetic"].info, **changes)
    monkeypatch.setitem(DATA, "synthetic", DataEntry(info, lambda root: synthetic.read(info)))


def color_batch(images: int = 6) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, 32, 32) and labels (B,)."""
    return torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(images) % 10


def accuracy(folder: Path, which: Any) -> float:
    """Return the top-1 accuracy of a loaded run on its test images."""
    images, labels = hidden_subnet.test_images(folder)
    return (hidden_subnet.load(folder, which)(images).argmax(dim=1) == labels).double().mean().item()
