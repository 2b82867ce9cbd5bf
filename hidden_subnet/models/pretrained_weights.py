"""Loads weights from a file into a network: copies the tensors that fit, and lists those that do not."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from hidden_subnet.store import checkpoints
from hidden_subnet.store.content import open_regular

SHOWN = 3
"""Number of names listed of each kind that does not fit; the others are counted."""
OTHER = "give another file, as in: pretrained=runs/digits-conv2"
SAVE = "torch.save(model.state_dict(), 'weights.pt')"
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts save a state_dict."""


@dataclass(frozen=True)
class WeightMatch:
    """The tensors of a file matched with those of a network, by the network's names."""

    values: dict[str, Tensor]
    """Tensors of the file that fit, in the shapes of the network."""
    missing: list[str]
    """In the network and not in the file."""
    unexpected: list[str]
    """In the file and not in the network."""
    mismatched: list[str]
    """In both with different shapes; each entry is the name with both shapes."""
    in_order: bool = False
    """True where no name matched, and the tensors were matched by their order."""

    def record(self) -> dict[str, Any]:
        """Return plain values for result.json: the counts, and the first names that did not fit."""
        parts = {"missing": self.missing, "unexpected": self.unexpected, "mismatched": self.mismatched}
        lists = {key: {"count": len(names), "first": names[:SHOWN]} for key, names in parts.items()}
        return {"loaded": len(self.values), "in_order": self.in_order, **lists}

    def summary(self) -> str:
        """Return one line, as in "4 tensors loaded, 1 missing (fc2.weight)"."""
        parts = [("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.mismatched)]
        return f"{len(self.values)} tensors loaded{' in their order' * self.in_order}" + "".join(
            f", {len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
            for what, names in parts
            if names
        )


def read_weights(
    path: Path, sha256: str | None = None, *, what: str = "weights", advice: str = OTHER
) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint of ours, of a state_dict saved by torch.save, or of safetensors.

    what, advice: what the file should hold, and what to give instead, in a line of error.
    No code in the file is run. The wrappers {"state_dict": ...} and {"model": ...} and DataParallel's prefix "module."
    are removed. Raises OSError where the file cannot be read, and ValueError where it is damaged or unsafe, holds no
    named tensor, or has another digest than `sha256`.
    """
    with open_regular(path) as file:
        content = file.read()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"{path} is another file than when the run was composed: its digest has changed; restore it, or give the "
            "command again"
        )
    if is_safetensors(content):
        try:
            return unwrapped(safetensors.torch.load(content))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is a damaged safetensors file ({error}); {advice}") from None
    if not content.startswith((checkpoints.FRAMED, b"PK", b"\x80")):  # as torch.save begins a file, now or in the past
        raise ValueError(f"{path} is not a file of {what}, as torch.save writes them, or damaged; {advice}")
    is_framed = content.startswith(checkpoints.FRAMED)
    try:
        found: Any = checkpoints.decode(content, path) if is_framed else checkpoints.unpickle(content, path)
    except (checkpoints.RefusedError, checkpoints.DamagedError):
        raise
    except Exception as error:  # torch.load may raise anything for bytes that it did not write
        why = " ".join(str(error).split())[:100]
        raise ValueError(f"{path} is not a file of {what}, or damaged ({why}); {advice}") from None
    if is_framed or (isinstance(found, dict) and {"trained", checkpoints.SHA256} <= found.keys()):
        state = found if is_framed else checkpoints.verified(found, path, len(content))
        checkpoints.require_own(path, state)
        found = state["trained"]
    for _ in range(len(WRAPPERS)):  # not for ever: a wrapper may hold itself
        inner = [found[key] for key in WRAPPERS if isinstance(found, dict) and isinstance(found.get(key), dict)]
        found = inner[0] if inner else found
    named = found if isinstance(found, dict) else {}
    tensors = {str(key): value for key, value in named.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if kind := checkpoints.odd_kind(value):
            raise ValueError(f"{path}: {name} is a {kind} tensor; save plain ones, as in: {SAVE}")
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; save them, as in: {SAVE}")
    return unwrapped(tensors)


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefix that DataParallel gives all names."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def is_safetensors(content: bytes) -> bool:
    """Return whether a file begins as safetensors do: the length of a JSON text, 8 bytes, and the text."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def match_weights(model: nn.Module, found: dict[str, Tensor]) -> WeightMatch:
    """Match the tensors `found` with those of `model`, as `match_tensors` does; the model is not changed."""
    return match_tensors(dict(model.state_dict()), found)


def match_tensors(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> WeightMatch:
    """Match the tensors `found` with those that are `wanted` by name.

    A linear layer stored as a 1x1 convolution, as in the code of Ramanujan et al., matches. If no name matches, the
    tensors are matched in their order, provided that those of the kinds that are wanted (weight, bias, ...) are equal
    in number and, one by one, in kind and shape.
    """
    if not wanted.keys() & found.keys():
        kinds = {_kind(name) for name in wanted}
        ordered = {name: value for name, value in found.items() if _kind(name) in kinds}
        pairs = list(zip(wanted.items(), ordered.items(), strict=False))
        if len(ordered) == len(wanted) and all(_kind(a) == _kind(b) and _same(x, y) for (a, x), (b, y) in pairs):
            values = {name: value.reshape(mine.shape) for (name, mine), (_, value) in pairs}
            return WeightMatch(values, [], [name for name in found if name not in ordered], [], in_order=True)
    there = {name: (mine, found[name]) for name, mine in wanted.items() if name in found}
    return WeightMatch(
        values={name: value.reshape(mine.shape) for name, (mine, value) in there.items() if _same(mine, value)},
        missing=[name for name in wanted if name not in found],
        unexpected=[name for name in found if name not in wanted],
        mismatched=[
            f"{name}: {_shape(mine)} here, {_shape(value)} in the file"
            for name, (mine, value) in there.items()
            if not _same(mine, value)
        ],
    )


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> WeightMatch:
    """Copy the tensors of a file that fit into `model`, in place, and return the match.

    Raises ValueError where nothing fits, or what fits is not finite, and the errors of `read_weights`.
    """
    match = match_weights(model, found := read_weights(path, sha256))
    if not match.values:
        unlike = "; ".join(differences(dict(model.state_dict()), found))
        raise ValueError(
            f"{path}: nothing in it fits this network; {unlike}; choose the network that it is of, as in: model=conv4"
        )
    for name, value in match.values.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{path}: {name} holds values that are NaN or infinite; {OTHER}")
    # The tensors of state_dict() share the memory of the parameters.
    for name, mine in model.state_dict().items():
        if name in match.values:
            mine.copy_(match.values[name])
    return match


def differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Return a text for each tensor that is missing in one of the two or has another shape; [] where all agree.

    There are at most three, as in "fc.weight: 3x4 here, none in the file", then the number of further ones.
    """
    lines = []
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        mine, other = (f"{_shape(part[name])}" if name in part else "none" for part in (wanted, found))
        if mine != other:
            lines.append(f"{name}: {mine} here, {other} in the file")
    return lines[:SHOWN] + [f"and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)


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
