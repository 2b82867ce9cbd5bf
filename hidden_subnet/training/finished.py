"""The checkpoints of a finished run, and the network into which they are loaded."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hidden_subnet.config.identity import digest, id_of, projection
from hidden_subnet.config.own_parts import require_own_parts
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.registries import MethodTraits, method_traits
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import AGAIN
from hidden_subnet.masks.state import load_trained, weights_digest
from hidden_subnet.methods.base import Method
from hidden_subnet.models.from_config import has_stable_digest, weights_from_seed
from hidden_subnet.store import checkpoints, files, folders
from hidden_subnet.store.files import load_config
from hidden_subnet.store.find import run_folder
from hidden_subnet.training import mask_file

Which = Literal["first", "best", "last"] | int
"""A checkpoint by name, or by the number of an epoch that checkpoint.every kept."""


def finished(run: str | Path) -> Path:
    """Return the folder of a run, as `run_folder` finds it. Raises FileNotFoundError where that is not finished."""
    folder = run_folder(run)
    if not folders.is_file(folder / files.RESULT):
        raise FileNotFoundError(
            f"{folder} is not a finished run: it holds no {files.RESULT}; choose a folder in runs/ that holds one"
        )
    return folder


def checkpoint_of(path: Path) -> tuple[Path, Which] | None:
    """Return run folder and name of the checkpoint `path`; None for a file that is not a checkpoint in a run."""
    name = path.stem
    which: Which | None = None
    if name in ("first", "best", "last"):
        which = name  # type: ignore[assignment]
    elif name.startswith("epoch_") and name[6:].isdigit():
        which = int(name[6:])
    if which is None or path.parent.name != "checkpoints" or not (path.parent.parent / files.CONFIG).is_file():
        return None
    return path.absolute().parent.parent, which


def load_into(network: nn.Module, method: Method, folder: Path, result: dict[str, Any], which: Which) -> int:
    """Load a checkpoint of the finished run in `folder` into its masked network, in place, and return its epoch.

    Raises FileNotFoundError where there is none, and ValueError where it is damaged or of another network.
    """
    config = method.config
    masks = folder / "checkpoints" / files.checkpoint_name(which if method.is_trained() else "last")
    if not folders.is_file(masks) and folders.is_file(masks.with_suffix(files.MASK)):
        return _load_masks(network, method, folder, masks.with_suffix(files.MASK))
    state = read_checkpoint(folder, which, config, method)
    if state is None:
        return 0
    try:
        load_trained(network, state["trained"])
    except ValueError as error:
        raise ValueError(f"{folder / 'checkpoints' / files.checkpoint_name(which)}: {error}") from None
    method.on_evaluation(int(state["epoch"]))  # epochs may differ in prune rate, and so in their masks
    stays = method.weights_stay() and not config.train.norm_affine
    if not weights_from_seed(config) and stays and has_stable_digest(config):
        require_its_weights(folder.name, result, weights_digest(network))
    return int(state["epoch"])


def _load_masks(network: nn.Module, method: Method, folder: Path, path: Path) -> int:
    """Load the file of masks that a run has in the place of a checkpoint (checkpoint.keep=mask); return its epoch."""
    file = mask_file.read(path)
    wanted = id_of(method.config)
    if (found := id_of(file.config)) != wanted:
        raise ValueError(
            f"{path} is of the run with the id {found}, and this run is {wanted}: another file was put there; restore "
            "it, or run again with force=true"
        )
    mask_file.put_into(network, method, file)
    return file.epoch


def require_its_weights(name: str, result: dict[str, Any], digest: str) -> None:
    """Raise ValueError where `digest`, of the weights of a network, differs from that of the run or file `name`."""
    if digest != result["weights_sha256"]:
        raise ValueError(
            f"torch {torch.__version__} draws other random weights from the seed than torch "
            f"{result['environment']['torch']}, with which {name} was run (sha256 {digest[:12]}, and "
            f"{result['weights_sha256'][:12]} then): load it with that version"
        )


def read_checkpoint(
    folder: Path, which: Which, config: Config, method: MethodTraits | type[MethodTraits]
) -> dict[str, Any] | None:
    """Return a checkpoint of the finished run in `folder`; None where nothing was trained and the seed is enough.

    Raises FileNotFoundError where it does not exist, and ValueError for a damaged file, or for `best` of a run without
    validation images.
    """
    if not method.is_trained():
        if weights_from_seed(config) and not config.train.norm_batches and not method.changes_weights:
            return None
        which = "last"
    if which == "best" and config.data.validation == 0:
        raise ValueError(f"{folder.name} has no best epoch, since data.validation=0 held out no images; load 'last'")
    path = folder / "checkpoints" / files.checkpoint_name(which)
    if not folders.is_file(path):
        kept = [name for name in files.kept_checkpoints(folder) if folders.is_file(folder / "checkpoints" / name)]
        names = [Path(name).stem.removeprefix("epoch_") for name in kept or files.kept_masks(folder)]
        missing = f"epoch {which}" if isinstance(which, int) else f"the name {which}"
        raise FileNotFoundError(f"{folder.name} has no checkpoint of {missing}; it has {', '.join(names)}")
    state = checkpoints.load(path)
    checkpoints.require_own(path, state)
    return state


def checkpoint_of_parent(parent: Config, which: Which) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint of the run from which another one starts, by name, on the CPU.

    Raises ValueError where it is not finished, or damaged, and FileNotFoundError where it has no such checkpoint.
    """
    folder = files.folder_of(parent)
    if not folders.is_file(folder / files.RESULT):
        raise ValueError(f"its parent {folder.name} is not done; the same command runs it first")
    try:
        state = read_checkpoint(folder, which, parent, method_traits(parent))
    except (FileNotFoundError, ValueError) as error:
        again = f"{PROGRAM} rm --parents {folder.name}"
        raise ValueError(f"its parent cannot be read ({error}); remove it, and {AGAIN}: {again}") from None
    assert state is not None
    trained: dict[str, Tensor] = state["trained"]
    return trained


def config_to_build(folder: Path) -> Config:
    """Return the config of a finished run.

    Raises ConfigError where its own parts are not imported, or have changed since, and ValueError where the result is
    of another run.
    """
    config = load_config(folder / files.CONFIG)
    require_own_parts(config, metrics=False)
    result = files.read_result(folder)
    recorded = result.get("projection") if result is not None else None
    if isinstance(recorded, dict) and _settings_id(recorded) != _settings_id(projection(config)):
        raise ValueError(
            f"{folder / files.CONFIG} and {files.RESULT} there are of two runs: another file was put there; restore "
            "it, or run again with force=true"
        )
    return config


def _settings_id(what: dict[str, Any]) -> str:
    """Return the digest of a projection without the rules of its version, which a run keeps."""
    return digest({**what, "schema": 0})
