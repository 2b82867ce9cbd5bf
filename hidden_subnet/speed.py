"""Number format and memory layout of a network's activations: faster, the same law, other rounding.

Scores, thresholds, masks, norm statistics, the loss and the optimizer stay float32.
"""

import torch
from torch import Tensor, nn

from hidden_subnet.check import ConfigError
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
