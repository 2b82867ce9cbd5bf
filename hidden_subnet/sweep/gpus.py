"""GPUs shared by every sweep of a machine: a run holds a kernel lock on its GPU for as long as its process lives."""

import fcntl
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: by what it holds, else by UUID.

    Not by index where that can be helped: two jobs that Slurm confines to a GPU each both see theirs as 0.
    """
    count = torch.cuda.device_count()  # asks the driver without starting CUDA in this process
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    uuids = _uuids() if count else {}
    if given:
        return [uuids.get(name, name) for name in given[:count]]
    return list(uuids.values()) if len(uuids) == count else [str(index) for index in range(count)]


def _uuids() -> dict[str, str]:
    try:
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in said.splitlines() if line.count(",") == 1)
    return {index.strip(): uuid.strip() for index, uuid in pairs}


def hold(gpus: list[str], count: int, jobs_per_gpu: int = 1, folder: Path | None = None) -> list[str] | None:
    """Lock a place on each of `count` of `gpus` until this process ends; None, and none is held, if too few are free.

    Nobody waits with a part of what it needs, so two sweeps cannot wait for each other.
    """
    held: list[tuple[str, int]] = []
    while len(held) < count:
        found = hold_one([gpu for gpu in gpus if gpu not in dict(held)], jobs_per_gpu, folder)
        if found is None:
            for _, descriptor in held:
                os.close(descriptor)
            return None
        held.append(found)
    return [gpu for gpu, _ in held]


def hold_one(gpus: list[str], jobs_per_gpu: int, folder: Path | None = None) -> tuple[str, int] | None:
    """Lock a place on one of `gpus`, the emptiest places first; None if all are taken.

    The lock goes with the file descriptor that is returned, and so at the latest with this process. It is a lock of
    the kernel in a folder of this machine (`folder`, by default in the temporary one), whoever's sweep it is.
    """
    for place in range(jobs_per_gpu):
        for gpu in gpus:
            descriptor = _open((folder or _folder()) / f"{gpu.replace('/', '_')}.{place}")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return gpu, descriptor
            except OSError:
                os.close(descriptor)
    return None


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / "hidden_subnet-gpus"


def _open(path: Path) -> int:
    """For every user of the machine, one of whom made it: the kernel refuses O_CREAT on another's file in /tmp."""
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY)
    path.parent.mkdir(exist_ok=True)
    with suppress(PermissionError):
        path.parent.chmod(0o1777)
    return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
