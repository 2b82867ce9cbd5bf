"""One epoch of fc with its data: ours, a DataLoader over PIL images with masks by sorting, a plain loop with topk."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.network import PRUNE_RATE, RuleFor, by_sorting, network, optimizer_of, ours, trainer_of
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.data.catalog import INFO
from hidden_subnet.data.in_memory import Batches
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.training.metrics import MetricSums

INFORMATION = INFO["fashion_mnist"]


def rows(width: float, images: int, batch: int, rounds: int) -> list[Row]:
    pixels = torch.randint(0, 256, (images, *INFORMATION.shape), dtype=torch.uint8)
    labels = torch.arange(images) % 10
    seconds = by_turns(
        {
            "ours": _ours(width, pixels, labels, batch),
            "ours without masks": _ours(width, pixels, labels, batch, masked=False),
            "DataLoader, PIL, sort": _with_loader(width, pixels, labels, batch),
            "in memory, topk": _in_memory(width, pixels, labels, batch),
        },
        rounds,
    )
    topic = f"epoch of fc, {images:,} of 1x28x28, batch {batch}"

    def row(name: str, unit: str, samples: list[float], goal: float | None = None) -> Row:
        return Row(topic=topic, name=name, unit=unit, samples=samples, goal=goal, at_least=True)

    mine, floor, loader, memory = seconds.values()
    return [
        *(row(name, "s", samples) for name, samples in seconds.items()),
        row("ours / without masks", "x", ratios(mine, floor)),
        row("DataLoader, PIL, sort / ours", "x", ratios(loader, mine), 12.0),
        row("DataLoader, PIL, sort / ours without masks", "x", ratios(loader, floor)),
        row("in memory, topk / ours", "x", ratios(memory, mine), 1.5),
    ]


def _fc(width: float, rule_for: RuleFor | None) -> nn.Module:
    return network("fc", width, rule_for, shape=INFORMATION.shape)


def _ours(width: float, pixels: Tensor, labels: Tensor, batch: int, masked: bool = True) -> Callable[[], None]:
    batches = Batches(pixels, labels, INFORMATION, batch_size=batch, crop=0, flip=False, device="cpu")
    trainer = trainer_of(_fc(width, ours() if masked else None), batch_size=batch)

    def epoch() -> None:
        trainer.metrics = MetricSums("cpu")
        trainer.train_epoch(batches.epoch(0, 0))
        trainer.metrics.means()

    return epoch


class _Pictures(Dataset[tuple[Tensor, int]]):
    """As torchvision's MNIST gives them, to the transforms that everybody gives it."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        from torchvision import transforms  # takes as long to import as torch

        self.pixels, self.labels = pixels[:, 0], labels
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(INFORMATION.mean, INFORMATION.std)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index].numpy())), int(self.labels[index])


def _with_loader(width: float, pixels: Tensor, labels: Tensor, batch: int) -> Callable[[], None]:
    loader = DataLoader(_Pictures(pixels, labels), batch_size=batch, shuffle=True)
    model = _fc(width, by_sorting())
    optimizer = optimizer_of(model)

    def epoch() -> None:
        _plain_epoch(model, loader, optimizer)

    return epoch


class _TopKMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, magnitudes: Tensor, keep: int) -> Tensor:
        flat = torch.zeros(magnitudes.numel(), device=magnitudes.device)
        flat[torch.topk(magnitudes.flatten(), keep, sorted=False).indices] = 1
        return flat.view_as(magnitudes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class TopKMaskRule:
    """The mask by torch.topk, for which the scores need not be sorted."""

    def __init__(self, n: int) -> None:
        self.keep = kept_count(n, PRUNE_RATE)

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        mask: Tensor = _TopKMask.apply(scores.abs(), self.keep)  # type: ignore[no-untyped-call]
        return weight * mask

    def mask(self, scores: Tensor) -> Tensor:
        mask: Tensor = _TopKMask.apply(scores.abs(), self.keep)  # type: ignore[no-untyped-call]
        return mask.bool()


def _in_memory(width: float, pixels: Tensor, labels: Tensor, batch: int) -> Callable[[], None]:
    images = (pixels.float() / 255 - INFORMATION.mean[0]) / INFORMATION.std[0]
    model = _fc(width, TopKMaskRule)
    optimizer = optimizer_of(model)

    def epoch() -> None:
        order = torch.split(torch.randperm(len(labels)), batch)
        _plain_epoch(model, ((images[index], labels[index]) for index in order), optimizer)

    return epoch


def _plain_epoch(model: nn.Module, batches: Any, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """A loop as in any tutorial: loss and accuracy are read in every step."""
    model.train()
    loss_sum, correct = 0.0, 0
    for images, labels in batches:
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum().item())
    return loss_sum, correct
