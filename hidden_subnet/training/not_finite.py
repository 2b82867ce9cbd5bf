"""Why a run has a loss, scores or weights that are NaN or infinite: its first weights, its images, or its training."""

import math
from collections.abc import Iterable

from torch import Tensor, nn

from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.settings import Config, Scale
from hidden_subnet.data.interfaces import WHOLE, shared
from hidden_subnet.errors import problem
from hidden_subnet.training.experiment import Experiment


def refuse_first_weights(network: nn.Module, config: Config) -> None:
    """Raise FloatingPointError where the network has values that are not finite before its first step."""
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            typed = f"model={config.model.name} init={config.init.name}"
            rule = f"{name} of the untrained network holds values that are NaN or infinite"
            raise FloatingPointError(problem(typed, rule, "init=signed_constant", lead="as in"))


def refuse_images(batches: Iterable[tuple[Tensor, Tensor]], config: Config) -> None:
    """Raise FloatingPointError where images, (B, C, H, W), hold a value that is not finite."""
    for images, _ in batches:
        if not bool(images.isfinite().all()):
            rule = "its images, as the network gets them, hold values that are NaN or infinite (its files, or its std)"
            raise FloatingPointError(problem(f"data={config.data.name}", rule, "data=digits", lead="as in"))


LARGEST_PENALTY = 1e9
"""A first penalty of more than so many times the first loss is why the training diverged, and not the learning rate."""


def reason(experiment: Experiment, losses_before: Iterable[float], penalty: float, epoch: int, what: str) -> str:
    """Return why something is not finite at the end of an epoch, counted from 1, and what to type.

    losses_before: of the untrained network, and of the first step before its update. penalty: what the method added to
    the latter. what: is not finite. Raises FloatingPointError where it is the images.
    """
    config = experiment.config
    images = shared(experiment.train_images, WHOLE)
    refuse_images(images.epoch(experiment.run.data_seed, epoch - 1), config)
    losses = list(losses_before)
    if all(map(math.isfinite, losses)):
        if not abs(penalty) <= LARGEST_PENALTY * losses[0]:
            return _of_the_penalty(config, penalty, losses[0], f"the training diverged in epoch {epoch} ({what})")
        rule = f"try a learning rate below train.lr={config.train.lr:g}"
        words = f"train.lr={config.train.lr / 10:g}"
        return problem(f"the training diverged in epoch {epoch} ({what})", rule, words, lead="as in")
    rule = "so was the loss before the first update, whatever train.lr: the untrained network's outputs are too large"
    return problem(f"{what} in epoch {epoch}", rule, *_smaller(config), lead="as in")


def _of_the_penalty(config: Config, penalty: float, loss: float, what: str) -> str:
    """Return the line on a penalty of the first step beside which the loss of the untrained network is nothing."""
    factor = as_dict(config)["method"].get("penalty")
    name = f"method={config.method.name}" if factor is None else f"method.penalty={factor:g}"
    rule = f"{name} added {penalty:g} to a loss of {loss:.4g} before the first update"
    return problem(what, rule, "method=edge_popup" if factor is None else "method.penalty=1e-05", lead="as in")


def _smaller(config: Config) -> tuple[str, ...]:
    """Return the words that make the first outputs smaller."""
    if config.init.scale is not Scale.none:
        return ("init.scale=none",)
    if config.model.temperature < 1:
        return ("model.temperature=1",)
    return ("init=signed_constant",)
