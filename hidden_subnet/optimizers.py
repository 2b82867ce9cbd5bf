"""The optimizer of a run, and which of the trained parameters its weight decay acts on."""

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from hidden_subnet.settings import OptimizerName, Train


def make_optimizer(model: nn.Module, train: Train) -> Optimizer:
    """Over what requires a gradient; the learning rate is set anew each epoch (hidden_subnet.schedules)."""
    groups = parameter_groups(model, train.weight_decay, train.norm_decay)
    if train.optimizer is OptimizerName.adam:
        return Adam(groups, lr=train.lr, capturable=train.cuda_graph)
    return SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov)


def parameter_groups(model: nn.Module, weight_decay: float, norm_decay: bool) -> list[dict[str, Any]]:
    """One group, or without `norm_decay` a second one that does not decay: scales and shifts of norm layers, biases.

    These are the parameters of one dimension: the weight of a layer and its scores have two or more.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if norm_decay:
        return [{"params": trained, "weight_decay": weight_decay}]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
