"""Writes the masks of a finished run to a file: one that `load` makes the subnetwork from, or boolean tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import safetensors.torch

from hidden_subnet.analysis.load import random_again
from hidden_subnet.config.own_parts import import_own_parts
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.models.from_config import weights_from_seed
from hidden_subnet.store import folders
from hidden_subnet.training import mask_file
from hidden_subnet.training.finished import Which, finished, load_into

Format = Literal["mask", "safetensors"]


def save_masks(
    run: str | Path,
    to: str | Path | None = None,
    which: Which = "last",
    *,
    format: Format | None = None,
    use: str | Sequence[str] = (),
) -> Path:
    """Write the masks of a checkpoint of a run to a file in about n H(k) bits, and return its path.

    >>> path = hs.save_masks(run, "x.mask")
    >>> model = hs.load(path)

    `load`, `load_masks` and mask= take the file in place of the run, here or on another machine with the same torch.
    to: by default <which>.mask in the folder of the run. format: safetensors writes plain boolean tensors by layer,
    which other programs and mask= read, of any method with masks; by default as `to` ends, else mask. use: as in
    `load`. Raises its errors, and ConfigError where masks and seed do not give the weights: for pretrained ones, and
    methods that change them.
    """
    import_own_parts(use)
    folder = finished(run)
    format = _format(to) if format is None else format
    path = folder / f"{which}.{format}" if to is None else Path(to)
    network, method, result = random_again(folder)
    if format == "mask" and not weights_from_seed(method.config):
        raise ConfigError(
            f"pretrained={method.config.pretrained}: the seed does not give these weights; to write them, type: "
            f"{PROGRAM} export {folder.name}"
        )
    epoch = load_into(network, method, folder, result, which)
    root = None if to is None else folders.make_parent(path, None)
    if format == "mask":
        mask_file.write(network, method, result, epoch, path, root)
        return path
    if not masked_layers(network):
        rule = f"method={method.config.method.name} masks nothing; for the runs with masks"
        raise ConfigError(problem(folder.name, rule, *PROGRAM.split(), "results"))
    masks = {name: mask.contiguous() for name, mask in current_masks(network).items()}
    folders.write_atomically(path, safetensors.torch.save(masks), root=root)
    return path


def _format(to: str | Path | None) -> Format:
    return "safetensors" if to is not None and Path(to).suffix == ".safetensors" else "mask"
