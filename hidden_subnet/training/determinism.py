"""Operations that have no deterministic kernel on an NVIDIA GPU: torch raises at them, in the first step of a run.

The list is that of torch.use_deterministic_algorithms, which training/devices.py switches on for a GPU.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = {
    "_adaptive_avg_pool2d": "adaptive average pooling to more than 1x1",
    "_adaptive_avg_pool3d": "adaptive average pooling to more than 1x1x1",
    "_ctc_loss": "CTCLoss",
    "adaptive_max_pool2d": "adaptive max pooling",
    "avg_pool3d": "average pooling in 3-D",
    "bincount": "bincount",
    "fractional_max_pool2d": "fractional max pooling",
    "fractional_max_pool3d": "fractional max pooling",
    "grid_sampler_2d": "grid_sample",
    "grid_sampler_3d": "grid_sample",
    "histc": "histc",
    "max_unpool2d": "max unpooling",
    "max_unpool3d": "max unpooling",
    "nll_loss2d_forward": "NLLLoss for each pixel",
    "put": "put_",
    "put_": "put_",
    "reflection_pad1d": "reflection padding",
    "reflection_pad2d": "reflection padding",
    "reflection_pad3d": "reflection padding",
    "upsample_bicubic2d": "bicubic interpolation",
    "upsample_bilinear2d": "bilinear interpolation",
    "upsample_linear1d": "linear interpolation",
    "upsample_trilinear3d": "trilinear interpolation",
}
"""Operations of torch (torch.ops.aten) and what they are, for the message."""


class _Recorder(TorchDispatchMode):
    """Notes each operation of REFUSED."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if what := _refused(func, args, kwargs):
            self.found[what] = func.overloadpacket.__name__
        return func(*args, **kwargs)


def _refused(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    name, overload = func.overloadpacket.__name__, func._overloadname
    if name == "median" and overload.startswith("dim"):
        return "median with its indices"
    if name.startswith("scatter_reduce") and "prod" in args:
        return "scatter_reduce of products"
    if name.startswith("_embedding_bag") and len(args) > 4 and args[4] == 2:
        return "EmbeddingBag with mode=max"
    if name == "bincount" and (args[1:2] in ((), (None,)) and kwargs.get("weights") is None):
        return None
    return REFUSED.get(name)


def without_deterministic_kernel(network: nn.Module, inputs: torch.Tensor) -> list[str]:
    """Return the operations of a forward pass for which a GPU has no deterministic kernel, as words for a message.

    The network and its inputs may be on the meta device, so that no GPU is needed.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")  # with it, torch itself takes another way in some operations
    try:
        with torch.no_grad(), warnings.catch_warnings(), _Recorder() as recorder:
            warnings.simplefilter("ignore")
            network(inputs)
    finally:
        torch.set_deterministic_debug_mode(before)
    return sorted(recorder.found)
