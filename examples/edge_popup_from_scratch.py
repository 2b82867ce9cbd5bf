"""Edge-popup in one file: find a good subnetwork in a random network without training a single weight.

Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020. Read it from top to bottom, then

    python examples/edge_popup_from_scratch.py

This file is the definition. The package hidden_subnet does the same, only faster, and a test holds it to this file.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]  # images (B, 1, 8, 8) float32, labels (B,) int64


def topk_mask(scores: Tensor, prune_rate: float) -> Tensor:
    """Boolean mask in the shape of `scores`: True for the K largest |score|, where K = n - floor(prune_rate * n)."""
    # As a decimal number, because in floating point 0.29 * 100 is 28.999999999999996, and its floor is 28.
    dropped = math.floor(Decimal(f"{prune_rate:.12g}") * scores.numel())
    # A stable sort leaves equal |scores| in their order: among these, the ones with the lowest index are dropped.
    order = scores.abs().flatten().sort(stable=True).indices  # (n,), the smallest |score| first
    mask = torch.ones_like(order, dtype=torch.bool)
    mask[order[:dropped]] = False
    return mask.view(scores.shape)


class StraightThrough(torch.autograd.Function):
    """The effective weight: the weight where the mask is True, and 0 where it is False."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, prune_rate: float) -> Tensor:
        ctx.save_for_backward(scores, weight)
        return weight * topk_mask(scores, prune_rate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # `grad` is d loss / d effective. A small change of a score does not change the mask, so the true gradient of
        # the mask is 0 and nothing would be learned. We take the gradient of weight * |score| instead. Weights that
        # are dropped now get a gradient too, so they can come back.
        scores, weight = ctx.saved_tensors
        return grad * weight * scores.sign(), None, None


class Masked(nn.Module):
    """A layer's random weight (outputs, inputs, ...), which never changes, and its scores, which are trained."""

    def __init__(self, shape: tuple[int, ...], prune_rate: float) -> None:
        super().__init__()
        self.prune_rate = prune_rate
        fan_in = math.prod(shape[1:])  # how many inputs one output is the sum of
        # Every weight is +std or -std ("signed constant"). This std keeps the size of the activations about the same
        # from layer to layer (He et al. 2015). A buffer is not a parameter, so the optimizer never sees it.
        signs = 2.0 * torch.randint(0, 2, shape) - 1
        self.register_buffer("weight", signs * math.sqrt(2 / fan_in))
        self.scores = nn.Parameter(torch.empty(shape).uniform_(-1, 1) / math.sqrt(fan_in))

    def effective_weight(self) -> Tensor:
        return StraightThrough.apply(self.scores, self.weight, self.prune_rate)


class MaskedConv(Masked):
    def forward(self, images: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H, W)
        return F.conv2d(images, self.effective_weight(), padding=1)


class MaskedLinear(Masked):
    def forward(self, features: Tensor) -> Tensor:  # (B, inputs) -> (B, outputs)
        return F.linear(features, self.effective_weight())


def conv2(prune_rate: float, width: float = 0.25) -> nn.Sequential:
    """The paper's Conv2 for 8x8 images; `width` multiplies its channels and hidden features. No layer has a bias."""
    channels, hidden = int(64 * width), int(256 * width)
    return nn.Sequential(
        MaskedConv((channels, 1, 3, 3), prune_rate),  # (B, 1, 8, 8) -> (B, channels, 8, 8)
        nn.ReLU(),
        MaskedConv((channels, channels, 3, 3), prune_rate),
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> (B, channels, 4, 4)
        nn.Flatten(),  # -> (B, channels * 16)
        MaskedLinear((hidden, channels * 16), prune_rate),
        nn.ReLU(),
        MaskedLinear((hidden, hidden), prune_rate),
        nn.ReLU(),
        MaskedLinear((10, hidden), prune_rate),  # -> (B, 10), one logit for each digit
    )


def train(model: nn.Module, batches: Callable[[int], Iterable[Batch]], epochs: int, lr: float = 0.1) -> list[float]:
    """Train the scores and return the loss of every step; `batches(epoch)` gives the batches of that epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)  # scores, nothing else
    losses = []
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * epoch / epochs))  # cosine: from lr to 0
        for images, labels in batches(epoch):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def shuffled(images: Tensor, labels: Tensor) -> Iterator[Batch]:
    for index in torch.randperm(len(labels)).split(64):
        yield images[index], labels[index]


def digits() -> tuple[Batch, Batch]:
    """1,437 handwritten digits to train on, and every fifth of the 1,797, which is 360, to test with."""
    source = load_digits()
    images = torch.from_numpy(source.images).float().unsqueeze(1)  # (1797, 1, 8, 8), 0 to 16
    images = (images / 16 - 0.305) / 0.376  # now the mean is about 0, the standard deviation about 1
    labels, test = torch.from_numpy(source.target), torch.arange(len(images)) % 5 == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return 100 * (model(images).argmax(dim=1) == labels).float().mean().item()


def main(prune_rate: float = 0.5, epochs: int = 15) -> None:
    torch.set_num_threads(1)  # in so small a network, more threads would mostly wait for each other
    torch.manual_seed(0)
    model = conv2(prune_rate)
    training, test = digits()
    print(f"untrained: {accuracy(model, *test):.1f} % of the test images are right")
    losses = train(model, lambda epoch: shuffled(*training), epochs)
    print(f"after {len(losses)} steps: {accuracy(model, *test):.1f} %, and no weight has changed")


if __name__ == "__main__":
    main()
