"""The example in one file is the definition of edge-popup: the framework makes its masks, its losses and its scores."""

import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from hidden_subnet.config.settings import Config
from hidden_subnet.masks.state import current_masks
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.masks.topk import topk_mask as framework_mask
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Method
from hidden_subnet.training.experiment import build_network, open_images, resolve
from hidden_subnet.training.metrics import MetricSums
from hidden_subnet.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "edge_popup_from_scratch.py"
Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edge_popup_from_scratch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_does_without_the_framework() -> None:
    found = re.findall(r"^\s*(?:from|import) (\w+)", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert "torch" in found
    assert set(found) - sys.stdlib_module_names == {"torch", "sklearn"}


def tied(shape: tuple[int, ...], distinct: int, seed: int) -> Tensor:
    """Scores that take at most `distinct` magnitudes, of either sign, 0 and -0 among them."""
    source = torch.Generator().manual_seed(seed)
    magnitude = torch.randint(0, distinct, shape, generator=source) / distinct
    return magnitude * (2.0 * torch.randint(0, 2, shape, generator=source) - 1)


# 5040 is above the size from which the framework brackets the threshold.
@pytest.mark.parametrize("shape", [(1,), (10,), (100,), (3, 5), (8, 2, 3, 3), (70, 72)])
@pytest.mark.parametrize("distinct", [1, 3, 50, 10**6])
def test_masks_are_the_frameworks(example: ModuleType, shape: tuple[int, ...], distinct: int) -> None:
    n = math.prod(shape)
    rates = [0.0, 0.1, 0.29, 0.3, 0.1 + 0.2, 1 - 0.9, 0.5, 0.9, 0.999, 1 - 0.5 / n]  # from all of them to one
    for seed, rate in enumerate(rates):
        scores = tied(shape, distinct, seed)
        mask = example.topk_mask(scores, rate)
        keep = kept_count(n, rate)
        assert mask.sum() == keep
        assert torch.equal(mask, framework_mask(scores, keep))
    assert kept_count(n, rates[0]) == n
    assert kept_count(n, rates[-1]) == 1


def test_rule_written_out(example: ModuleType) -> None:
    scores = torch.tensor([[0.5, -0.5, 0.1], [0.9, 0.5, -0.0]], requires_grad=True)
    # Of the three that are 0.5 the two last ones are kept.
    assert example.topk_mask(scores, 0.5).tolist() == [[False, True, False], [True, True, False]]
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    effective = example.StraightThrough.apply(scores, weight, 0.5)
    assert effective.tolist() == [[0, 2, 0], [4, 5, 0]]
    effective.backward(torch.tensor([[1.0, 10.0, 100.0], [1000.0, 10_000.0, 100_000.0]]))
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1, -20, 300], [4000, 50_000, 0]]


def watched(batches: Iterable[Batch], after_step: Callable[[], None]) -> Iterator[Batch]:
    """Yield the batches; when the next one is asked for, a step on the last has been taken."""
    for batch in batches:
        yield batch
        after_step()


class Losses(MetricSums):
    def __init__(self) -> None:
        super().__init__("cpu")
        self.each: list[float] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.each.append(loss.item())


def frameworks_training(
    network: nn.Module, method: Method, config: Config, batches: Callable[[int], Iterable[Batch]]
) -> list[float]:
    trainer, losses = Trainer(network, method, config.train, "cpu"), Losses()
    trainer.metrics = losses
    for epoch in range(config.train.epochs):
        trainer.state.epoch, trainer.state.batch = epoch, 0
        trainer.train_epoch(batches(epoch))
    return losses.each


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_training_is_the_frameworks(example: ModuleType, compose: Callable[..., Config], rate: float) -> None:
    config = compose("model.width=0.25", "tracker=none", f"prune_rate={rate}", "train.epochs=2")
    resolved = resolve(config, "cpu")
    theirs = build_network(resolved).network
    method = apply_method(theirs, config)
    layers = [(path, layer) for path, layer in theirs.named_modules() if hasattr(layer, "scores")]
    ours = example.conv2(rate, 0.25)
    masked = [layer for layer in ours if isinstance(layer, example.Masked)]
    assert len(masked) == len(layers) == 5
    for layer, (_, other) in zip(masked, layers, strict=True):
        assert torch.equal(layer.weight.abs(), other.weight.abs())  # all of them std
        assert layer.scores.abs().max().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.05)
        layer.weight.copy_(other.weight)
        layer.scores.detach().copy_(other.scores)
    before = [layer.weight.clone() for layer in masked]

    their_masks: list[dict[str, Tensor]] = []
    our_masks: list[list[Tensor]] = []
    with open_images(resolved) as loaders:
        epochs = [list(loaders.train.epoch(0, epoch)) for epoch in range(2)]
    their_losses = frameworks_training(
        theirs,
        method,
        config,
        lambda epoch: watched(epochs[epoch], lambda: their_masks.append(current_masks(theirs))),
    )
    our_losses = example.train(
        ours,
        lambda epoch: watched(
            epochs[epoch],
            lambda: our_masks.append([example.topk_mask(layer.scores.detach(), rate) for layer in masked]),
        ),
        epochs=2,
    )

    assert len(our_masks) == len(their_masks) == len(our_losses) == 42
    for our_mask, their_mask in zip(our_masks, their_masks, strict=True):
        assert all(torch.equal(mask, their_mask[path]) for mask, (path, _) in zip(our_mask, layers, strict=True))
    assert any(not torch.equal(*pair) for pair in zip(our_masks[0], our_masks[-1], strict=True))
    assert our_losses == their_losses  # to the last bit
    for layer, (_, other), weight in zip(masked, layers, before, strict=True):
        assert torch.equal(layer.scores, other.scores)
        assert torch.equal(layer.weight, weight)
    assert sum(our_losses[-5:]) < 0.7 * sum(our_losses[:5])  # and it learns


def accuracies(text: str) -> tuple[float, float]:
    """Return the accuracy before and after training, in percent, from the printed text."""
    before, after = re.findall(r"([\d.]+) %", text)
    return float(before), float(after)


def test_short_training(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(epochs=2)
    printed = capsys.readouterr().out
    assert "after 46 steps" in printed
    before, after = accuracies(printed)
    assert before < 25
    assert after > 50


@pytest.mark.slow
def test_command_in_its_docstring() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=True)
    before, after = accuracies(done.stdout)
    assert before < 25
    assert after > 95
