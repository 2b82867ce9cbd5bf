"""Compares the masks of runs: how many weights they keep in common, beside what masks drawn at random would."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hidden_subnet.analysis.layers import LayerInside, layers_of
from hidden_subnet.analysis.load import logits_of, masked_network, test_images
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import weights_digest
from hidden_subnet.report.results import table_of
from hidden_subnet.store.find import run_folder
from hidden_subnet.training.finished import Which

if TYPE_CHECKING:
    from pandas import DataFrame

ALL = "all"
"""The name of all layers together."""


@dataclass(frozen=True)
class Overlap:
    """Two masks of a layer of `weights` weights, or of all layers: how many weights each keeps, and both of them."""

    weights: int
    first: int
    second: int
    both: int
    expected: float
    """Mean of `both` for masks drawn at random that keep as many weights of each layer."""
    same_sign: int | None = None
    """How many of the weights that both keep have one sign under both masks; None where only masks are compared."""

    @property
    def jaccard(self) -> float:
        """Weights that both keep, as a fraction of those that either keeps; 1 where neither keeps any."""
        either = self.first + self.second - self.both
        return self.both / either if either else 1.0

    @property
    def chance(self) -> float:
        """The same fraction for masks drawn at random, to rounding: k / (2 - k) where both keep the fraction k."""
        either = self.first + self.second - self.expected
        return self.expected / either if either else 1.0

    @property
    def nested(self) -> float:
        """Weights that both keep, as a fraction of the smaller mask: 1 where it is part of the other."""
        least = min(self.first, self.second)
        return self.both / least if least else 1.0


def overlap(first: Tensor, second: Tensor, signs: tuple[Tensor, Tensor] | None = None) -> Overlap:
    """Compare two boolean masks of one shape; `signs` are those of the weights under them, -1, 0 and 1."""
    n, a, b, both = first.numel(), int(first.sum()), int(second.sum()), first & second
    same = None if signs is None else int((both & (signs[0] == signs[1])).sum())
    return Overlap(n, a, b, int(both.sum()), a * b / n, same)


def together(layers: Sequence[Overlap]) -> Overlap:
    """Return the overlap of all layers; chance is that of masks with as many weights in each of them."""
    counts = [(each.weights, each.first, each.second, each.both) for each in layers]
    n, a, b, both = (sum(column) for column in zip(*counts, strict=True))
    signs = [each.same_sign for each in layers if each.same_sign is not None]
    same = sum(signs) if len(signs) == len(layers) else None
    return Overlap(n, a, b, both, sum(each.expected for each in layers), same)


@dataclass(frozen=True)
class Looked:
    """The part of a run that is compared."""

    folder: Path
    layers: list[LayerInside]
    signs: dict[str, Tensor]
    """Those of the weights under the masks, int8, -1, 0 and 1."""
    weights_sha256: str
    taken: Tensor
    """The class that the network takes each test image for, int64 (N,)."""
    labels: Tensor

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks by the paths of their layers."""
        return {layer.path: layer.mask for layer in self.layers}

    @property
    def accuracy(self) -> float:
        """Fraction of the test images that are taken for what they are."""
        return float((self.taken == self.labels).double().mean())


@dataclass(frozen=True)
class Pair:
    """Two runs."""

    first: Looked
    second: Looked
    layers: dict[str, Overlap]
    """By the path of the layer, and all together as "all"."""

    @property
    def same_weights(self) -> bool:
        """Whether both have the same weights under their masks, so that a weight kept by both is the same weight."""
        return self.first.weights_sha256 == self.second.weights_sha256

    @property
    def agreement(self) -> float | None:
        """Fraction of the test images that both take for the same class; None where they have other test images."""
        if not torch.equal(self.first.labels, self.second.labels):
            return None
        return float((self.first.taken == self.second.taken).double().mean())


def pairs(runs: Sequence[Path], which: Which = "last", *, use: str | Sequence[str] = ()) -> list[Pair]:
    """Compare every two of the finished runs in these folders.

    `which`, `use`, and what is raised, are those of `hidden_subnet.load`; ConfigError too where their layers differ.
    """
    looked = [_look(folder, which, use) for folder in runs]
    return [_pair(first, second) for first, second in combinations(looked, 2)]


def compare(*runs: str | Path, which: Which = "last", use: str | Sequence[str] = ()) -> "DataFrame":
    """Return a row for each layer, and for all together, of every two of the finished runs in these folders.

    >>> table = hs.compare(run, other)

    Columns: first, second, layer, weights, first_kept, second_kept, both, same_sign (of both), jaccard, chance,
    nested. `which`, `use`, and what is raised, are those of `load`; ConfigError too where the layers of the runs are
    others.
    """
    rows = [
        {
            "first": pair.first.folder.name,
            "second": pair.second.folder.name,
            "layer": layer,
            "weights": found.weights,
            "first_kept": found.first,
            "second_kept": found.second,
            "both": found.both,
            "same_sign": found.same_sign,
            "jaccard": found.jaccard,
            "chance": found.chance,
            "nested": found.nested,
        }
        for pair in pairs([run_folder(run) for run in runs], which, use=use)
        for layer, found in pair.layers.items()
    ]
    return table_of(rows)


def _pair(first: Looked, second: Looked) -> Pair:
    shapes = [{path: tuple(mask.shape) for path, mask in each.masks.items()} for each in (first, second)]
    if shapes[0] != shapes[1]:
        differs = next(path for path in [*shapes[0], *shapes[1]] if shapes[0].get(path) != shapes[1].get(path))
        sizes = " and ".join(str(each.get(differs, "not there")) for each in shapes)
        raise ConfigError(
            f"{first.folder.name} and {second.folder.name} are other networks (layer {differs}: {sizes}); for the runs "
            f"of one network, type: {PROGRAM} results"
        )
    layers = {
        each.path: overlap(each.mask, other.mask, (first.signs[each.path], second.signs[each.path]))
        for each, other in zip(first.layers, second.layers, strict=True)
    }
    return Pair(first, second, {**layers, ALL: together([*layers.values()])})


def _look(folder: Path, which: Which, use: str | Sequence[str]) -> Looked:
    network = masked_network(folder, which, use)
    if not masked_layers(network):
        raise ConfigError(f"{folder.name}: its method masks nothing; for the runs with masks, type: {PROGRAM} results")
    images, labels = test_images(folder, use=use)
    taken = logits_of(network, images).argmax(1)
    with torch.no_grad():
        signs = {path: layer.effective_weight().sign().to(torch.int8) for path, layer in masked_layers(network)}
    return Looked(folder, layers_of(network), signs, weights_digest(network), taken, labels)
