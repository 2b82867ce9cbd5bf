"""Checkpoint files: tensors and plain values behind a digest, written atomically, loaded without running any code."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch

from hidden_subnet.record import write_atomically

MAGIC = b"hidden_subnet 1\n"


class DamagedError(ValueError):
    """The file is not what was written: cut short, or with a flipped bit, which torch would load in silence."""


class RefusedError(ValueError):
    """The file holds more than tensors and plain values, and reading that would run code."""


def save(path: Path, state: dict[str, Any], *, keep_previous: bool = False) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts); the file before it may stay as <name>.old."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    if keep_previous and path.exists():
        path.replace(path.with_name(f"{path.name}.old"))
    write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload)


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Raises FileNotFoundError, DamagedError where the digest does not fit, or RefusedError."""
    content = path.read_bytes()
    head = len(MAGIC)
    digest, payload = content[head : head + 32], content[head + 32 :]
    if content[:head] != MAGIC or hashlib.sha256(payload).digest() != digest:
        raise DamagedError(f"{path} is damaged: its digest does not fit its content")
    state: dict[str, Any] = unpickle(io.BytesIO(payload), path, device)
    return state


def unpickle(file: BinaryIO, path: Path, device: str = "cpu") -> Any:
    """What torch.save wrote, read without running any of its code; `path` is where it came from.

    Raises RefusedError, and whatever torch.load raises over bytes that torch.save did not write.
    """
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if not str(error).startswith("Weights only load failed"):
            raise
        raise RefusedError(
            f"{path} is refused (Weights only load failed): it holds more than tensors and plain values, as a pickled "
            "module does, and reading that runs its code"
        ) from None


def load_newest(path: Path, device: str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole one of `path` and `path`.old, and what was wrong with those passed over."""
    complaints: list[str] = []
    for candidate in (path, path.with_name(f"{path.name}.old")):
        try:
            return load(candidate, device), complaints
        except FileNotFoundError:
            continue
        except DamagedError as error:
            complaints.append(str(error))
    return None, complaints
