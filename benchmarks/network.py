"""Networks filled, masked and stepped as a run does it, from a few words."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.sort_mask import SortRule
from hidden_subnet.inits import fill
from hidden_subnet.layers import Rule, fill_scores, mask_layers, masked_layers
from hidden_subnet.masks import Scratch, kept_count
from hidden_subnet.methods.edge_popup import TopKRule
from hidden_subnet.models.build import build
from hidden_subnet.settings import Precision, Train
from hidden_subnet.speed import compiled, speed_up
from hidden_subnet.training import Sums, train_epoch

PRUNE_RATE = 0.5
Shape = tuple[int, int, int]
RuleFor = Callable[[int], Rule]
CIFAR: Shape = (3, 32, 32)


def ours() -> RuleFor:
    scratch = Scratch()
    return lambda n: TopKRule(kept_count(n, PRUNE_RATE), scratch)


def by_sorting() -> RuleFor:
    return lambda n: SortRule(kept_count(n, PRUNE_RATE))


def network(
    name: str,
    width: float,
    rule_for: RuleFor | None,
    *,
    shape: Shape = CIFAR,
    classes: int = 10,
    bf16: bool = False,
    channels_last: bool = False,
    device: str = "cpu",
) -> nn.Module:
    """Without a rule the network of which the weights are trained."""
    model: nn.Module = build(name, width, shape, classes)
    fill(model, "signed_constant", "fan_in", 1.0, seed=0)
    model.to(device)
    speed_up(model, Train(precision=Precision.bf16 if bf16 else Precision.fp32, channels_last=channels_last), device)
    if rule_for is not None:
        mask_layers(model, rule_for)
        fill_scores(model, seed=0, stream="scores")
    return model


def optimizer_of(model: nn.Module) -> SGD:
    """With a real learning rate for scores, whose thresholds have to move, and for weights one that leaves them.

    With a real one the dense network soon has only dead ReLUs here, and to pool zeros takes half the time, as the
    processor foresees every comparison.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return SGD(trained, lr=0.1 if masked_layers(model) else 1e-6, momentum=0.9, weight_decay=1e-4)


def batch_of(size: int, shape: Shape = CIFAR, device: str = "cpu") -> tuple[Tensor, Tensor]:
    return torch.randn(size, *shape, device=device), torch.arange(size, device=device) % 10


def stepper(
    model: nn.Module, batch: tuple[Tensor, Tensor], forward: Callable[[Tensor], Tensor] | None = None
) -> Callable[[], None]:
    """A step of the training loop on the same batch."""
    optimizer = optimizer_of(model)
    device = str(batch[0].device)

    def step() -> None:
        sums = Sums(device)
        train_epoch(model, [batch], optimizer, 0.0, sums, lambda: None, forward=forward)
        # Arithmetic with nan or inf takes another time than a training that works.
        assert math.isfinite(sums.means().loss)

    return step


def step_of(
    name: str, width: float, batch: int, rule_for: RuleFor | None, *, bf16: bool = False, channels_last: bool = False
) -> Callable[[], None]:
    """One step on the CPU with images of CIFAR's size."""
    return stepper(network(name, width, rule_for, bf16=bf16, channels_last=channels_last), batch_of(batch))


def compiled_step_of(name: str, width: float, batch: int, rule_for: RuleFor) -> Callable[[], None]:
    """Compiled already; only the network that was compiled last in this process stays so."""
    model = network(name, width, rule_for)
    step = stepper(model, batch_of(batch), forward=compiled(model, batch))
    step()
    return step
