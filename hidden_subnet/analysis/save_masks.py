"""Writes the masks of a finished run to a file from which `load` makes its subnetwork again (analysis/mask_file.py)."""

from collections.abc import Sequence
from pathlib import Path

from hidden_subnet.analysis import mask_file
from hidden_subnet.analysis.load import Which, finished, load_into, random_again
from hidden_subnet.config.own_parts import import_own_parts
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.from_config import weights_from_seed
from hidden_subnet.store import folders


def save_masks(
    run: str | Path, to: str | Path | None = None, which: Which = "last", *, use: str | Sequence[str] = ()
) -> Path:
    """Write the masks of a checkpoint of a run to a file in about n H(k) bits, and return its path.

    >>> path = hs.save_masks(run, "x.mask")
    >>> model = hs.load(path)

    `load` and `load_masks` take the file in place of the run, here or on another machine with the same torch. to: by
    default <which>.mask in the folder of the run. use: as in `load`. Raises its errors, and ConfigError where masks
    and seed do not give the weights: for pretrained ones, and methods that change them.
    """
    import_own_parts(use)
    folder = finished(run)
    network, method, result = random_again(folder)
    if not weights_from_seed(method.config):
        raise ConfigError(
            f"pretrained={method.config.pretrained}: the seed does not give these weights; to write them, type: "
            f"{PROGRAM} export {folder.name}"
        )
    epoch = load_into(network, method, folder, result, which)
    path = folder / f"{which}{mask_file.SUFFIX}" if to is None else Path(to)
    root = None if to is None else folders.make_parent(path, None)
    mask_file.write(network, method, result, epoch, path, root)
    return path
