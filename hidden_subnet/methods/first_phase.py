"""The first phase of methods that score the weights before training: their gradients in the network without masks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from hidden_subnet.masks.layers import KeepAll, MaskedLayer
from hidden_subnet.methods.base import Batch

Layers = Sequence[tuple[str, MaskedLayer]]


@contextmanager
def without_masks(network: nn.Module, layers: Layers, *, training: bool) -> Iterator[list[Tensor]]:
    """Give the weights of `layers`, with the network in training or evaluation mode and no mask on it.

    Rules, statistics of norm layers and mode are restored.
    """
    rules, buffers = [layer.rule for _, layer in layers], [each.clone() for each in network.buffers()]
    mode = network.training
    for _, layer in layers:
        layer.rule = KeepAll()
    try:
        network.train(training)
        yield [layer.weight for _, layer in layers]
    finally:
        network.train(mode)
        for (_, layer), rule in zip(layers, rules, strict=True):
            layer.rule = rule
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(before)


def first(batches: Iterator[Batch], count: int) -> list[Batch]:
    """Return the first `count` batches, or all where there are fewer."""
    return list(islice(batches, count))


def summed(weights: Sequence[Tensor], parts: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Return for each weight the sum of its tensors in all parts, as of its gradients in some batches."""
    totals = [torch.zeros_like(each) for each in weights]
    for part in parts:
        for total, each in zip(totals, part, strict=True):
            total += each
    return totals


def set_scores(layers: Layers, scores: Sequence[Tensor]) -> None:
    """Write the scores of each layer, all divided by the largest |score|, so that float32 can hold them."""
    largest = max(float(each.abs().max()) for each in scores)
    for (_, layer), each in zip(layers, scores, strict=True):
        layer.scores.detach().copy_(each / (largest or 1.0))
