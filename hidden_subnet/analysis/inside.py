"""Looks inside a finished run: scores and masks by layer, and what its network takes each test image for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from hidden_subnet.analysis.layers import LayerInside, layers_of
from hidden_subnet.analysis.load import logits_of, masked_network, random_again, test_images
from hidden_subnet.analysis.overlap import Overlap, overlap, together
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.store import files, folders
from hidden_subnet.store.find import run_folder
from hidden_subnet.training.finished import Which, checkpoint_of, load_into

MOST_EPOCHS = 12
"""Most checkpoints of a run whose masks are compared with one another."""


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
    epochs: dict[tuple[int, int], Overlap] = field(default_factory=dict)
    """The masks of every two epochs of which a checkpoint is kept, the earlier epoch first."""
    steady: float | None = None
    """Fraction of the weights that all these checkpoints keep, or all remove; None where there are not two."""

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
    layers = layers_of(network, _first(run, use))
    images, labels = test_images(run, use=use)
    probabilities = logits_of(network, images).softmax(1)
    by_epoch = _masks_by_epoch(run) if layers else {}
    pairs = {
        (first, second): together([overlap(mask, by_epoch[second][path]) for path, mask in by_epoch[first].items()])
        for first, second in combinations(by_epoch, 2)
    }
    rows = files.read_rows(run)
    return Inside(run, which, rows, layers, images, labels, probabilities, pairs, _steady([*by_epoch.values()]))


def _masks_by_epoch(run: Path) -> dict[int, dict[str, Tensor]]:
    """Return the masks of the checkpoints that the run keeps by their epoch, in order; of many, some evenly spaced."""
    network, method, result = random_again(run)
    names = sorted(files.kept_masks(run) or files.kept_checkpoints(run), key=_place)
    paths = [path for path in (run / "checkpoints" / name for name in names) if folders.is_file(path)]
    if (last := len(paths) - 1) >= MOST_EPOCHS:  # before they are read
        paths = [paths[round(at * last / (MOST_EPOCHS - 1))] for at in range(MOST_EPOCHS)]
    found = {}
    for path in paths:
        checkpoint = checkpoint_of(path)
        assert checkpoint is not None
        epoch = load_into(network, method, run, result, checkpoint[1])
        found[epoch] = current_masks(network)
    return dict(sorted(found.items()))


def _place(name: str) -> float:
    """Return the order of a checkpoint: first, the epochs, then best and last."""
    which = Path(name).stem.removeprefix("epoch_")
    return int(which) if which.isdigit() else -1 if which == "first" else math.inf


def _steady(masks: Sequence[dict[str, Tensor]]) -> float | None:
    if len(masks) < 2:
        return None
    same = weights = 0
    for path, first in masks[0].items():
        same += int(torch.stack([each[path] == first for each in masks[1:]]).all(0).sum())
        weights += first.numel()
    return same / weights


def _first(run: str | Path, use: str | Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    try:
        network = masked_network(run, "first", use)
    except FileNotFoundError:  # nothing of it was trained
        return {}
    masks = current_masks(network)
    return {path: (masks[path], layer.scores.detach()) for path, layer in masked_layers(network)}
