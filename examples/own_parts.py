"""Own parts in one file: network, images, init, method, metric and schedule; docs/extending.md explains each.

    python launch.py -m use=examples/own_parts.py model=two_layers data=stripes init=halves method=redrawn \
        'metrics=[calibration]' train.schedule=triangle method.fraction=0.01,0.1
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import hidden_subnet as hs


@hs.register_model("two_layers")
def two_layers(shape: tuple[int, int, int], classes: int, *, hidden: int = 200) -> nn.Module:
    """Return two linear layers. `hidden` becomes the setting model.hidden; the weights are drawn by the init."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), hidden, bias=False), nn.ReLU(), nn.Linear(hidden, classes, bias=False)
    )


@hs.register_data("stripes")
def stripes(root: object, *, noise: float = 0.5, images: int = 1200) -> hs.ImageData:
    """Return noisy images of stripes in three directions; `root` is data.root, which is not needed here."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[0:12, 0:12]
    patterns = np.stack([np.sin(row), np.sin(column), np.sin(row + column)])
    labels = np.arange(images) % 3
    pixels = (patterns[labels] + random.normal(0, noise, (images, 12, 12)))[:, None].astype(np.float32)
    return hs.ImageData(pixels[::2], labels[::2], pixels[1::2], labels[1::2])


@hs.register_init("halves")
def halves(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Draw +std or -std/2 with equal probability, from `generator` alone."""
    signs = torch.randint(0, 2, weight.shape, generator=generator)
    weight.copy_(torch.where(signs == 1, std, -std / 2))


@hs.register_schedule("triangle")
def triangle(epoch: int, train: hs.Train) -> float:
    """Return a learning rate that falls from train.lr to 0 in a straight line."""
    return train.lr * (1 - epoch / train.epochs)


@hs.register_metric("calibration")
def calibration(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far the mean confidence is from the accuracy."""
    confidence, guess = logits.softmax(dim=1).max(dim=1)
    return (confidence.mean() - (guess == labels).float().mean()).abs()


@dataclass
class RedrawnSettings(hs.MethodSettings):
    """The settings of `redrawn`."""

    fraction: float = 0.05


@hs.register_method("redrawn")
class Redrawn(hs.EdgePopup):
    """Edge-popup which draws some of the pruned weights again after each epoch (after Chijiwa et al. 2021)."""

    settings = RedrawnSettings
    changes_weights = True  # so checkpoints hold the weights

    def on_step_end(self, step: int) -> None:
        """Draw again where the mask removes: a function of seed, step and layer, so that a resumed run is the same."""
        if (step + 1) % 20 or self.allocation is None:
            return
        self.allocation.refresh()
        for path, layer in self.layers:
            source = self.generator(step, path)
            chosen = torch.rand(layer.weight.shape, generator=source) < self.config.method.fraction  # type: ignore[attr-defined]
            drawn = torch.randn(layer.weight.shape, generator=source) * layer.weight.std().cpu()
            again = ~layer.rule.mask(layer.scores.detach()) & chosen.to(layer.scores.device)
            layer.weight.data = torch.where(again, drawn.to(again.device), layer.weight)
