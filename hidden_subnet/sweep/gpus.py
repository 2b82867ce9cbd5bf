"""The GPUs that this process may use."""

import os
import subprocess

import torch


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as CUDA_VISIBLE_DEVICES names them.

    By UUID if possible, since an index is ambiguous: two jobs that Slurm confines to one GPU each both call it 0.
    """
    count = torch.cuda.device_count()  # asks the driver without initialising CUDA in this process
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    uuids = _uuids() if count else {}
    if given:
        return [uuids.get(name, name) for name in given[:count]]
    return list(uuids.values()) if len(uuids) == count else [str(index) for index in range(count)]


def _uuids() -> dict[str, str]:
    """UUID of each GPU by its index; empty without nvidia-smi."""
    try:
        output = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in output.splitlines() if line.count(",") == 1)
    return {index.strip(): uuid.strip() for index, uuid in pairs}
