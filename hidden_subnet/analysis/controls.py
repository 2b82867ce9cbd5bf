"""Controls on a finished run of a score method: ablations that show what its accuracy depends on.

Without training: the mask shuffled within each layer, other random weights under the mask, the scores in reversed
order. With training, as ordinary runs: only the last layer of the random network, and a dense network with as many
parameters as the subnetwork.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.identity import seed_of
from hidden_subnet.config.registries import METHODS, info_of
from hidden_subnet.config.settings import Config, Model, Scale, Structure
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import count_parameters
from hidden_subnet.masks.structure import does_not_divide, inverted
from hidden_subnet.masks.topk import ranked
from hidden_subnet.models.from_config import bare_network, draw_weights
from hidden_subnet.report.controls import INVERTED, REDRAWN, SHUFFLED
from hidden_subnet.seeding import derive, generator
from hidden_subnet.training.batch_norm import recalibrate_batch_norm
from hidden_subnet.training.experiment import Experiment

READOUT_LR, DENSE_LR = 0.03, 0.01
"""The default learning rates of last_layer and dense in conf/method/."""
STEP = 1000
"""Widths are multiples of 1 / STEP."""

Change = Callable[[nn.Module, Config, int], None]
"""(network, config, seed): changes the trained network in place."""


def shuffle_masks(model: nn.Module, config: Config, seed: int) -> None:
    """Permute the scores within each layer at random: each layer keeps the same number of weights, but other ones."""
    for path, layer in masked_layers(model):
        scores = layer.scores.detach()
        order = torch.randperm(scores.numel(), generator=generator(seed, "shuffle", path)).to(scores.device)
        scores.copy_(scores.flatten()[order].view(scores.shape))


def redraw_weights(model: nn.Module, config: Config, seed: int) -> None:
    """Draw other random weights with the init of the run; the mask does not change."""
    draw_weights(model, config, seed)


def invert_scores(model: nn.Module, config: Config, seed: int) -> None:
    """Reverse the order of the scores of each layer, so that the mask keeps the K lowest; nothing is random.

    With pruning.structure the order of groups, or of the scores in each group, is reversed.
    The lowest score gets the value of the highest, and so on; where |score| is ordered, each keeps its sign. Whether
    |score| or the score itself is ordered follows from the mask. Raises ValueError where neither explains it.
    """
    for path, layer in masked_layers(model):
        scores = layer.scores.detach()
        if config.pruning.structure is Structure.weight:
            by_value = _orders_by_value(scores, layer.rule.mask(scores), path)
        else:
            by_value = METHODS[config.method.name].keeps_highest(config.method)
        if not does_not_divide(scores.shape, config.pruning):
            scores.copy_(inverted(scores, config.pruning, by_value=by_value))


def _orders_by_value(scores: Tensor, mask: Tensor, path: str) -> bool:
    """Return whether the mask orders the scores by themselves, and not by |score|."""
    for by_value in (False, True):
        value = ranked(scores, by_value)
        if bool(mask.all()) or not bool(mask.any()) or value[mask].min() >= value[~mask].max():
            return by_value
    raise ValueError(
        f"the mask of {path} keeps neither the highest scores nor the highest |scores|: the scores cannot be inverted; "
        "choose a run of a method that does"
    )


UNTRAINED: dict[str, tuple[Change, bool]] = {
    SHUFFLED: (shuffle_masks, True),
    REDRAWN: (redraw_weights, True),
    INVERTED: (invert_scores, False),
}
"""The controls without training, and whether they draw random numbers."""


def measure(experiment: Experiment) -> float:
    """Return the test accuracy (0 to 1) of the network, with the statistics of batch norm that every control has.

    A control changes the mask or the weights, for which the running averages of training are wrong. So the run and its
    controls have statistics from the same training images: train.norm_batches, or else one epoch.
    """
    if experiment.config.train.norm_batches:
        experiment.recalibrate()
    else:
        recalibrate_batch_norm(experiment.network, experiment.train_images.epoch(0, 0))
    return experiment.evaluate(experiment.test_images).top1


def measure_untrained(experiment: Experiment, draws: int) -> dict[str, list[float]]:
    """Return for each change of UNTRAINED the test accuracies (0 to 1) of the changed network, one for each draw.

    `experiment.network` must hold the last checkpoint; it is restored at the end.
    """
    network, method, config = experiment.network, experiment.method, experiment.config
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    found: dict[str, list[float]] = {}
    for name, (change, is_random) in UNTRAINED.items():
        found[name] = []
        for draw in range(draws if is_random else 1):
            change(network, config, derive(experiment.run.weights_seed, "control", draw))
            method.on_evaluation(config.train.epochs)  # computes the threshold again where all layers share one
            found[name].append(measure(experiment))
            network.load_state_dict(kept)
            method.on_evaluation(config.train.epochs)
    return found


def readout_runs(config: Config, out: Path, draws: int) -> list[Config]:
    """Return runs with the settings of `config` that train only the last layer of the random network.

    The first has the weights of the run, the other draws other ones.
    """
    if config.pretrained_sha256 is not None:
        draws = 1  # pretrained weights give one network only
    return [_trained(config, out, "last_layer", READOUT_LR, draw) for draw in range(draws)]


def small_dense_runs(config: Config, out: Path, draws: int, parameters: int) -> list[Config]:
    """Return runs with the settings of `config` that train dense networks of about `parameters` parameters.

    The architecture is that of the run, with another width.
    """
    model = replace(config.model, width=closest_width(config.model, info_of(config.data), parameters))
    return [
        replace(_trained(config, out, "dense", DENSE_LR, draw), model=model, pretrained=None, pretrained_sha256=None)
        for draw in range(draws)
    ]


def _trained(config: Config, out: Path, method: str, lr: float, draw: int) -> Config:
    """Return a training run of `method`; draw 0 has the seeds of the run, and the others have other weights."""
    seeds = config.seeds
    if draw:
        seeds = replace(seeds, weights=seed_of(config, "weights") + draw)
    return replace(
        config,
        method=METHODS[method].settings(),
        out=str(out),
        force=False,
        mask=None,
        mask_sha256=None,
        extend=None,
        extend_sha256=None,
        init=replace(config.init, scale=Scale.none),  # without a mask, nothing has to be compensated
        train=replace(config.train, lr=lr),
        seeds=seeds,
    )


def closest_width(model: Model, info: DataInfo, parameters: int) -> float:
    """Return the width, a multiple of 1 / STEP and at most model.width, whose network is closest to `parameters`."""
    low, high = 0, round(model.width * STEP)  # in thousandths; the network of width 0 does not exist
    if _parameters(model, info, high) <= parameters:
        return model.width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _parameters(model, info, middle) <= parameters else (low, middle)
    # `low` may leave a layer without channels; `high` does not, since it has more parameters.
    below = parameters - (_parameters(model, info, low) or -math.inf)
    above = _parameters(model, info, high) - parameters
    return (high if below > above else low) / STEP


def _parameters(model: Model, info: DataInfo, thousandths: int) -> int:
    """Return the number of parameters at this width; 0 where a layer would have no channels."""
    try:
        with torch.device("meta"):
            return count_parameters(bare_network(replace(model, width=thousandths / STEP), info, seed=0))
    except ValueError:
        return 0
