"""checkpoint.keep=mask: a finished run has a file of masks in the place of each checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.state import load_trained
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.models.from_config import random_network
from hidden_subnet.store import checkpoints, files, folders
from hidden_subnet.training import mask_file
from hidden_subnet.training.experiment import Resolved


def write_masks(run: Resolved, folder: Path, result: dict[str, Any], say: Callable[[str], None]) -> list[Path]:
    """Write the masks of each checkpoint but the first beside it; return the checkpoints that need not stay.

    result: what result.json will hold. Where masks and seed do not give the weights again, none is written, `say` says
    so, and all checkpoints stay.
    """
    network = random_network(run.config, run.info, run.weights_seed, run.schema)
    method = apply_method(network, run.config)
    where = folder / "checkpoints"
    there = [where / name for name in files.kept_checkpoints(folder) if folders.is_file(where / name)]
    try:
        for path in there:
            if path.name != files.FIRST:
                state = checkpoints.load(path)
                load_trained(network, state["trained"])
                method.on_evaluation(int(state["epoch"]))
                mask_file.write(network, method, result, int(state["epoch"]), path.with_suffix(files.MASK), None)
    except ConfigError as error:
        for path in there:
            folders.remove(path.with_suffix(files.MASK))
        say(f"checkpoint.keep=mask: {error}; the checkpoints of the run stay")
        return []
    return there
