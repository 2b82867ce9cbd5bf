"""Controls on a finished run of a score method: one thing is taken away at a time, to see what made the accuracy.

Without training: the mask shuffled within each layer, other weights under the mask, the scores in reversed order.
With training, as ordinary runs: only the last layer on the features of the random network, and a dense network of as
many parameters as are kept.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hidden_subnet.fit import Parts
from hidden_subnet.identity import seed_of
from hidden_subnet.layers import masked_layers
from hidden_subnet.norm import take_statistics
from hidden_subnet.report.controls import INVERTED, REDRAWN, SHUFFLED
from hidden_subnet.seeding import derive, generator
from hidden_subnet.settings import Config, Dense, LastLayer, Method, Scale
from hidden_subnet.subnetwork import bare_network, count_parameters, draw_weights
from hidden_subnet.training import evaluate

READOUT_LR, DENSE_LR = 0.03, 0.01
"""The learning rates of these methods' own, conf/method/last_layer.yaml and dense.yaml."""
STEP = 1000
"""Widths are tried in thousandths."""

Change = Callable[[nn.Module, Config, int], None]


def shuffle_masks(model: nn.Module, config: Config, seed: int) -> None:
    """Permute the scores within each layer: as many weights are kept in each, but other ones."""
    for path, layer in masked_layers(model):
        scores = layer.scores.detach()
        order = torch.randperm(scores.numel(), generator=generator(seed, "shuffle", path)).to(scores.device)
        scores.copy_(scores.flatten()[order].view(scores.shape))


def redraw_weights(model: nn.Module, config: Config, seed: int) -> None:
    """Draw the weights anew by the run's own init; the mask stays."""
    draw_weights(model, config, seed)


def invert_scores(model: nn.Module, config: Config, seed: int) -> None:
    """Give the lowest score of a layer the value of the highest, and so on: the K lowest are kept. No randomness.

    What is high is what the mask says: |score|, or the score itself. Raises ValueError where it is neither.
    """
    for path, layer in masked_layers(model):
        scores = layer.scores.detach()
        value = _order(scores, layer.rule.mask(scores), path).flatten()
        rising = value.argsort(stable=True)
        inverted = torch.empty_like(value)
        inverted[rising] = value[rising.flip(0)]
        scores.copy_(inverted.view(scores.shape))


def _order(scores: Tensor, mask: Tensor, path: str) -> Tensor:
    for value in (scores.abs(), scores.clone()):
        if bool(mask.all()) or not bool(mask.any()) or value[mask].min() >= value[~mask].max():
            return value
    raise ValueError(f"the mask of {path} keeps neither the highest scores nor the highest |scores|: nothing to invert")


UNTRAINED: dict[str, tuple[Change, bool]] = {
    SHUFFLED: (shuffle_masks, True),
    REDRAWN: (redraw_weights, True),
    INVERTED: (invert_scores, False),
}
"""Each change of the trained network, and whether it draws random numbers."""


def measure_untrained(parts: Parts, draws: int) -> dict[str, list[float]]:
    """Test accuracy (0 to 1) of the last epoch's network after each change of UNTRAINED, a value a draw.

    `parts.model` must be at the last checkpoint, and is so again at the end.
    """
    kept = {name: value.clone() for name, value in parts.model.state_dict().items()}
    found: dict[str, list[float]] = {}
    for name, (change, is_random) in UNTRAINED.items():
        found[name] = []
        for draw in range(draws if is_random else 1):
            change(parts.model, parts.config, derive(seed_of(parts.config, "weights"), "control", draw))
            parts.course.before_evaluation(parts.config.train.epochs)  # the threshold, where it is of all layers
            # Those of another mask would be wrong for this one.
            take_statistics(parts.model, parts.train.epoch(0, 0))
            found[name].append(evaluate(parts.model, parts.test, parts.device).top1)
            parts.model.load_state_dict(kept)
            parts.course.before_evaluation(parts.config.train.epochs)
    return found


def readout_runs(config: Config, out: Path, draws: int) -> list[Config]:
    """The run's own random network, and others, of which only the last layer is trained, in the run's recipe."""
    if config.pretrained_sha256 is not None:
        draws = 1  # with weights from a file there is one such network
    return [_trained(config, out, LastLayer(), READOUT_LR, draw) for draw in range(draws)]


def small_dense_runs(config: Config, out: Path, draws: int, parameters: int) -> list[Config]:
    """Networks of the run's architecture with about so many parameters, all trained, in the run's recipe."""
    width = closest_width(config, parameters)
    found = []
    for draw in range(draws):
        small = _trained(config, out, Dense(), DENSE_LR, draw)
        small.model.width, small.pretrained, small.pretrained_sha256 = width, None, None
        found.append(small)
    return found


def _trained(config: Config, out: Path, method: Method, lr: float, draw: int) -> Config:
    """Its first draw is of the run's own seeds; the others have other weights."""
    same = copy.deepcopy(config)
    same.method, same.out, same.force = method, str(out), False
    same.init.scale = Scale.none  # there is no mask to make up for
    same.train.lr = lr
    if draw:
        same.seeds.weights = seed_of(config, "weights") + draw
    return same


def closest_width(config: Config, parameters: int) -> float:
    """The width, in thousandths and at most the run's, whose network has closest to so many parameters."""
    low, high = 0, round(config.model.width * STEP)  # low: too few, or no network at all
    if _parameters(config, high) <= parameters:
        return config.model.width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _parameters(config, middle) <= parameters else (low, middle)
    # `low` may be too narrow for a network; `high` is not, since it has more than so many.
    below, above = parameters - (_parameters(config, low) or -math.inf), _parameters(config, high) - parameters
    return (high if below > above else low) / STEP


def _parameters(config: Config, thousandths: int) -> int:
    """0 where a layer would have no channels."""
    sized = copy.deepcopy(config)
    sized.model.width = thousandths / STEP
    try:
        with torch.device("meta"):
            return count_parameters(bare_network(sized))
    except ValueError:
        return 0
