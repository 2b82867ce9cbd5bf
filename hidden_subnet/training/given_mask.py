"""The mask that `mask=` names, of a finished run, of a file of ours or of others, and how a network takes it.

It is what is kept that counts: the digest in a run's id is over names of layers, shapes and bits.
"""

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hidden_subnet.config.differences import flat, shown
from hidden_subnet.config.identity import projection
from hidden_subnet.config.own_parts import require_own_parts
from hidden_subnet.config.parents import names_method
from hidden_subnet.config.registries import METHODS, info_of, method_traits, plain
from hidden_subnet.config.settings import Config
from hidden_subnet.data.npz import read_arrays
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.masks.given import highest_where_kept, scores_of_mask
from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks
from hidden_subnet.methods.apply import apply_method
from hidden_subnet.methods.base import Method
from hidden_subnet.models.from_config import bare_network
from hidden_subnet.models.pretrained_weights import (
    SHOWN,
    WeightMatch,
    differences,
    is_safetensors,
    match_tensors,
    read_weights,
    unwrapped,
)
from hidden_subnet.store import files, folders
from hidden_subnet.store.content import open_regular, remembered
from hidden_subnet.store.pretrained import errors_of, file_or_run, refuse_digest_alone, require_digest
from hidden_subnet.training import mask_file
from hidden_subnet.training.finished import Which, checkpoint_of, config_to_build, load_into

OTHER = "give another run or file, as in: mask=runs/digits-conv2"
SAVE = "torch.save({'fc1': mask}, 'masks.pt')"
WEIGHT = ".weight"
"""The end of a layer's name where others have that of its weight."""


@dataclass(frozen=True)
class GivenMask:
    """The masks as they were read."""

    name: str
    """That of the run, or of the file."""
    path: Path
    masks: dict[str, Tensor]
    """Boolean masks (out, in, *kernel) by the path of their layer."""
    projection: dict[str, Any] | None = None
    """The settings of the run, as in its id; None for a file of others."""
    weights_sha256: str | None = None
    """Digest of the random weights under which the mask was found."""
    has_order: bool = True
    """False: the masks are not in the order of their network, as in safetensors."""


@dataclass(frozen=True)
class MaskMatch:
    """The layers of a mask matched with those of a network."""

    given: GivenMask
    fit: dict[str, Tensor]
    """Masks in the shapes of the network, by its paths."""
    without: dict[str, str]
    """Layers of the network that no mask fits, and why: "10x50 here, 100x50 there"."""
    more: list[str]
    """Names in the file of layers that the network does not have."""
    keeps_all: bool = True
    """Whether a layer without a mask keeps all weights; otherwise its scores stay as they were drawn."""

    @property
    def density(self) -> float:
        """The fraction of weights that the masks keep, of the layers that they fit."""
        kept = sum(int(mask.count_nonzero()) for mask in self.fit.values())
        return kept / sum(mask.numel() for mask in self.fit.values())

    def record(self) -> dict[str, Any]:
        """Return plain values for result.json."""
        return {
            "from": self.given.name,
            "file": str(self.given.path),
            "density": self.density,
            "layers": [*self.fit],
            "without": self.without,
        }

    def summary(self) -> str:
        """Return one line: how many layers fit, the density, and what happens to the others."""
        count = f"{len(self.fit)} of {len(self.fit) + len(self.without)} layers fit"
        line = f"mask of {self.given.name}: {count}, with {100 * self.density:.4g} % of their weights kept"
        others = [f"{path}: {why}" for path, why in self.without.items()]
        if others:
            it = "it" if len(others) == 1 else "each"
            effect = f"{it} keeps all weights" if self.keeps_all else f"{it} has its scores as they were drawn"
            some = others[:SHOWN] + [f"and {len(others) - SHOWN} more"] * (len(others) > SHOWN)
            line += f"; {', '.join(some)}, so {effect}"
        if self.more:
            line += f"; not used: {', '.join(self.more[:SHOWN])}{', ...' * (len(self.more) > SHOWN)}"
        return line

    def other_weights(self, config: Config, weights_sha256: str) -> str:
        """Return a line where a network has other random weights than those under which the mask was found, or ""."""
        if self.given.weights_sha256 in (None, weights_sha256) or config.pretrained is not None:
            return ""
        there, here = (settings_of_weights(each) for each in (self.given.projection or {}, projection(config)))
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        pairs = [f"{name} {shown(there.get(name))} there, {shown(here.get(name))} here" for name in names]
        why = "; ".join(pairs) or "another torch drew them"
        return f"mask of {self.given.name}: it was found under other random weights ({why})"


