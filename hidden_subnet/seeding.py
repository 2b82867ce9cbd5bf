"""Independent random streams: each is a function of a seed and the stream's names, never of earlier draws.

So two methods see the same network and the same batches, and a resumed run draws an epoch's order again instead of
saving the state of a generator.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Start torch's own generator on the CPU from `seed`, for code that draws from it; its state is restored."""
    import torch  # here, so that this module, which all layers may import, does not load it

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream `names` of `seed`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> "torch.Generator":
    """Return a new generator of the stream, on the CPU, so that the numbers are the same for every device.

    >>> noise = torch.randn(3, generator=hs.generator(0, "my_noise"))
    """
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))
