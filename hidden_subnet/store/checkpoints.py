"""Checkpoint files: plain torch.save files of tensors and plain values, with a digest of all that they hold.

Any tool reads them: torch.load(path, weights_only=True) gives a dict. Its entry "sha256" is the digest, without which a
file with a flipped bit can load other tensors silently: torch does not compare the checksums of the zip, and these do
not cover everything.
"""

import hashlib
import io
import math
import pickle
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hidden_subnet.config.identity import run_id
from hidden_subnet.store import folders
from hidden_subnet.store.files import read_result, write_atomically
from hidden_subnet.store.patience import patiently

SHA256 = "sha256"
RUN = "run"
"""Entry with the id of the run; a checkpoint of 0.1.0 has none."""
FRAMED = b"hidden_subnet 1\n"
"""The first bytes of a checkpoint of 0.1.0; the sha256 of the rest follows, 32 bytes, then what torch.save wrote."""
ZIP = b"PK"
"""The first bytes of every file of torch.save."""


class DamagedError(ValueError):
    """The file is truncated or has a flipped bit. Without the digest torch would load such a file silently."""


class RefusedError(ValueError):
    """The file holds more than tensors and plain values; reading the rest would run code."""


def save(path: Path, state: dict[str, Any], *, keep_previous: bool = False) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts); `keep_previous` keeps the earlier file as <name>.old."""
    content = encode(state)
    if keep_previous and folders.is_file(path):
        folders.rename(path, path.with_name(f"{path.name}.old"))
    write_atomically(path, content)


def encode(state: dict[str, Any]) -> bytes:
    """Return the content of the file that `save` writes."""
    buffer = io.BytesIO()
    torch.save({**state, SHA256: digest(state)}, buffer)
    return buffer.getvalue()


def odd_kind(value: Tensor) -> str:
    """Return in a word why a tensor is none of real numbers in memory, as those of networks are; "" if it is one."""
    if value.is_meta:
        return "meta"
    if value.layout is not torch.strided or value.is_nested:
        return "nested" if value.is_nested else "sparse"
    if value.is_complex() or value.is_quantized:
        return "complex" if value.is_complex() else "quantized"
    # One number that stands for 10**12 would take all memory where it is copied or compared.
    return "expanded" if value.numel() * value.element_size() > value.untyped_storage().nbytes() else ""


def digest(state: dict[str, Any], most: float = math.inf) -> str:
    """Return the sha256, 64 hex digits, of names, values, and of each tensor's dtype, shape, layout and bytes.

    Raises ValueError for tensors of an odd kind, and if there are more than `most` values, which a short file can hold
    as lists of the same list.
    """
    found, count = hashlib.sha256(), 0

    def add(value: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError("too many values")
        if isinstance(value, Tensor):
            if kind := odd_kind(value):
                raise ValueError(f"a {kind} tensor")
            # Damage to the size of the storage, or to requires_grad, would show later, where the tensor is used.
            layout = value.dtype, [*value.shape], value.stride(), value.untyped_storage().nbytes(), value.requires_grad
            found.update(f"tensor {layout}\n".encode())
            content = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
            found.update(content.numpy().data)
        elif isinstance(value, dict):
            found.update(f"dict {len(value)}\n".encode())
            for key, inner in value.items():
                add(key)
                add(inner)
        elif isinstance(value, list | tuple):
            found.update(f"{type(value).__name__} {len(value)}\n".encode())
            for inner in value:
                add(inner)
        elif isinstance(value, set):
            add(sorted(map(repr, value)))
        else:
            text = repr(value)  # exact for numbers, and it tells 1 from 1.0, True and "1"
            found.update(f"{type(value).__name__} {len(text)} {text}\n".encode())

    add(state)
    return found.hexdigest()


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote, here or in 0.1.0, with its tensors on `device`.

    Raises FileNotFoundError, DamagedError if the digest is not that of the content, and RefusedError.
    """
    return decode(patiently(partial(folders.read_bytes, path)), path, device)


def decode(content: bytes, path: Path, device: str = "cpu") -> dict[str, Any]:
    """Return what `load` returns of a file with this content; `path` is only named in errors."""
    if content.startswith(FRAMED):
        digest_at, payload_at = len(FRAMED), len(FRAMED) + hashlib.sha256().digest_size
        if hashlib.sha256(content[payload_at:]).digest() != content[digest_at:payload_at]:
            raise _damaged(path)
        framed: dict[str, Any] = unpickle(content[payload_at:], path, device)
        _loaded_digest(framed, path, len(content))
        return framed
    if not content.startswith(ZIP):
        raise _damaged(path)
    try:
        state = verified(unpickle(content, path), path, len(content))
    except (RefusedError, DamagedError):
        raise
    except Exception:  # torch.load may raise anything for bytes that torch.save did not write
        raise _damaged(path) from None
    if device == "cpu":
        return state
    there = unpickle(content, path, device)  # read again, since the digest needs the tensors on the CPU
    return {name: there[name] for name in state}


