"""Optimizers and learning-rate schedules by name, and the parameter groups for weight decay."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from hidden_subnet.config.registries import OPTIMIZERS, SCHEDULES, OptimizerEntry, ScheduleEntry, register, register_own
from hidden_subnet.config.settings import Train
from hidden_subnet.config.signature import refuse_arguments


def make_optimizer(network: nn.Module, train: Train) -> Optimizer:
    """Return the optimizer of all parameters that require a gradient; each epoch sets its learning rate."""
    groups = parameter_groups(network, train.weight_decay, train.norm_decay)
    made: Optimizer = OPTIMIZERS[train.optimizer].make(groups, train)
    return made


def parameter_groups(network: nn.Module, weight_decay: float, norm_decay: bool) -> list[dict[str, Any]]:
    """Return the parameter groups for torch.optim: one, or without `norm_decay` a second one without weight decay.

    The second one holds scales and shifts of norm layers and biases: the parameters of one dimension, while weights
    and scores have two or more.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if norm_decay:
        return [{"params": trained, "weight_decay": weight_decay}]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(epoch: int, train: Train) -> float:
    """Return the learning rate of an epoch, counted from 0: linear warm-up to train.lr, then the schedule."""
    if epoch < train.warmup_epochs:
        return train.lr * (epoch + 1) / train.warmup_epochs
    return SCHEDULES[train.schedule].rate(epoch, train)


OF_TORCH: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "radam": RAdam,
    "adamax": Adamax,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "rmsprop": RMSprop,
}
"""Those of torch.optim that take steps from gradients alone and decay weights by train.weight_decay."""
SETTINGS = ("lr", "weight_decay")
"""Arguments that are settings of `train`, so that train.optimizer_args cannot hold them."""
NOT_OURS = ("params", "maximize", "differentiable", "capturable", "foreach", "fused")
"""Arguments that would turn the search round, or choose how a step is computed."""


def _made(kind: type[Optimizer], own: tuple[str, ...], groups: list[dict[str, Any]], train: Train) -> Optimizer:
    """Return the optimizer. own: settings of `train` that it takes beside SETTINGS; weight decay is in the groups."""
    values: dict[str, Any] = {
        "lr": train.lr,
        "momentum": train.momentum,
        "nesterov": train.nesterov,
        "capturable": train.cuda_graph,
    }
    taken = {name: value for name, value in values.items() if name in ("lr", *own)}
    return kind(groups, **taken, **train.optimizer_args)


def _wrong(kind: type[Optimizer], train: Train) -> str:
    """Return what torch says of train.optimizer_args, "" for nothing."""
    try:
        kind([nn.Parameter(torch.zeros(1))], **train.optimizer_args)
    except (TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return ""


def _entry(kind: type[Optimizer]) -> OptimizerEntry:
    takes = [*inspect.signature(kind).parameters]
    own = ("momentum", "nesterov") if kind is SGD else ("capturable",) if "capturable" in takes else ()
    return OptimizerEntry(
        partial(_made, kind, own),
        has_momentum=kind is SGD,
        problem=partial(_wrong, kind),
        arguments=tuple(each for each in takes if each not in (*SETTINGS, *NOT_OURS, *own)),
    )


def _cosine(epoch: int, train: Train) -> float:
    """Return half a cosine from train.lr to 0, which starts after the warm-up."""
    angle = math.pi * (epoch - train.warmup_epochs) / (train.epochs - train.warmup_epochs)
    return 0.5 * train.lr * (1 + math.cos(angle))


def _constant(epoch: int, train: Train) -> float:
    return train.lr


def _multistep(epoch: int, train: Train) -> float:
    """Return train.lr, multiplied by train.gamma for each milestone that is reached."""
    return train.lr * train.gamma ** sum(epoch >= mark for mark in train.milestones)


for _name, _kind in OF_TORCH.items():
    register(OPTIMIZERS, _name)(_entry(_kind))
register(SCHEDULES, "cosine")(ScheduleEntry(_cosine))
register(SCHEDULES, "constant")(ScheduleEntry(_constant))
register(SCHEDULES, "multistep")(ScheduleEntry(_multistep, has_milestones=True))


Rate = TypeVar("Rate", bound=Callable[[int, Train], float])


def register_schedule(name: str) -> Callable[[Rate], Rate]:
    """Return a decorator that makes `train.schedule=<name>` take the learning rate from a function `(epoch, train)`.

    >>> @hs.register_schedule("halving")
    ... def halving(epoch, train):
    ...     return train.lr * 0.5**epoch

    epoch: counted from 0, at or after the warm-up. train: the settings of `train`. The rate is a number of 0 or more.
    Raises ValueError for a name in use.
    """

    def enter(rate: Rate) -> Rate:
        refuse_arguments(rate, ("epoch", "train"))

        def checked(epoch: int, train: Train) -> float:
            found = rate(epoch, train)
            try:
                number = float(found)
            except (TypeError, ValueError):
                number = math.nan
            if not 0 <= number < math.inf:
                raise ValueError(
                    f"train.schedule={name}: must return a learning rate of 0 or more, and returns {found!r} in epoch "
                    f"{epoch}"
                )
            return number

        register_own("train.schedule", SCHEDULES, name, rate)(ScheduleEntry(checked))
        return rate

    return enter
