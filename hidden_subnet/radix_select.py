"""The masks of all layers at once, on a GPU: one radix select over the bits of every layer's scores.

The order of float32 |scores| is that of their 31 low bits as integers: three passes count 11, 10 and 10 of them and
narrow each layer down to its K-th largest, by the rule of `masks` (exactly K; among equal ones the highest logical
index; NaN is the largest). The host waits for nothing, and what is launched depends on the shapes alone: a CUDA graph
can hold it.

    segments = Segments.of(scores)                                        # once a model
    fixed, effective = segments.alike(weights), segments.alike([torch.empty_like(each) for each in scores])
    keep = keep_counts(segments, [kept_count(each.numel(), prune_rate) for each in scores])

    apply_segments(segments, select_segments(segments, keep), fixed, effective)     # before each forward pass

Then effective.tensors are every layer's effective weights. Another rate is keep.copy_(keep_counts(...)): nothing is
compiled or captured anew. The first call compiles the kernels, so it comes before a capture.

The scores stay where they are, each layer's a parameter of its own, and the kernels find them by address. One flat
buffer would have to be filled in each step, or else every parameter be a view of it, which optimizers, checkpoints and
module.to() would have to respect. Under a CUDA graph addresses are fixed anyway. What moved is noticed and refused.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from hidden_subnet.masks import topk_mask

BLOCK = 8192
"""Weights that one program looks at: 32 a thread."""

_APPLY = 2048
"""The same where masks are applied: scores and weights are both in registers there."""
_CHUNK = 1024
"""Counts of later blocks that are added up at a time."""
_DIGITS = ((31, 20), (20, 10), (10, 0))
"""Which bits each pass decides, from the first (exclusive) down to the second."""


def has_triton() -> bool:
    """Triton 3.8 or later: before, it counts without a mask, or without the shared memory's own atomics."""
    try:
        import triton
    except ImportError:
        return False
    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 8)


def available(device: torch.device) -> bool:
    """Whether the kernels run on `device`: an NVIDIA GPU, or the CPU in Triton's interpreter (TRITON_INTERPRET=1)."""
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1" and has_triton()
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 5) and has_triton()


def _layout(tensor: Tensor) -> tuple[int, int] | None:
    """(channels, positions) of a row of weights if the channels come last, (1, 1) if row-major, None for others."""
    if tensor.is_contiguous():
        return 1, 1
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last):
        return tensor.shape[1], tensor.shape[2:].numel()
    return None


def supported(scores: Tensor) -> bool:
    """Whether the kernels take `scores`: float32, row-major or channels_last, with indices that fit in 32 bits."""
    return (
        available(scores.device)
        and scores.dtype == torch.float32
        and 0 < scores.numel() <= 2**31 - BLOCK
        and _layout(scores) is not None
        and scores.data_ptr() % 16 == 0
    )


@dataclass(frozen=True)
class Addresses:
    """Tensors, one a segment, and where they are, for the host to check and for the kernels to read."""

    tensors: tuple[Tensor, ...]
    host: tuple[int, ...]
    device: Tensor

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> "Addresses":
        host = tuple(each.data_ptr() for each in tensors)
        if any(address % 16 for address in host):
            raise ValueError("the kernels read 16 bytes at a time: a tensor has to start at a multiple of 16")
        return Addresses(tuple(tensors), host, torch.tensor(host, dtype=torch.int64, device=tensors[0].device))

    def table(self) -> Tensor:
        """int64 [segments]; raises RuntimeError where a tensor was given other memory in the meantime."""
        if any(each.data_ptr() != known for each, known in zip(self.tensors, self.host, strict=True)):
            raise RuntimeError("a tensor has moved since its address was taken: Segments.of() and alike() come again")
        return self.device


