"""A training loop of your own: edge-popup on a network of your own, without configs and runs (30 seconds on a laptop).

python examples/own_training_loop.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import hidden_subnet as hs


def main() -> None:
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    images, labels = (images - images.mean()) / images.std(), torch.tensor(digits.target)
    torch.manual_seed(0)
    order = torch.randperm(len(labels))
    train, test = order[:1400], order[1400:]

    network = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    hs.mask(network, prune_rate=0.5, init="signed_constant")
    scores = [each for each in network.parameters() if each.requires_grad]  # nothing else is trained
    optimizer = torch.optim.SGD(scores, lr=0.1, momentum=0.9)
    print(f"first mask:    {accuracy(network, images[test], labels[test]):.1%}")

    network.train()
    for _ in range(20):
        for batch in train[torch.randperm(len(train))].split(100):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()

    print(f"learned mask:  {accuracy(network, images[test], labels[test]):.1%}")
    hs.remove_masks(network)  # plain layers again, whose removed weights are 0
    kept = sum(int(layer.weight.count_nonzero()) for layer in network if isinstance(layer, nn.Linear))
    print(f"plain network: {accuracy(network, images[test], labels[test]):.1%} with {kept:,} weights that are not 0")


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    with torch.no_grad():
        return (network(images).argmax(1) == labels).double().mean().item()


if __name__ == "__main__":
    main()
