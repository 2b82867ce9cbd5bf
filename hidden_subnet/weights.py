"""Weights from a file into a network: what fits is copied, what does not is named."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hidden_subnet import checkpoints

SHOWN = 3
"""Of the names that do not fit; the others are counted."""
WRAPPERS = ("state_dict", "model")


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file and of a network go together; names as the network has them."""

    values: dict[str, Tensor]
    """What the network takes, in its own shapes."""
    missing: list[str]
    """In the network and not in the file."""
    unexpected: list[str]
    """In the file and not in the network."""
    mismatched: list[str]
    """Of another shape, with both."""
    in_order: bool = False
    """No name was known, and the tensors went together one after the other."""

    def record(self) -> dict[str, Any]:
        """Plain values: how many, and the first three of those that did not fit."""
        parts = {"missing": self.missing, "unexpected": self.unexpected, "mismatched": self.mismatched}
        lists = {key: {"count": len(names), "first": names[:SHOWN]} for key, names in parts.items()}
        return {"loaded": len(self.values), "in_order": self.in_order, **lists}

    def told(self) -> str:
        """As in "4 tensors loaded, 1 missing (fc2.weight)"."""
        parts = [("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.mismatched)]
        return f"{len(self.values)} tensors loaded{' in their order' * self.in_order}" + "".join(
            f", {len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
            for what, names in parts
            if names
        )


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of one of our checkpoints, or of a state_dict that torch.save wrote; no code of the file is run.

    {"state_dict": ...}, {"model": ...} and the prefix "module." (DataParallel's) are taken off. Raises OSError where
    it cannot be read, and ValueError where it is damaged, refused, holds no tensor, or has not the digest `sha256`.
    """
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is another file than when the run was asked for: its digest has changed")
    if content.startswith(checkpoints.MAGIC):
        found: Any = checkpoints.load(path)["trained"]
    else:
        try:
            found = checkpoints.unpickle(io.BytesIO(content), path)
        except checkpoints.RefusedError:
            raise
        except Exception as error:  # whatever torch.load raises over bytes that it did not write
            said = " ".join(str(error).split())[:100]
            raise ValueError(f"{path} is no file of weights, or damaged: {said}") from None
    while isinstance(found, dict) and (inner := [found[key] for key in WRAPPERS if isinstance(found.get(key), dict)]):
        found = inner[0]
    named = found if isinstance(found, dict) else {}
    tensors = {str(key): value for key, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; what is wanted is torch.save(model.state_dict(), ...)")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def fit_weights(model: nn.Module, found: dict[str, Tensor]) -> Fit:
    """Put `found` and the tensors of `model` together by name; the model is not changed.

    A linear layer stored as a 1x1 convolution, as the authors' code does, is the same weight. Where no name is known,
    and the tensors of the same kinds (weight, bias, ...) are as many and of the same shapes in the same order, that
    is taken for the order of the layers.
    """
    wanted = dict(model.state_dict())
    if not wanted.keys() & found.keys():
        kinds = {_kind(name) for name in wanted}
        ordered = {name: value for name, value in found.items() if _kind(name) in kinds}
        pairs = list(zip(wanted.items(), ordered.items(), strict=False))
        if len(ordered) == len(wanted) and all(_kind(a) == _kind(b) and _same(x, y) for (a, x), (b, y) in pairs):
            values = {name: value.reshape(mine.shape) for (name, mine), (_, value) in pairs}
            return Fit(values, [], [name for name in found if name not in ordered], [], in_order=True)
    there = {name: (mine, found[name]) for name, mine in wanted.items() if name in found}
    return Fit(
        values={name: value.reshape(mine.shape) for name, (mine, value) in there.items() if _same(mine, value)},
        missing=[name for name in wanted if name not in found],
        unexpected=[name for name in found if name not in wanted],
        mismatched=[
            f"{name}: {_shape(mine)} here, {_shape(value)} in the file"
            for name, (mine, value) in there.items()
            if not _same(mine, value)
        ],
    )


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> Fit:
    """Copy what fits into `model`; raises ValueError where nothing does, and what `read_weights` raises."""
    fit = fit_weights(model, found := read_weights(path, sha256))
    if not fit.values:
        raise ValueError(
            f"{path}: nothing in it fits this network; {'; '.join(differences(dict(model.state_dict()), found))}"
        )
    # state_dict() gives the parameters' own memory.
    for name, mine in model.state_dict().items():
        if name in fit.values:
            mine.copy_(fit.values[name])
    return fit


def differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """The first three names that are in one of the two only, or of two shapes, with the shapes; [] where all agree."""
    told = []
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        mine, other = (f"{_shape(part[name])}" if name in part else "none" for part in (wanted, found))
        if mine != other:
            told.append(f"{name}: {mine} here, {other} in the file")
    return told[:SHOWN] + [f"and {len(told) - SHOWN} more"] * (len(told) > SHOWN)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _same(mine: Tensor, other: Tensor) -> bool:
    return _without_ones(mine) == _without_ones(other)


def _without_ones(value: Tensor) -> list[int]:
    shape = list(value.shape)
    if len(shape) == 4 and shape[2:] == [1, 1]:
        return shape[:2]
    return shape
