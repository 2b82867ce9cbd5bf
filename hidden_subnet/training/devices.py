"""Devices: chooses the device of a run, counts devices and cores, and makes torch deterministic."""

import os
from pathlib import Path
from typing import Any

import torch

from hidden_subnet.config.settings import MOST_THREADS, Device
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.store.machine import usable_cores


def choose_device(device: Device) -> str:
    """Return cpu, cuda or mps; for auto the fastest of them. Raises ConfigError for a device that is not found."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is Device.auto:
        return next(name for name, is_there in there.items() if is_there)
    if not there[device.name]:
        found = next(name for name, is_there in there.items() if is_there)
        rule = f"not found on this machine; auto is the fastest that is ({found})"
        raise ConfigError(problem(f"train.device={device.name}", rule, "train.device=auto"))
    return device.name


def require_devices(device: str, wanted: int) -> None:
    """Raise ConfigError where this process may use fewer than `wanted` GPUs, or cores for a run on the CPU."""
    if wanted == 1:
        return
    there = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": cores()}[device]
    if wanted > there:
        kind = "core" if device == "cpu" else f"{device} device"
        rule = f"there {'is' if there == 1 else 'are'} {there} {kind}{'' if there == 1 else 's'} here"
        raise ConfigError(problem(f"train.devices={wanted}", rule, f"train.devices={max(there, 1)}", lead="as in"))


def cores() -> int:
    """Return the number of cores that this process may use: by its affinity, and whole ones of a container's limit."""
    return len(usable_cores()[0])


def set_threads(count: Any, where: Path) -> None:
    """Have torch use `count` CPU threads, which stands in the file `where` that others may have written.

    Raises ValueError unless it is such a number: torch would start a million threads.
    """
    if type(count) is not int or not 1 <= count <= MOST_THREADS:
        raise ValueError(
            f"{where}: threads={count!r:.50} is no number of CPU threads from 1 to {MOST_THREADS}; correct it there, "
            "or run again with force=true"
        )
    torch.set_num_threads(count)


def deterministic(device: str) -> None:
    """Make torch choose the same algorithms in every process, so that the same run gives the same bits."""
    if device == "cuda":
        # cudnn would choose algorithms by timing, which may differ between processes.
        torch.backends.cudnn.benchmark = False
        # Deterministic cuBLAS requires this variable before the first CUDA call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