def verified(state: Any, path: Path, size: int) -> dict[str, Any]:
    """Return the entries of a checkpoint of `size` bytes without its digest.

    Raises DamagedError if that is not the entries' digest, or if they are none that `save` writes.
    """
    entries = {name: value for name, value in state.items() if name != SHA256} if isinstance(state, dict) else {}
    if not entries or state.get(SHA256) != _loaded_digest(entries, path, size):
        raise _damaged(path)
    return entries


def _loaded_digest(entries: dict[str, Any], path: Path, size: int) -> str:
    try:
        return digest(entries, size)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: it holds {error}") from None


def _damaged(path: Path) -> DamagedError:
    return DamagedError(f"{path} is damaged: its digest does not match its content")


def _is_whole(content: bytes) -> bool:
    """Return whether a zip is as torch.save wrote it: with the right checksums, and no entry marked as a folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as found:
            return found.testzip() is None and not any(entry.external_attr for entry in found.infolist())
    except Exception:  # zipfile may raise anything, too
        return False


def require_run(path: Path, state: dict[str, Any], wanted: str) -> None:
    """Raise ValueError where `state`, read from `path`, is of another run than that with the id `wanted`."""
    if (found := state.get(RUN, wanted)) != wanted:
        raise ValueError(
            f"{path} is of the run with the id {found}, and this run is {wanted}: another file was put there; restore "
            "it, or run again with force=true"
        )


def require_own(path: Path, state: dict[str, Any]) -> None:
    """Raise ValueError where `state`, read from `path` in a finished run, is of another run or epoch.

    The epoch is that of the file's name.
    """
    result = read_result(path.parent.parent) if path.parent.name == "checkpoints" else None
    if result is None:
        return
    if isinstance(what := result.get("projection"), dict):
        require_run(path, state, run_id(what))
    name, number = path.stem, path.stem.removeprefix("epoch_")
    recorded = (result.get(name) or {}).get("epoch")  # of best and last
    wanted = 0 if name == "first" else int(number) if number.isdigit() else recorded
    if wanted not in (None, state["epoch"]):
        raise ValueError(
            f"{path} holds epoch {state['epoch']}, but {name} of this run is epoch {wanted}: another file was put "
            "there; restore it, or run again with force=true"
        )


def unpickle(content: bytes, path: Path, device: str = "cpu") -> Any:
    """Read what torch.save wrote, without running any code in it; `path` is only named in errors.

    Raises RefusedError or DamagedError, and whatever torch.load raises for bytes that torch.save did not write.
    """
    _refuse_packed(content, path)
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if not str(error).startswith("Weights only load failed"):
            raise
        if content.startswith(ZIP) and not _is_whole(content):  # a flipped bit may look like the name of another class
            raise _damaged(path) from None
        raise RefusedError(
            f"{path} is refused (Weights only load failed): it holds more than tensors and plain values, as a pickled "
            "module does, and reading that runs its code; save the tensors alone, as in: "
            "torch.save(model.state_dict(), 'weights.pt')"
        ) from None


def _refuse_packed(content: bytes, path: Path) -> None:
    """Raise RefusedError for a zip whose entries are longer than itself: 6 MB may unpack to 6 GB."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as found:
            entries = found.infolist()
    except Exception:  # no zip, or a damaged one: torch.load says so
        return
    if any(each.compress_type == zipfile.ZIP_STORED and each.compress_size != each.file_size for each in entries):
        raise _damaged(path)
    unpacked = sum(each.file_size for each in entries)
    if unpacked > len(content):
        raise RefusedError(
            f"{path} is refused: it is compressed and unpacks to {unpacked / 1e9:.3g} GB, more than its own "
            f"{len(content) / 1e9:.3g} GB, which is the limit since torch.save compresses nothing; if you trust it, "
            f'write it again without: python -c \'import torch; torch.save(torch.load("{path}", weights_only=True), '
            f'"{path.with_suffix(".plain.pt")}")\''
        )


def load_newest(path: Path, device: str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
    """Load `path`, or `path`.old if that is missing or damaged; None if neither can be loaded.

    The second value describes each damaged file that was skipped.
    """
    complaints: list[str] = []
    for candidate in (path, path.with_name(f"{path.name}.old")):
        try:
            return load(candidate, device), complaints
        except FileNotFoundError:
            continue
        except DamagedError as error:
            complaints.append(str(error))
    return None, complaints
