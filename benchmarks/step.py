"""Milliseconds of a whole training step: ours, the same network without masks, and with masks by sorting."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.sort_mask import SortRule
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.inits import fill
from hidden_subnet.layers import Rule, fill_scores, mask_layers
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.models.build import build
from hidden_subnet.training import Sums, train_epoch

GOALS = {"conv2": 1.12, "conv4": 1.08}
PRUNE_RATE = 0.5


def rows(width: float, batch: int, rounds: int) -> list[Row]:
    return [row for name in GOALS for row in _rows(name, width, batch, rounds)]


def _rows(name: str, width: float, batch: int, rounds: int) -> list[Row]:
    scratch, keep = Scratch(), partial(kept_count, prune_rate=PRUNE_RATE)
    images, labels = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10
    seconds = by_turns(
        {
            "ours": _step(name, width, lambda n: TopKRule(keep(n), scratch), images, labels),
            "without masks": _step(name, width, None, images, labels),
            "by sorting": _step(name, width, lambda n: SortRule(keep(n)), images, labels),
        },
        rounds,
    )

    def row(what: str, unit: str, samples: list[float], goal: float | None = None) -> Row:
        topic = f"step of {name}, batch {batch}, {PRUNE_RATE:.0%} removed"
        return Row(topic=topic, name=what, unit=unit, samples=samples, goal=goal)

    ours, floor, sorting = seconds.values()
    return [
        *(row(what, "ms", [1e3 * s for s in samples]) for what, samples in seconds.items()),
        row("ours / without masks", "x", ratios(ours, floor), GOALS[name]),
        row("by sorting / without masks", "x", ratios(sorting, floor)),
        row("by sorting / ours", "x", ratios(sorting, ours)),
    ]


def _step(
    name: str, width: float, rule_for: Callable[[int], Rule] | None, images: Tensor, labels: Tensor
) -> Callable[[], None]:
    """One step of the training loop on a network of its own; without a rule, of its weights."""
    model: nn.Module = build(name, width, (3, 32, 32), 10)
    fill(model, "signed_constant", "fan_in", 1.0, seed=0)
    if rule_for is not None:
        mask_layers(model, rule_for)
        fill_scores(model, seed=0, stream="scores")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # The rate is so small that the networks stay as drawn. With a real one the dense network soon has only dead ReLUs
    # here, and to pool zeros takes half the time, as the processor foresees every comparison.
    optimizer = SGD(trained, lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        sums = Sums("cpu")
        train_epoch(model, [(images, labels)], optimizer, 0.0, sums, lambda: None)
        # Arithmetic with nan or inf takes another time than a training that works.
        assert math.isfinite(sums.means().loss)

    return step
