"""Draws docs/edge_popup.png: edge-popup in a network so small that each of its weights is a line (5 s).

python docs/edge_popup.py
"""

import sys
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn

import hidden_subnet as hs
from hidden_subnet.masks.layers import masked_layers

COLORS = ("#1f77b4", "#d95f02")  # of class 0 and of weights below 0; of class 1 and of weights above
SIZES = (3, 12, 12, 2)  # x, y and a constant 1; two layers of ReLU; two classes


def main(path: Path) -> None:
    """Train the scores, draw the network and what it tells apart before and after."""
    torch.manual_seed(1)
    points, labels = two_moons(400)
    network = random_network()
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.2), layout="constrained")
    right = [draw(axes[:, 0], "a random network, untrained", network, points, labels)]

    hs.mask(network, prune_rate=0.5, seed=1)
    drawn = [layer.weight.detach().clone() for _, layer in masked_layers(network)]
    right.append(draw(axes[:, 1], "half of it, by random scores", network, points, labels))

    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=0.1, momentum=0.9)
    network.train()
    for _ in range(600):
        optimizer.zero_grad()
        F.cross_entropy(network(points), labels).backward()
        optimizer.step()
    right.append(draw(axes[:, 2], "half of it, by learned scores", network, points, labels))
    assert all(torch.equal(a, layer.weight) for a, (_, layer) in zip(drawn, masked_layers(network), strict=True))
    figure.savefig(path, dpi=110)
    print("right: " + ", ".join(f"{each:.0%}" for each in right))


def random_network() -> nn.Sequential:
    """Make a network of three layers of random weights, without biases."""
    linear = [nn.Linear(inputs, outputs, bias=False) for inputs, outputs in pairwise(SIZES)]
    for layer in linear:
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])


def two_moons(n: int) -> tuple[Tensor, Tensor]:
    """Make points (n, 3), two half circles that reach into one another and a 1 beside x and y; and their classes."""
    angle, labels = torch.rand(n) * torch.pi, torch.arange(n) % 2
    x = torch.where(labels == 0, angle.cos(), 1 - angle.cos()) - 0.5
    y = torch.where(labels == 0, angle.sin(), 0.5 - angle.sin()) - 0.25
    places = torch.stack([x, y], 1) * 2 + 0.2 * torch.randn(n, 2)
    return torch.cat([places, torch.ones(n, 1)], 1), labels


@torch.no_grad()
def draw(axes: list[Axes], title: str, network: nn.Sequential, points: Tensor, labels: Tensor) -> float:
    """Draw a column, the used weights above and the class of each place below; return the share of points right."""
    network.eval()
    weights = [layer.effective_weight() for _, layer in masked_layers(network)] or [*network.parameters()]
    top, bottom = axes
    for depth, weight in enumerate(weights):
        for (to, start), value in ((at, value) for at, value in _each(weight) if value):
            places = [depth, depth + 1], [_height(start, depth), _height(to, depth + 1)]
            top.plot(*places, color=COLORS[value > 0], linewidth=min(2.0, abs(value)), zorder=1)
    for depth, size in enumerate(SIZES):
        top.scatter([depth] * size, [_height(at, depth) for at in range(size)], color="white", edgecolor="black", s=28)
    used = sum(int(weight.count_nonzero()) for weight in weights)
    top.set_title(f"{title}\n{used} weights", fontsize=10)
    top.set_axis_off()

    x, y = torch.meshgrid(torch.linspace(-4, 4, 200), torch.linspace(-2.6, 2.6, 130), indexing="xy")
    classes = network(torch.stack([x, y, torch.ones_like(x)], -1)).argmax(-1)
    bottom.contourf(x, y, classes, levels=[-0.5, 0.5, 1.5], colors=COLORS, alpha=0.25)
    bottom.scatter(points[:, 0], points[:, 1], c=[COLORS[each] for each in labels], s=5)
    right = (network(points).argmax(1) == labels).double().mean().item()
    bottom.set_xlabel(f"{right:.0%} of the points right", fontsize=10)
    bottom.set(xticks=[], yticks=[])
    return right


def _each(weight: Tensor) -> list[tuple[tuple[int, int], float]]:
    return [((to, start), value) for to, row in enumerate(weight.tolist()) for start, value in enumerate(row)]


def _height(unit: int, depth: int) -> float:
    return (unit - (SIZES[depth] - 1) / 2) * (1 if SIZES[depth] > 3 else 3)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
