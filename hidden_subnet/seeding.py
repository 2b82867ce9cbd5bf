"""Independent random streams: each is a function of a seed and the stream's names, never of what was drawn before.

So two methods see the same network and the same batches, and a resumed run redraws an epoch's order
instead of having to save the state of a generator.
"""

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of `seed`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A generator of its own on the CPU, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *names))
