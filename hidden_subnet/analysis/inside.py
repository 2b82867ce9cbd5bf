"""Looks inside a finished run: scores and masks by layer, and what its network takes each test image for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hidden_subnet.analysis.load import logits_of, masked_network, test_images
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.store import files
from hidden_subnet.store.find import run_folder
from hidden_subnet.training.finished import Which


@dataclass(frozen=True)
class LayerInside:
    """A masked layer; all tensors have the shape of its weight: (out, in / groups, *kernel)."""

    path: str
    weight: Tensor
    """As drawn or trained, before the mask."""
    mask: Tensor
    scores: Tensor
    first: tuple[Tensor, Tensor] | None
    """Mask and scores before training; None where the run keeps none."""
    groups: int = 1
    """Groups of a conv layer."""
    inputs_first: bool = False
    """Whether the weight is (in, out, *kernel), as that of a transposed conv layer and of an embedding."""

    @property
    def density(self) -> float:
        """Fraction of the weights that is kept."""
        return float(self.mask.double().mean())

    @property
    def units(self) -> Tensor:
        """Number of weights that each output unit (filter, neuron) keeps; one with 0 is dead."""
        return self._grouped().sum((2, 3)).flatten()

    @property
    def inputs(self) -> Tensor:
        """Number of weights that each input (channel, neuron before it) keeps; one with 0 is not used."""
        return self._grouped().sum((1, 3)).flatten()

    def _grouped(self) -> Tensor:
        """Return the mask as (groups, units of a group, inputs of a group, kernel)."""
        first, second = len(self.mask) // self.groups, self.mask.shape[1]
        parts = self.mask.reshape(self.groups, first, second, -1)
        return parts.transpose(1, 2) if self.inputs_first else parts

    @property
    def changed(self) -> float | None:
        """Fraction of the weights that were kept at first and are not any more, or the reverse."""
        return None if self.first is None else float((self.first[0] != self.mask).double().mean())


@dataclass(frozen=True)
class Inside:
    """A checkpoint of a run, from inside."""

    folder: Path
    which: Which
    rows: list[dict[str, float]]
    """Those of metrics.jsonl, one for each epoch."""
    layers: list[LayerInside]
    """In the order of the network; none where the method masks nothing."""
    images: Tensor
    """Normalised test images (N, C, H, W)."""
    labels: Tensor
    """Their classes, int64 (N,)."""
    probabilities: Tensor
    """The softmax of the logits, (N, classes)."""

    @property
    def accuracy(self) -> float:
        """Fraction of the test images that are taken for what they are."""
        return float((self.probabilities.argmax(1) == self.labels).double().mean())

    def confusion(self) -> Tensor:
        """Return the number of images of each class (row) that are taken for each class (column)."""
        classes = self.probabilities.shape[1]
        pairs = self.labels * classes + self.probabilities.argmax(1)
        return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def most_wrong(self, number: int) -> list[int]:
        """Return the images of which the network is surest of another class, the surest first."""
        own = self.probabilities.gather(1, self.labels[:, None])[:, 0]
        wrong = (self.probabilities.max(1).values - own).sort(descending=True, stable=True)
        return [at for at, by in zip(wrong.indices.tolist(), wrong.values.tolist(), strict=True) if by > 0][:number]


def look(run: str | Path, which: Which = "last", *, use: str | Sequence[str] = ()) -> Inside:
    """Return a checkpoint of the finished run in the folder `run`, from inside.

    `which`, `use`, and what is raised, are those of `hidden_subnet.load`; DataError too where the images are not there.
    """
    run = run_folder(run)
    network = masked_network(run, which, use)
    masks, before = current_masks(network), _first(run, use)
    modules = dict(network.named_modules())
    layers = []
    for path, layer in masked_layers(network):
        module = modules.get(path)
        layers.append(
            LayerInside(
                path, layer.weight.detach(), masks[path], layer.scores.detach(), before.get(path),
                groups=module.groups if isinstance(module, _ConvNd) else 1,
                inputs_first=isinstance(module, _ConvTransposeNd | nn.Embedding),
            )
        )  # fmt: skip
    images, labels = test_images(run, use=use)
    probabilities = logits_of(network, images).softmax(1)
    return Inside(run, which, files.read_rows(run), layers, images, labels, probabilities)


def _first(run: str | Path, use: str | Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    try:
        network = masked_network(run, "first", use)
    except FileNotFoundError:  # nothing of it was trained
        return {}
    masks = current_masks(network)
    return {path: (masks[path], layer.scores.detach()) for path, layer in masked_layers(network)}
