"""Number format and memory layout of a network's activations, and its compilation: the same law, other rounding.

Scores, thresholds, masks, norm statistics, the loss and the optimizer stay float32.
"""

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hidden_subnet.check import ConfigError
from hidden_subnet.layers import masks_held
from hidden_subnet.settings import Precision, Train


def speed_up(model: nn.Module, train: Train, device: str) -> None:
    """Make the forward pass of `model`, not yet masked, what train.precision and train.channels_last say; in place."""
    if train.channels_last:
        # The scores take their weight's layout. The mask does not depend on it: ties go by the logical index.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.register_forward_pre_hook(lambda module, inputs: _channels_last(inputs[0]))
    if train.precision is Precision.bf16:
        # A hook would have to leave the context open between two calls.
        forward = model.forward

        def in_bfloat16(images: Tensor) -> Tensor:
            with torch.autocast(device, torch.bfloat16):
                logits: Tensor = forward(images)
            return logits.float()

        model.forward = in_bfloat16


def _channels_last(images: Tensor) -> tuple[Tensor]:
    return (images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images,)


def compiled(model: nn.Module, batch_size: int) -> Callable[[Tensor], Tensor]:
    """What gives the logits of a training step in place of `model`, by torch.compile (train.compile).

    One graph without breaks, since the masks are made before it, by the code that always makes them: the compiler is
    given effective weights. Only for whole batches: another size would be compiled anew, and there is one in an epoch.
    Raises ConfigError where the compiler cannot follow the network.
    """
    # It tells of a CUDA that is not there.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch.compiler.reset()  # it stops after eight networks in one process
    network = torch.compile(model, fullgraph=True, dynamic=False)

    def forward(images: Tensor) -> Tensor:
        if images.shape[0] != batch_size:
            logits: Tensor = model(images)
            return logits
        with masks_held(model, trained=True):
            try:
                logits = network(images)
            except torch._dynamo.exc.Unsupported as error:
                why = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"train.compile=true: torch cannot compile this network as one graph; leave it away ({why})"
                ) from None
            return logits

    return forward


def refuse_compilation(device: str) -> None:
    """ConfigError where there is no compiler that torch.compile needs for `device`."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(
            f"train.compile=true: needs a C++ compiler, and there is no {compiler} here; install one (or name it in "
            "the variable CXX), or leave train.compile away"
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("train.compile=true: needs triton on a GPU; pip install triton, or leave train.compile away")


def refuse_bfloat16(device: str) -> None:
    """ConfigError where the device would only imitate it, which is slower than float32."""
    there = {
        "cuda": device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),  # type: ignore[operator]
        "mps": False,
    }
    if not there[device]:
        raise ConfigError(
            f"train.precision=bf16: this machine's {device} has no arithmetic in bfloat16; leave it away for fp32"
        )