@dataclass(frozen=True)
class Segments:
    """The score tensors of a model, one a segment, and the tables by which the kernels go over them."""

    scores: Addresses
    sizes: Tensor
    layouts: Tensor
    blocks: Tensor
    ends: Tensor
    block: int

    @staticmethod
    def of(scores: Sequence[Tensor], block: int = BLOCK) -> "Segments":
        """Raises ValueError for scores that are not `supported`. `block` is a power of 2."""
        layouts = [_layout(each) for each in scores]
        if not all(supported(each) for each in scores):
            raise ValueError("the kernels take float32 scores, row-major or channels_last, on a GPU with Triton")
        sizes = [each.numel() for each in scores]
        blocks = [(segment, start) for segment, n in enumerate(sizes) for start in range(0, n, block)]
        ends = list(accumulate(-(-n // block) for n in sizes))
        device = scores[0].device

        def table(values: Sequence[object]) -> Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        return Segments(Addresses.of(scores), table(sizes), table(layouts), table(blocks), table(ends), block)

    def alike(self, tensors: Sequence[Tensor]) -> Addresses:
        """Tensors to read or write beside the scores: raises ValueError if shapes, strides or devices differ."""
        for each, scores in zip(tensors, self.scores.tensors, strict=True):
            if (each.shape, each.stride(), each.device) != (scores.shape, scores.stride(), scores.device):
                raise ValueError(f"{tuple(each.shape)} does not lie in memory as its scores {tuple(scores.shape)} do")
        return Addresses.of(tensors)


@dataclass(frozen=True)
class Thresholds:
    """What is kept: |score| above the threshold, or equal to it and of a logical index from the cut on.

    bits: int32 [segments], the threshold's; .view(torch.float32) is its value. cuts: int32 [segments].
    """

    bits: Tensor
    cuts: Tensor


def keep_counts(segments: Segments, keep: Sequence[int]) -> Tensor:
    """K of each segment as the kernels read it, int32 on the device; raises ValueError unless 1 <= K <= n."""
    for count, scores in zip(keep, segments.scores.tensors, strict=True):
        if not 1 <= count <= scores.numel():
            raise ValueError(f"{count} of {scores.numel()} weights cannot be kept: at least 1, at most all")
    return torch.tensor(keep, dtype=torch.int32, device=segments.sizes.device)


def select_segments(segments: Segments, keep: Tensor) -> Thresholds:
    """Each segment's K-th largest |score|, K as of `keep_counts`. Nothing is waited for."""
    from hidden_subnet import radix_kernels as kernels

    count, programs = len(segments.scores.tensors), len(segments.blocks)
    scores, sizes, layouts, blocks = segments.scores.table(), segments.sizes, segments.layouts, segments.blocks
    # Zeroed in one go: a histogram a pass, and what every threshold and cut starts from.
    ends = list(accumulate([*(count << (high - low) for high, low in _DIGITS), count, count]))
    *histograms, bits, cuts = torch.zeros(ends[-1], dtype=torch.int32, device=keep.device).tensor_split(ends[:-1])
    equals = torch.empty(programs, dtype=torch.int32, device=keep.device)
    wanted = torch.empty_like(keep)
    with _on(keep.device):
        ranks = keep
        for (high, low), histogram in zip(_DIGITS, histograms, strict=True):
            kernels.count_digits[(programs,)](
                scores, sizes, blocks, bits, histogram, HIGH=high, LOW=low, BLOCK=segments.block, num_warps=8
            )
            kernels.refine[(count,)](histogram, ranks, bits, wanted, HIGH=high, LOW=low)
            ranks = wanted
        where = scores, sizes, layouts, blocks
        kernels.count_equal[(programs,)](*where, bits, wanted, equals, BLOCK=segments.block, num_warps=8)
        kernels.cut_equal[(programs,)](
            *where, segments.ends, bits, wanted, equals, cuts, BLOCK=segments.block, CHUNK=_CHUNK, num_warps=8
        )
    return Thresholds(bits, cuts)


def apply_segments(segments: Segments, thresholds: Thresholds, weights: Addresses, effective: Addresses) -> None:
    """Write each weight that is kept, and 0 for the others, to `effective`: float32 or bfloat16."""
    _apply(segments, thresholds, weights, effective)


def masks_of_segments(segments: Segments, thresholds: Thresholds, masks: Addresses) -> None:
    """Write the masks to the boolean tensors `masks`."""
    _apply(segments, thresholds, segments.scores, masks)


def topk_mask_segments(scores: Sequence[Tensor], keep: Sequence[int], block: int = BLOCK) -> list[Tensor]:
    """masks.topk_mask of several layers, by the kernels if they take all of them and by torch.topk if not.

    The tables are made each time, which waits for the host: for an evaluation, not for a step.
    """
    if not all(supported(each) for each in scores):
        return [topk_mask(each, count) for each, count in zip(scores, keep, strict=True)]
    segments = Segments.of(scores, block)
    masks = segments.alike([torch.empty_like(each, dtype=torch.bool) for each in scores])
    masks_of_segments(segments, select_segments(segments, keep_counts(segments, keep)), masks)
    return list(masks.tensors)


def _apply(segments: Segments, thresholds: Thresholds, weights: Addresses, outputs: Addresses) -> None:
    import triton.language as tl

    from hidden_subnet import radix_kernels as kernels

    parts = max(1, segments.block // _APPLY)
    dtypes = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.bool: tl.int8}
    with _on(thresholds.bits.device):
        kernels.apply[(parts * len(segments.blocks),)](
            *(segments.scores.table(), weights.table(), outputs.table()),
            *(segments.sizes, segments.layouts, segments.blocks, thresholds.bits, thresholds.cuts),
            DTYPE=dtypes[outputs.tensors[0].dtype],
            BLOCK=segments.block,
            PARTS=parts,
            num_warps=8,
        )
    # autograd does not see the kernel write: with this, a backward pass that needs what was overwritten raises.
    for each in outputs.tensors:
        increment_version(each)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whichever the tensors are on."""
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)
