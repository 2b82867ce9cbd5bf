"""The file of a subnetwork: seed and settings of its random network, and masks in about n H(k) bits (masks/coding.py).

It is a file of torch.save with a digest, as checkpoints are (store/checkpoints.py). What a layer does to a weight
is a whole number: 0 removes it, 1 keeps it, -1 turns its sign (signed), 2 and more count its coats (multicoat). Put in
the place of the scores, these numbers give the masks again, by the rule of the method. The weights are not in it, since
the seed gives them; tensors that it does not give are, such as batch norm's statistics.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hidden_subnet.config.checks import check
from hidden_subnet.config.convert import as_dict, from_dict
from hidden_subnet.config.program import PROGRAM
from hidden_subnet.config.registries import info_of
from hidden_subnet.config.settings import Config, Library
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.coding import decode, encode
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks, load_trained, scores_state, trained_state
from hidden_subnet.methods.base import Method
from hidden_subnet.models.from_config import bare_network, masked_shapes
from hidden_subnet.store import checkpoints, files, folders

SUFFIX = files.MASK
KIND = "hidden_subnet masks 1"
OF_THE_PLACE = ("out", "tracker", "claim", "checkpoint", "report")
"""Groups of settings that say where a run was executed, and nothing about its network."""
MOST_WEIGHTS = 1_000_000_000
"""A larger network is not built from a file, which anybody may have sent."""
APART = 256.0
"""Ratio of the scores of weights that have a coat more."""
Levels = dict[str, NDArray[np.int8]]
"""Whole numbers by the path of a masked layer, flat, that say what it does to each of its weights."""


@dataclass(frozen=True)
class MaskFile:
    """A file as it was read."""

    path: Path
    config: Config
    epoch: int
    schema: int
    """Number of the rules by which the run was computed (config/identity.py)."""
    weights_sha256: str
    torch: str
    """The version that drew the weights."""
    code: bytes
    layers: list[tuple[str, int, list[tuple[int, int]]]]
    """Path and number of weights of each masked layer, and the ones and bytes of each plane of bits in its code."""
    others: dict[str, Tensor]
    """Tensors by name that the seed does not give."""

    def result(self) -> dict[str, Any]:
        """Return what is asked of a run's result.json to draw its weights again."""
        return {
            "projection": {"schema": self.schema},
            "weights_sha256": self.weights_sha256,
            "environment": {"torch": self.torch},
        }


def write(
    network: nn.Module, method: Method, result: dict[str, Any], epoch: int, path: Path, root: Path | None
) -> None:
    """Write the masks of a network in the state of a checkpoint to a file; the network's scores are replaced.

    root: as in folders.write_atomically. Raises ConfigError where the method changes weights, or where the masks alone
    do not give them again.
    """
    config = method.config
    found = _levels(network, method, epoch)
    settings = {name: value for name, value in as_dict(config).items() if name not in OF_THE_PLACE}
    settings["data"].pop("root", None)
    settings["mask"] = None  # a path of this machine; its digest stays
    code, sizes = _encoded(found)
    scores = scores_state(network)
    state = {
        "kind": KIND,
        "config": settings,
        "epoch": epoch,
        "schema": int(result.get("projection", {}).get("schema", 1)),
        "weights_sha256": result["weights_sha256"],
        "torch": str(result["environment"]["torch"]),
        "layers": sizes,
        "code": torch.frombuffer(bytearray(code), dtype=torch.uint8) if code else torch.zeros(0, dtype=torch.uint8),
        "others": {name: value for name, value in trained_state(network).items() if name not in scores},
    }
    folders.write_atomically(path, checkpoints.encode(state), root=root)


def read(path: Path) -> MaskFile:
    """Read a file. Raises FileNotFoundError, ValueError for a damaged or another file, ConfigError for its settings."""
    state = checkpoints.load(path)
    if state.get("kind") != KIND:
        raise ValueError(f"{path} is not a file of masks; make one of a run, as in: {PROGRAM} mask <run>")
    try:
        config = from_dict(state["config"])
        check(config)
        layers = [
            (str(path), int(size), [(int(ones), int(length)) for ones, length in planes])
            for path, size, planes in state["layers"]
        ]
        others = {str(name): value for name, value in state["others"].items() if isinstance(value, Tensor)}
        return MaskFile(
            path=path,
            config=config,
            epoch=int(state["epoch"]),
            schema=int(state["schema"]),
            weights_sha256=str(state["weights_sha256"]),
            torch=str(state["torch"]),
            code=state["code"].numpy().tobytes(),
            layers=layers,
            others=others,
        )
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None


def refuse_huge(file: MaskFile) -> None:
    """Raise ValueError for a network of more than MOST_WEIGHTS parameters, before it takes memory."""
    if file.config.code is not None or file.config.model.library is not Library.own:
        return  # a network whose file the user has named, or one of a library, which has a size
    with torch.device("meta"):
        network = bare_network(file.config.model, info_of(file.config.data), 0)
    if (count := sum(each.numel() for each in network.parameters())) > MOST_WEIGHTS:
        raise ValueError(
            f"{file.path}: its network has {count:,} weights, and at most {MOST_WEIGHTS:,} are built from a file"
        )


