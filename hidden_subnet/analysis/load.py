"""Loads the subnetwork of a finished run as a plain torch module, without masks and scores, and its test images."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hidden_subnet.config.own_parts import import_own_parts, require_own_parts
from hidden_subnet.config.registries import DATA
from hidden_subnet.config.settings import Config
from hidden_subnet.masks.layers import cached_masks, masked_layers, remove_masks
from hidden_subnet.masks.state import current_masks, weights_digest
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Method
from hidden_subnet.models.from_config import random_network, weights_from_seed
from hidden_subnet.store import files
from hidden_subnet.training import mask_file
from hidden_subnet.training.experiment import open_images, resolve
from hidden_subnet.training.finished import Which, config_to_build, finished, load_into, require_its_weights
from hidden_subnet.training.mask_file import MaskFile

BATCH = 500
"""Images that go through the network at once."""


def load(run: str | Path, which: Which = "last", *, use: str | Sequence[str] = ()) -> nn.Module:
    """Return the subnetwork of a run as plain torch layers, on the CPU and in evaluation mode; pruned weights are 0.

    >>> model = hs.load(run)
    >>> logits = model(torch.zeros(5, 1, 8, 8))

    It maps normalised images (B, C, H, W), as `test_images(run)` returns them, to logits (B, classes), in float32 also
    where the run had train.precision=bf16. The random weights are drawn again from the seed of the run; pretrained ones
    are in its checkpoints. run: its folder, the beginning or the 12 digits of its name in runs/, or a file of masks
    (save_masks). use: the files of the user's own parts that the run was started with, which are imported; nothing in
    the run's folder is. Raises FileNotFoundError if `run` is not a finished run or does not have the checkpoint, and
    ValueError if this torch draws other weights from the seed, or if the checkpoint is damaged.
    """
    network = masked_network(run, which, use)
    remove_masks(network)
    return network.requires_grad_(False).eval()


def load_masks(run: str | Path, which: Which = "last", *, use: str | Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the mask of each masked layer of a run by its path, bool (out, in, *kernel), True where a weight is kept.

    >>> hs.load_masks(run)["fc1"].double().mean().item()
    0.5

    `which` and `use`, and what is raised, are those of `load`.
    """
    return current_masks(masked_network(run, which, use))


def load_scores(run: str | Path, which: Which = "last", *, use: str | Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the scores of each masked layer of a run by its path, float32 (out, in, *kernel).

    >>> scores = hs.load_scores(run)["fc1"]

    `which` and `use`, and what is raised, are those of `load`; ValueError too for a run that keeps only its masks.
    """
    import_own_parts(use)
    if not Path(run).is_file() and files.kept_masks(folder := finished(run)):
        raise ValueError(f"{folder.name} keeps its masks and no scores (checkpoint.keep=mask)")
    return {path: layer.scores.detach().clone() for path, layer in masked_layers(masked_network(run, which, use))}


def masked_network(run: str | Path, which: Which, use: str | Sequence[str]) -> nn.Module:
    """Return the network of a run with its masks and scores, on the CPU, in the state of a checkpoint, as `load`."""
    import_own_parts(use)
    if Path(run).is_file():
        return _of_mask_file(mask_file.read(Path(run)))
    network, method, result = random_again(run)
    load_into(network, method, finished(run), result, which)
    return network


def random_again(run: str | Path) -> tuple[nn.Module, Method, dict[str, Any]]:
    """Return the masked network of a finished run as it was before training, its method, and its result.json.

    Its own parts are imported. Raises the errors of `load`.
    """
    folder = finished(run)
    config = config_to_build(folder)
    result = files.read_result(folder)
    assert result is not None
    network, method = _drawn(config, result, folder.name)
    return network, method, result


def _of_mask_file(file: MaskFile) -> nn.Module:
    require_own_parts(file.config, metrics=False)
    mask_file.refuse_huge(file)
    network, method = _drawn(file.config, file.result(), file.path.name)
    mask_file.put_into(network, method, file)
    return network


def _drawn(config: Config, result: dict[str, Any], name: str) -> tuple[nn.Module, Method]:
    run = resolve(config, "cpu", result)
    network = random_network(config, run.info, run.weights_seed, run.schema)
    if weights_from_seed(config):
        require_its_weights(name, result, weights_digest(network))
    return network, apply_method(network, config)


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of the images (N, C, H, W), (N, classes), in evaluation mode; masks are computed once."""
    network.eval()
    with cached_masks(network):
        return torch.cat([network(batch) for batch in torch.split(images, BATCH)])


def config_to_measure(folder: Path) -> Config:
    """Return the config of a run, to read its images again; where it knows them by name only, their names are enough.

    So a run of 0.1.0 on image folders is measured on what has these names now, and other images show in other numbers.
    """
    config = config_to_build(folder)
    if not DATA[config.data.name].in_folders:
        return config
    return replace(config, data=replace(config.data, trust_names=True))


def test_images(run: str | Path, *, use: str | Sequence[str] = ()) -> tuple[Tensor, Tensor]:  # noqa: PT028
    """Return the test images of a run, normalised as for its network, float32 (N, C, H, W), and labels, int64 (N,).

    >>> images, labels = hs.test_images(run)
    >>> accuracy = (hs.load(run)(images).argmax(1) == labels).double().mean()

    use: as in `load`. Raises DataError where they are not there, or not those that the run was on.
    """
    import_own_parts(use)
    with open_images(resolve(config_to_measure(finished(run)), "cpu")) as loaders:
        return _whole(loaders.test)


def train_images(run: str | Path, *, use: str | Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Return the images that a run is trained on, as `test_images`: without those held out, and not augmented.

    >>> images, labels = hs.train_images(run)

    Shuffled once. `use`, and what is raised, are those of `test_images`.
    """
    import_own_parts(use)
    config = config_to_measure(finished(run))
    plain = replace(config, data=replace(config.data, crop=0, flip=False, resized_crop=False, augment=[]))
    with open_images(resolve(plain, "cpu")) as loaders:
        return _whole(loaders.train.epoch(0, 0))


def _whole(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)
