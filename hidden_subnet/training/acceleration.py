"""Faster steps: bfloat16, channels_last, torch.compile, CUDA graphs, malloc. Results differ in rounding only.

Scores, thresholds, masks, norm statistics, the loss and the optimizer stay float32.
"""

import ctypes
import importlib.util
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hidden_subnet.config.settings import Precision, Train
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.masks.layers import cached_masks

Step = Callable[[Tensor, Tensor], None]
"""A training step on images (B, C, H, W) and labels (B,)."""


def speed_up(model: nn.Module, train: Train, device: str) -> None:
    """Apply train.precision and train.channels_last to the forward pass of `model`, in place, before it is masked."""
    if train.channels_last:
        # The scores will have the layout of their weights. The mask does not depend on it (masks/topk.py).
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.register_forward_pre_hook(lambda module, inputs: _channels_last(inputs[0]))
    if train.precision is Precision.bf16:
        # Not by hooks, which would have to enter the context in one call and leave it in another.
        forward = model.forward

        def in_bfloat16(images: Tensor) -> Tensor:
            with torch.autocast(device, torch.bfloat16):
                logits: Tensor = forward(images)
            return logits.float()

        model.forward = in_bfloat16


def _channels_last(images: Tensor) -> tuple[Tensor]:
    return (images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images,)


NOT_COMPILED = "to train without it, type: train.compile=false"
"""End of the error messages."""


def compiled(model: nn.Module, batch_size: int) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of a training step by torch.compile: images (B, C, H, W) to logits (B, classes).

    The network is one graph without breaks, since the masked weights are computed before it, by the code that is used
    without torch.compile. Batches of another size than `batch_size` (the last of an epoch) are not compiled. Raises
    ConfigError where torch cannot compile the network as one graph.
    """
    # torch warns where no CUDA is installed.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch.compiler.reset()  # torch stops compiling after eight networks in one process
    network = torch.compile(model, fullgraph=True, dynamic=False)

    def forward(images: Tensor) -> Tensor:
        if images.shape[0] != batch_size:
            logits: Tensor = model(images)
            return logits
        with cached_masks(model, trained=True):
            try:
                logits = network(images)
            except torch._dynamo.exc.Unsupported as error:
                why = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"train.compile=true: torch cannot compile this network as one graph ({why}); {NOT_COMPILED}"
                ) from None
            return logits

    return forward


def refuse_compilation(device: str) -> None:
    """Raise ConfigError where the compiler that torch.compile needs for `device` is not installed."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(
            f"train.compile=true: needs a C++ compiler, and {compiler} was not found; install one (or name it in the "
            f"variable CXX), or {NOT_COMPILED}"
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError(f"train.compile=true: needs triton on a GPU; pip install triton, or {NOT_COMPILED}")


def refuse_bfloat16(device: str) -> None:
    """Raise ConfigError where the device only emulates bfloat16, which is slower than float32."""
    there = {
        "cuda": device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),  # type: ignore[operator]
        "mps": False,
    }
    if not there[device]:
        rule = f"this machine's {device} has no bfloat16 arithmetic"
        raise ConfigError(problem("train.precision=bf16", rule, "train.precision=fp32"))


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3)."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc's malloc keep large freed blocks for the next step, and return them to the system at the end.

    By default, every activation of more than 32 MB is mapped again in every step, with a page fault for each page: 20
    to 30 % of the time of a step of conv2 or conv4 on a CPU. It needs about 15 % more memory and changes no result.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        return_freed_memory()


def return_freed_memory() -> None:
    """Return freed memory that glibc keeps to the system; other C libraries are left as they are."""
    if (libc := _glibc()) is not None:
        # Where glibc's own thresholds end in a process that has freed a block of 32 MB; they do not move once set.
        libc.mallopt(M_MMAP_MAX, 65_536)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**26)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def wrap_step(step: Step, train: Train) -> Step:
    """Return the function that takes the steps of one epoch: `step`, or with train.cuda_graph its recording."""
    return recorded(step, train.batch_size) if train.cuda_graph else step


# train.cuda_graph: a training step is recorded once per epoch, and replayed as one launch for every further batch of
# full size. The kernels are the same, and so are the results. Values on the host are recorded as constants. For the
# learning rate, the prune rate and the metric sums that is right, since they change between epochs only, and each epoch
# has its own recording. Two things need care. A replay does not increment the version of a tensor, by which an
# allocation sees that scores have changed: Method.on_evaluation sets the rate again, and so forces a new selection. And
# a random state that the host sets in each step would keep its recorded value: config/checks.py refuses methods and
# networks that set one.

Record = Callable[[Callable[[], None]], Callable[[], None]]
FIRST = 3
"""Number of first steps that are not recorded, since they allocate lasting memory and choose algorithms."""


def recorded(step: Step, size: int, record: Record | None = None) -> Step:
    """Return a function that takes the steps of one epoch, and replays a recording for batches of `size` images.

    `record` returns the replay of a function, which it does not execute; by default it records a CUDA graph.
    """
    record = record or cuda_graph
    taken = 0
    inputs: tuple[Tensor, Tensor] | None = None
    replay: Callable[[], None] | None = None

    def run(images: Tensor, labels: Tensor) -> None:
        nonlocal taken, inputs, replay
        if images.shape[0] != size:
            step(images, labels)
            return
        if taken < FIRST:
            taken += 1
            _on_side_stream(lambda: step(images, labels), images)
            return
        if inputs is None or replay is None:
            inputs = kept = images.clone(), labels.clone()
            replay = record(lambda: step(*kept))
        inputs[0].copy_(images)
        inputs[1].copy_(labels)
        replay()

    return run


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Record `step` as a CUDA graph and return its replay, which owns the memory of the graph."""
    graph = torch.cuda.CUDAGraph()
    # Other threads (which pin images) may allocate during the recording.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


def _on_side_stream(step: Callable[[], None], images: Tensor) -> None:
    """Take a step on another CUDA stream, as torch's notes on CUDA graphs require before a recording."""
    if images.device.type != "cuda":
        step()
        return
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)


def refuse_graph(device: str) -> None:
    """Raise ConfigError where the device has no CUDA graphs."""
    if device != "cuda":
        rule = f"needs an NVIDIA GPU, and this run is on {device}"
        raise ConfigError(problem("train.cuda_graph=true", rule, "train.cuda_graph=false"))
