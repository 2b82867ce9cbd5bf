"""The state of a training, saved and restored so that a resumed run has the same bits as an uninterrupted one.

It holds no state of a generator: order and augmentation of an epoch are functions of (seed, epoch), and the draws of a
method of (seed, step).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.store import checkpoints, files


@dataclass
class TrainingState:
    """The progress of a training, without network and optimizer."""

    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Finished batches of the current epoch."""
    step: int = 0
    """Steps since the run started."""
    seconds: float = 0.0
    """Time spent on the current epoch before the last interruption."""
    total_seconds: float = 0.0
    """Time spent on finished epochs."""
    best_epoch: int = 0
    """0 before there is one."""
    best_key: tuple[float, float] = (-1.0, 0.0)
    """(top-1, -loss) on the validation images at the best epoch."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """The masks at the start of the current epoch, boolean, on the CPU."""


def read_state(folder: Path, device: str, devices: int, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the newest undamaged resume checkpoint of `folder`, None where there is none.

    `say` is called where one is damaged, or was written on another device or by another number of them.
    """
    state, complaints = checkpoints.load_newest(folder / "checkpoints" / files.RESUME, device)
    for complaint in complaints:
        say(f"{complaint}; resumes from the one before it" if state else f"{complaint}; starts from the beginning")
    if state is not None and state["device"] != device:
        say(f"was started on {state['device']} and resumes on {device}: the bits may differ from an undisturbed run's")
    if state is not None and state.get("devices", 1) != devices:
        say(
            f"was started with train.devices={state.get('devices', 1)} and resumes with {devices}: the bits may differ "
            "from an undisturbed run's"
        )
    return state


def pack(state: TrainingState) -> dict[str, Any]:
    """Return the state as plain values and tensors, masks packed to bits."""
    return {
        "epoch": state.epoch,
        "batch": state.batch,
        "step": state.step,
        "total_seconds": state.total_seconds,
        "best_epoch": state.best_epoch,
        "best_key": list(state.best_key),
        "masks": {path: torch.from_numpy(numpy.packbits(mask.numpy())) for path, mask in state.masks.items()},
    }


def unpack(saved: dict[str, Any], network: nn.Module) -> TrainingState:
    """Undo `pack`; the shapes of the masks are those of the network's masked layers."""
    masks = {}
    for path, layer in masked_layers(network):
        bits = numpy.unpackbits(saved["masks"][path].cpu().numpy(), count=layer.weight.numel())
        masks[path] = torch.from_numpy(bits.astype(bool)).view(layer.weight.shape)
    return TrainingState(
        epoch=saved["epoch"],
        batch=saved["batch"],
        step=saved["step"],
        seconds=saved["seconds"],
        total_seconds=saved["total_seconds"],
        best_epoch=saved["best_epoch"],
        best_key=tuple(saved["best_key"]),
        masks=masks,
    )
