"""The masks of all layers at once on a GPU, by a radix select over the bits of the scores.

|scores| in float32 have the same order as their 31 low bits read as integers. Three passes count 11, 10 and 10 bits of
them, and so find the K-th largest of each layer. The masks are those of topk.py: exactly K, among equal |scores| those
with the highest logical index, and NaN above all numbers. The host never waits for the GPU, and the kernels launched
depend on the shapes alone, so that a CUDA graph can record them.

    segments = Segments.of(scores)                                        # once per network
    fixed, effective = segments.alike(weights), segments.alike([torch.empty_like(each) for each in scores])
    keep = keep_counts(segments, [kept_count(each.numel(), prune_rate) for each in scores])

    apply_segments(segments, select_segments(segments, keep), fixed, effective)     # before each forward pass

Then effective.tensors are the masked weights of the layers. keep.copy_(keep_counts(...)) sets another prune rate
without compiling or recording again. The first call compiles the kernels, and so must come before a recording.

The scores of each layer stay a parameter of their own, which the kernels find by its address. One flat buffer would
have to be filled in each step, or all parameters would have to be views of it, which optimizers, checkpoints and
module.to() would have to preserve. A tensor whose memory has moved is detected (`Addresses.table`).
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from hidden_subnet.masks.topk import topk_mask

BLOCK = 8192
"""Number of weights that one program processes: 32 for each of its threads."""

_APPLY = 2048
"""The same where masks are applied, with scores and weights both in registers."""
_CHUNK = 1024
"""Number of blocks whose counts are added up at once."""
_DIGITS = ((31, 20), (20, 10), (10, 0))
"""Bits (high, low) of each pass: it finds bits low to high - 1 of the threshold."""


def has_triton() -> bool:
    """Return whether Triton 3.8 or later is installed; older: tl.histogram has no mask or no shared-memory atomics."""
    try:
        import triton
    except ImportError:
        return False
    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 8)


def available(device: torch.device) -> bool:
    """Return whether the kernels run on `device`: an NVIDIA GPU of compute capability 7.5 or later, with Triton.

    With TRITON_INTERPRET=1 also the CPU, in Triton's interpreter.
    """
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1" and has_triton()
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 5) and has_triton()


def _layout(tensor: Tensor) -> tuple[int, int] | None:
    """Return (channels, positions) of a channels_last weight, (1, 1) if it is row-major, None for other layouts."""
    if tensor.is_contiguous():
        return 1, 1
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last):
        return tensor.shape[1], tensor.shape[2:].numel()
    return None


def supported(scores: Tensor) -> bool:
    """Return whether the kernels can process `scores`: float32, row-major or channels_last, and 32-bit indices."""
    return (
        available(scores.device)
        and scores.dtype == torch.float32
        and 0 < scores.numel() <= 2**31 - BLOCK
        and _layout(scores) is not None
        and scores.data_ptr() % 16 == 0
    )


@dataclass(frozen=True)
class Addresses:
    """One tensor per segment, with their addresses: on the host to check them, on the device for the kernels."""

    tensors: tuple[Tensor, ...]
    host: tuple[int, ...]
    device: Tensor

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> "Addresses":
        """Take the addresses of `tensors`. Raises ValueError for an address that is not a multiple of 16."""
        host = tuple(each.data_ptr() for each in tensors)
        if any(address % 16 for address in host):
            raise ValueError("the kernels read 16 bytes at a time: the address of a tensor must be a multiple of 16")
        return Addresses(tuple(tensors), host, torch.tensor(host, dtype=torch.int64, device=tensors[0].device))

    def table(self) -> Tensor:
        """Return the addresses on the device, int64 [segments]. Raises RuntimeError where a tensor has moved since."""
        if any(each.data_ptr() != known for each, known in zip(self.tensors, self.host, strict=True)):
            raise RuntimeError("a tensor has moved since its address was taken: call Segments.of() and alike() again")
        return self.device


@dataclass(frozen=True)
class Segments:
    """The scores of all layers, each a segment, and the tables that divide them into blocks, int32 on the device."""

    scores: Addresses
    sizes: Tensor
    """[segments]: number of weights."""
    layouts: Tensor
    """[segments, 2]: channels and positions of `_layout`."""
    blocks: Tensor
    """[programs, 2]: segment of each block, and the index in the segment at which the block starts."""
    ends: Tensor
    """[segments]: number of the first block after the segment."""
    block: int
    """Weights per block."""

    @staticmethod
    def of(scores: Sequence[Tensor], block: int = BLOCK) -> "Segments":
        """Make the tables for `scores`; `block` is a power of 2. Raises ValueError for scores not `supported`."""
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
        """Take the addresses of tensors that are read or written with the scores, one for each layer.

        Raises ValueError where shape, strides or device differ from those of the scores.
        """
        for each, scores in zip(tensors, self.scores.tensors, strict=True):
            if (each.shape, each.stride(), each.device) != (scores.shape, scores.stride(), scores.device):
                raise ValueError(
                    f"a tensor {tuple(each.shape)} does not lie in memory as its scores {tuple(scores.shape)} do: "
                    "give it their shape, strides and device"
                )
        return Addresses.of(tensors)


@dataclass(frozen=True)
class Thresholds:
    """The selection: |score| above the segment's threshold, or equal to it with a logical index from the cut on.

    bits: int32 [segments], the bits of the thresholds; .view(torch.float32) gives their values. cuts: int32 [segments].
    """

    bits: Tensor
    cuts: Tensor


def keep_counts(segments: Segments, keep: Sequence[int]) -> Tensor:
    """Return K of each segment, int32 [segments] on the device. Raises ValueError unless 1 <= K <= n."""
    for count, scores in zip(keep, segments.scores.tensors, strict=True):
        if not 1 <= count <= scores.numel():
            raise ValueError(f"{count} of {scores.numel()} weights cannot be kept: choose 1 to {scores.numel()}")
    return torch.tensor(keep, dtype=torch.int32, device=segments.sizes.device)


def select_segments(segments: Segments, keep: Tensor) -> Thresholds:
    """Find the K-th largest |score| of each segment, with `keep` from `keep_counts`; the host does not wait."""
    from hidden_subnet.masks.gpu import kernels

    count, programs = len(segments.scores.tensors), len(segments.blocks)
    scores, sizes, layouts, blocks = segments.scores.table(), segments.sizes, segments.layouts, segments.blocks
    # One memory for one kernel that zeroes it: a histogram for each pass, the thresholds and the cuts.
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
    """Write the masked weights to `effective`, float32 or bfloat16; 0 where a weight is pruned."""
    _apply(segments, thresholds, weights, effective)


def masks_of_segments(segments: Segments, thresholds: Thresholds, masks: Addresses) -> None:
    """Write the masks to the boolean tensors `masks`, each (out, in, *kernel)."""
    _apply(segments, thresholds, segments.scores, masks)


def topk_mask_segments(scores: Sequence[Tensor], keep: Sequence[int], block: int = BLOCK) -> list[Tensor]:
    """Return topk_mask of each layer, by the kernels if all scores are `supported`, else by torch.topk.

    It makes the tables at each call, which synchronises with the host: for evaluations, not for training steps.
    """
    if not all(supported(each) for each in scores):
        return [topk_mask(each, count) for each, count in zip(scores, keep, strict=True)]
    segments = Segments.of(scores, block)
    masks = segments.alike([torch.empty_like(each, dtype=torch.bool) for each in scores])
    masks_of_segments(segments, select_segments(segments, keep_counts(segments, keep)), masks)
    return list(masks.tensors)


def _apply(segments: Segments, thresholds: Thresholds, weights: Addresses, outputs: Addresses) -> None:
    import triton.language as tl

    from hidden_subnet.masks.gpu import kernels

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
    # autograd does not see that a kernel writes: with this, a backward pass that needs overwritten values raises.
    for each in outputs.tensors:
        increment_version(each)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Make `device` the current one, on which Triton launches wherever the tensors are."""
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)