def resolve_mask(config: Config) -> Config:
    """Return the config with the absolute path and the digest of the mask; unchanged without `mask`.

    Raises ConfigError if it is missing or cannot be read, or if its digest is not the given mask_sha256.
    """
    if config.mask is None:
        refuse_digest_alone("mask", config.mask_sha256, "mask=runs/digits-conv2")
        return config
    if names_method(config) and config.mask in METHODS and not Path(config.mask).is_dir():
        return config
    near = difflib.get_close_matches(plain(config.mask), METHODS, n=1, cutoff=0.8)
    if near and not os.path.lexists(config.mask) and names_method(config):
        rule = "names no method, and there is no such file"
        raise ConfigError(problem(f"mask={config.mask}", rule, f"mask={near[0]}", lead="did you mean"))
    path = file_or_run("mask", config.mask, Path(config.out))
    last = path / "checkpoints" / files.LAST
    if path.is_dir():
        path = next((each for each in (last, last.with_suffix(files.MASK)) if folders.is_file(each)), path)
    with errors_of("mask", config.mask):
        digest = remembered("mask 1", _sources(path), lambda sizes: digest_of(read_mask(path).masks))
    require_digest("mask", config.mask, digest, config.mask_sha256)
    return replace(config, mask=str(path), mask_sha256=digest)


def _sources(path: Path) -> list[str]:
    """Return the files from which the mask is computed."""
    run = path if path.is_dir() else (checkpoint_of(path) or (None,))[0]
    of_run = [] if run is None else [run / files.CONFIG, run / files.RESULT]
    return [*map(str, [] if path.is_dir() else [path]), *map(str, of_run)]


def digest_of(masks: Mapping[str, Tensor]) -> str:
    """Return the sha256, 64 hex digits, of names, shapes and bits of masks, whatever their order."""
    state = hashlib.sha256()
    for name in sorted(masks):
        state.update(f"{name} {tuple(masks[name].shape)}\n".encode())
        state.update(np.packbits(masks[name].numpy().reshape(-1)).tobytes())
    return state.hexdigest()


def read_mask(path: Path, sha256: str | None = None) -> GivenMask:
    """Read the mask at a path that `resolve_mask` has found: a run, one of its checkpoints, or a file of masks.

    Raises OSError, ConfigError where the run's own parts are not imported, and ValueError for what is damaged, unsafe
    or none of these, keeps no weight at all, or has another digest than `sha256`.
    """
    checkpoint: tuple[Path, Which] | None = (path, "last") if path.is_dir() else checkpoint_of(path)
    if checkpoint is not None:
        given = _of_run(*checkpoint)
    elif path.suffix == mask_file.SUFFIX:
        file = mask_file.read(path)
        require_own_parts(file.config, metrics=False)
        given = GivenMask(path.name, path, mask_file.masks_of(file), projection(file.config), file.weights_sha256)
    else:
        given = _of_others(path)
    if not any(bool(mask.any()) for mask in given.masks.values()):
        raise ValueError(f"{path}: keeps no weight in any layer; True stands for a weight that is kept; {OTHER}")
    if sha256 is not None and digest_of(given.masks) != sha256:
        raise ValueError(
            f"{path} is another mask than when the run was composed: its digest has changed; restore it, or give the "
            "command again"
        )
    return replace(given, path=path)


def _of_run(folder: Path, which: Which) -> GivenMask:
    """Return the masks of a finished run; its random weights, on which they do not depend, are not drawn."""
    config, result = config_to_build(folder), files.read_result(folder)
    if result is None:
        raise ValueError(f"{folder} is not a finished run; {OTHER}")
    if not method_traits(config).masks:
        raise ValueError(f"{folder.name}: method={config.method.name} masks nothing; {OTHER}")
    network = bare_network(config.model, info_of(config.data), 0)
    method = apply_method(network, config)
    load_into(network, method, folder, result, which)
    return GivenMask(
        folder.name, folder, current_masks(network), result.get("projection"), result.get("weights_sha256")
    )