def put_into(network: nn.Module, method: Method, file: MaskFile) -> None:
    """Put masks and other tensors into the masked random network, in place. Raises ValueError for another network."""
    levels = _levels_in(file, {path: layer.scores.numel() for path, layer in masked_layers(network)})
    try:
        load_trained(network, scores_state(network) | file.others)
    except ValueError as error:
        raise ValueError(f"{file.path} is damaged: {error}") from None
    _put(network, method, levels, file.epoch)


def masks_of(file: MaskFile) -> dict[str, Tensor]:
    """Return the boolean mask of each layer of a file, (out, in, *kernel), without drawing the weights of its network.

    Raises ValueError where it is damaged, or of another network than its settings make.
    """
    refuse_huge(file)
    shapes = masked_shapes(file.config.model, info_of(file.config.data))
    levels = _levels_in(file, {path: math.prod(shape) for path, shape in shapes.items()})
    return {path: torch.from_numpy(levels[path] != 0).view(shape) for path, shape in shapes.items()}


def _levels_in(file: MaskFile, sizes: dict[str, int]) -> Levels:
    """Return what a file does to the weights of layers with these sizes, in their order. Raises ValueError."""
    if [*sizes.items()] != [(path, size) for path, size, _ in file.layers]:
        raise ValueError(f"{file.path} is damaged: its masks are of another network than its settings make")
    try:
        return _decoded(file.code, file.layers)
    except ValueError as error:
        raise ValueError(f"{file.path} is damaged: {error}") from None


def _levels(network: nn.Module, method: Method, epoch: int) -> Levels:
    """Return what the layers do to their weights, so that it gives the same effective weights to the bit."""
    if not method.weights_stay():
        raise ConfigError(
            f"method={method.config.method.name}: changes weights, and a file of masks has none; to write them, as in: "
            f"{PROGRAM} export RUN"
        )
    wanted = _effective(network)
    for levels in _candidates(network):  # all made before the first one replaces the scores
        _put(network, method, levels, epoch)
        if all(torch.equal(before, after) for before, after in zip(wanted, _effective(network), strict=True)):
            return levels
    raise ConfigError(
        f"method={method.config.method.name}: its masks alone do not give its weights again; to write them, as in: "
        f"{PROGRAM} export RUN"
    )


def _effective(network: nn.Module) -> list[Tensor]:
    with torch.no_grad():
        return [layer.effective_weight().clone() for _, layer in masked_layers(network)]


def _candidates(network: nn.Module) -> list[Levels]:
    """Return what the layers may do to their weights: keep some; turn the signs of some; count the coats of each."""
    kept, signed, counted = Levels(), Levels(), Levels()
    masks, effective = current_masks(network), _effective(network)
    for (path, layer), product in zip(masked_layers(network), effective, strict=True):
        kept[path] = _flat(masks[path])
        signed[path] = _flat(masks[path] * layer.scores.detach().sign())
        counted[path] = _flat((product / layer.weight.detach()).nan_to_num(0, 0, 0).round().clamp(-1, 127))
    return [kept, signed, counted]


def _flat(levels: Tensor) -> NDArray[np.int8]:
    return levels.reshape(-1).to(torch.int8).numpy()


def _put(network: nn.Module, method: Method, levels: Levels, epoch: int) -> None:
    with torch.no_grad():
        for path, layer in masked_layers(network):
            level = torch.from_numpy(levels[path]).reshape(layer.scores.shape)
            # 1, APART, APART ** 2, ...: pruning=global compares layers by scores times a factor of each layer.
            layer.scores.copy_(level * APART ** (level.abs() - 1).clamp(min=0).float())
    method.on_evaluation(epoch)


def _encoded(levels: Levels) -> tuple[bytes, list[list[Any]]]:
    """Return the code of all layers, and of each its path, its size, and the ones and bytes of each plane of bits."""
    code, sizes = b"", []
    for path, level in levels.items():
        planes = []
        for bits in _planes(level):
            part = encode(bits)
            planes.append([int(np.count_nonzero(bits)), len(part)])
            code += part
        sizes.append([path, len(level), planes])
    return code, sizes


def _planes(level: NDArray[np.int8]) -> Iterator[NDArray[np.bool_]]:
    """Yield bits that give the level: kept or not; of these, with its sign or not; of these, with 2 or not ..."""
    yield level != 0
    left = level[level != 0]
    yield left > 0
    left = left[left > 0]
    for count in range(2, int(left.max(initial=1)) + 1):
        yield left >= count
        left = left[left >= count]


def _decoded(code: bytes, sizes: Sequence[tuple[str, int, Sequence[tuple[int, int]]]]) -> Levels:
    levels, at = Levels(), 0
    for path, size, planes in sizes:
        level = np.zeros(size, dtype=np.int8)
        where = np.arange(size)
        for number, (ones, length) in enumerate(planes):
            bits = decode(code[at : at + length], len(where), ones)
            at += length
            if number == 1:
                level[where[~bits]] = -1
            where = where[bits]
            level[where] = max(1, number)
        levels[path] = level
    if at != len(code):
        raise ValueError("it holds more than the masks of its layers")
    return levels
