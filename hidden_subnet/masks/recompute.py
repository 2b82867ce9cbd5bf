"""Recomputes masked weights in the backward pass, to save memory.

Autograd would keep the masked weight of every layer until its backward pass: one more copy of all weights, at the
moment at which a step needs the most memory. The second computation is the same operation, so the bits are the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SMALLEST = 2**18
"""Number of weights of the smallest layer that is recomputed; below it, the memory saved is not worth the time."""


SAMPLED = 4096


def should_recompute(scores: Tensor) -> bool:
    """Return whether the masked weight of a layer is recomputed: in a training step on a CPU, for a large layer.

    Not on a GPU, where the masked weights of all layers have memory of their own, nor under torch.compile, where the
    compiler decides what is kept, nor under hooks that keep saved tensors elsewhere (torch.utils.checkpoint,
    save_on_cpu): torch calls only the innermost, so they would not see the input of the layer.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or _are_saved_tensors_hooked():
        return False
    return scores.device.type == "cpu" and scores.numel() >= SMALLEST


def _are_saved_tensors_hooked() -> bool:
    """Return whether hooks are set, or forbidden (disable_saved_tensors_hooks)."""
    autograd = torch._C._autograd  # torch has no public functions that tell
    if autograd._top_saved_tensors_default_hooks(True) is not None:
        return True
    return not autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]


@contextmanager
def recomputed_weight(effective: Tensor, make: Callable[[], Tensor], *sources: Tensor) -> Iterator[Tensor]:
    """Give the masked weight `effective` to one operation; autograd keeps `make`, which recomputes it from `sources`.

    The backward pass raises RuntimeError, as torch's own does, where `sources` or other saved tensors of the operation
    were modified in place after the forward pass; of `sources` also where a write passed torch's counter of versions
    (through .data), as far as a sample of their elements shows it.
    """
    address, shape = effective.data_ptr(), effective.shape
    versions, samples = [source._version for source in sources], [_sample(source) for source in sources]

    def pack(saved: Tensor) -> Any:
        # The address is compared, since a linear layer saves a transposed view of the weight.
        if saved.data_ptr() == address and saved.numel() == shape.numel():
            return saved.shape, saved.stride()
        return saved, saved._version

    def unpack(packed: Any) -> Tensor:
        first, second = packed
        if isinstance(first, Tensor):
            _require_unchanged(first._version == second)
            return first
        _require_unchanged([source._version for source in sources] == versions)
        _require_unchanged(all(torch.equal(_sample(now), then) for now, then in zip(sources, samples, strict=True)))
        return make().as_strided(first, second)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield effective


def _sample(source: Tensor) -> Tensor:
    """Return a copy of every n-th element in memory, at most SAMPLED; NaN become numbers, which equal themselves."""
    step = -(-source.numel() // SAMPLED)
    every = source.detach().as_strided((-(-source.numel() // step),), (step,), source.storage_offset())
    return every.nan_to_num()


def _require_unchanged(unchanged: bool) -> None:
    if not unchanged:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            "scores, weight or input of a masked layer, between its forward and its backward pass"
        )