def _of_others(path: Path) -> GivenMask:
    """Return the masks of a file of torch.save, safetensors or numpy.savez, {layer: bool tensor}."""
    with open_regular(path) as file:
        has_order = not is_safetensors(file.read())
    found = _arrays(path) if path.suffix == ".npz" else read_weights(path, what="masks", advice=OTHER)
    found = {name: value for name, value in unwrapped(found).items() if value.numel()}
    for name, value in found.items():
        if value.dtype is not torch.bool:
            rule = f"{name} holds {str(value.dtype).removeprefix('torch.')} and not bool"
            raise ValueError(f"{path}: {rule}; write mask.bool() for each layer, as in: {SAVE}")
    if not found:
        raise ValueError(f"{path} holds no masks by name; write them, as in: {SAVE}")
    masks = {name.removesuffix(WEIGHT): value.contiguous() for name, value in found.items()}
    return GivenMask(path.name, path, masks, has_order=has_order)


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        return {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}
    except (ValueError, TypeError) as error:  # TypeError: of texts, which torch does not have
        raise ValueError(f"{path}: cannot be read ({error}); {OTHER}") from None


def match_mask(shapes: Mapping[str, tuple[int, ...]], given: GivenMask, *, keeps_all: bool = True) -> MaskMatch:
    """Match masks with the layers of a network, given by their shapes, as pretrained weights are matched.

    By name, with or without ".weight"; where no name matches, in their order, if they have one and all shapes agree.
    Raises ValueError where nothing fits.
    """
    wanted = {f"{path}{WEIGHT}": torch.empty(shape, dtype=torch.bool, device="meta") for path, shape in shapes.items()}
    found = {f"{name}{WEIGHT}": mask for name, mask in given.masks.items()}
    match = match_tensors(wanted, found)
    if not match.values or (match.in_order and not given.has_order):
        unlike = "; ".join(_without_weight(line) for line in differences(wanted, found))
        raise ValueError(f"{given.path}: no layer of it fits this network; {unlike}; {OTHER}")
    return MaskMatch(
        given=given,
        fit={name.removesuffix(WEIGHT): mask for name, mask in match.values.items()},
        without=_without(match),
        more=[name.removesuffix(WEIGHT) for name in match.unexpected],
        keeps_all=keeps_all,
    )


def _without(match: WeightMatch) -> dict[str, str]:
    lines = [_without_weight(line).replace("in the file", "there").split(": ", 1) for line in match.mismatched]
    return dict(lines) | {name.removesuffix(WEIGHT): "not there" for name in match.missing}


def _without_weight(line: str) -> str:
    return line.replace(f"{WEIGHT}: ", ": ", 1)


def give_mask(network: nn.Module, method: Method, given: GivenMask) -> MaskMatch:
    """Let the masked network start from the mask, in place, and return how it fits. Raises ValueError as `match_mask`.

    A method whose mask is given (fixed, finetune) has it as its scores; another one has the scores that it has drawn in
    an order by which the weights of the mask are the first to be kept.
    """
    keeps_all = method.has_given_mask
    layers = masked_layers(network)
    match = match_mask({path: tuple(layer.scores.shape) for path, layer in layers}, given, keeps_all=keeps_all)
    by_value = method.keeps_highest(method.config.method)
    for path, layer in layers:
        scores, mask = layer.scores.detach(), match.fit.get(path)
        if keeps_all:
            scores.copy_(scores_of_mask(torch.ones(scores.shape, dtype=torch.bool) if mask is None else mask))
        elif mask is not None:  # on the CPU, where ties have one order on all machines
            scores.copy_(highest_where_kept(scores.cpu().contiguous(), mask, by_value=by_value))
    method.on_evaluation(0)
    return match


def settings_of_weights(what: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run on which its random weights depend."""
    values = flat(what)
    scaled = values.get("init.scale", "none") != "none"
    names = [name for name in values if name.startswith(("model.", "init."))]
    names += ["data.name", "pretrained", "seeds.weights", *(["prune_rate"] if scaled else [])]
    return {name: values[name] for name in names if name in values}
