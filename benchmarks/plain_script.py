"""A script without a framework: a training of conv4 that stays on the GPU, with masks by torch.topk."""

import json
import sys
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.epoch import TopKMaskRule
from benchmarks.network import network
from hidden_subnet.config.settings import Train
from hidden_subnet.training.optim import learning_rate

SHAPE = (1, 32, 32)
PAD = 4


def train(device: str, width: float, images: int, batch: int, epochs: int) -> float:
    """Seconds of a run on random images: crop and flip, SGD, cosine, 10,000 others evaluated after each epoch."""
    model = network("conv4", width, TopKMaskRule, shape=SHAPE, bf16=True, channels_last=True, device=device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-4)
    padded = F.pad(torch.randn(images, *SHAPE, device=device), [PAD] * 4)
    labels = torch.arange(images, device=device) % 10
    held, held_labels = torch.randn(10_000, *SHAPE, device=device), torch.arange(10_000, device=device) % 10
    start = perf_counter()
    for epoch in range(epochs):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch, Train(schedule="cosine", lr=0.1, epochs=epochs))
        total = torch.zeros((), device=device)
        for index in torch.split(torch.randperm(images, device=device), batch):
            loss = F.cross_entropy(model(_augmented(padded, index)), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        _accuracy(model, held, held_labels, batch)
        total.item()
    return perf_counter() - start


def _augmented(padded: Tensor, index: Tensor) -> Tensor:
    n, size = len(index), SHAPE[1]
    top, left = torch.randint(0, 2 * PAD + 1, (2, n, 1), device=padded.device)
    rows = (top + torch.arange(size, device=padded.device))[:, None, :, None]
    columns = (left + torch.arange(size, device=padded.device))[:, None, None, :]
    crops = padded[index[:, None, None, None], torch.zeros_like(rows), rows, columns]
    return torch.where(torch.rand(n, 1, 1, 1, device=padded.device) < 0.5, crops, crops.flip(3))


@torch.no_grad()
def _accuracy(model: torch.nn.Module, images: Tensor, labels: Tensor, batch: int) -> float:
    model.eval()
    parts = zip(images.split(10 * batch), labels.split(10 * batch), strict=True)
    hits = torch.stack([(model(part).argmax(1) == right).sum() for part, right in parts])
    return float(hits.sum()) / len(labels)


if __name__ == "__main__":
    device, width, images, batch, epochs = sys.argv[1:]
    arguments = device, float(width), int(images), int(batch)
    train(*arguments, 1)  # what is chosen and allocated once
    print(json.dumps(train(*arguments, int(epochs))))
