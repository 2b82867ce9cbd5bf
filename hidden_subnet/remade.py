"""Effective weights that a training step does not keep: the backward pass makes each anew where it needs it.

Autograd would keep all of them until the backward pass has come by: one copy of the weights more, at the moment at
which a step has the most. The operation that makes them again is the same, so every bit of the result is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SMALLEST = 2**18
"""Weights of a layer; for fewer the memory is not worth another pass over them."""


def pays(scores: Tensor) -> bool:
    """Not without a backward pass, which keeps nothing; nor on a GPU, where all masks are made into memory that stays.

    Nor while torch.compile looks on: what is kept is then the compiler's.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    return scores.device.type == "cpu" and scores.numel() >= SMALLEST


@contextmanager
def remade(effective: Tensor, make: Callable[[], Tensor], *sources: Tensor) -> Iterator[Tensor]:
    """Within it autograd keeps of `effective` only `make`, which makes the same again from `sources`.

    For what is read by one operation right away. The backward pass raises RuntimeError, as torch's own does, where
    something was written since to `sources`, or to what else the operation needs for its gradient.
    """
    address, shape = effective.data_ptr(), effective.shape
    made_of = [source._version for source in sources]

    def pack(saved: Tensor) -> Any:
        # A linear layer keeps a transposed view of it.
        if saved.data_ptr() == address and saved.numel() == shape.numel():
            return saved.shape, saved.stride()
        return saved, saved._version

    def unpack(packed: Any) -> Tensor:
        kept, more = packed
        if isinstance(kept, Tensor):
            _unchanged(kept._version == more)
            return kept
        _unchanged([source._version for source in sources] == made_of)
        return make().as_strided(kept, more)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield effective


def _unchanged(true: bool) -> None:
    if not true:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            "scores, weight or input of a masked layer, between its forward and its backward pass"
        )
