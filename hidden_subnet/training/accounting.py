"""Accounting of a finished run and its network: operations, bits, trained parameters and memory."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hidden_subnet.config.data_info import DataInfo
from hidden_subnet.config.settings import Model, Pruning
from hidden_subnet.masks.layers import masked_layers, not_masked
from hidden_subnet.masks.structure import mask_bits
from hidden_subnet.methods.base import Method
from hidden_subnet.models.from_config import meta_network
from hidden_subnet.models.inits import weights_of

SEED_BITS = 64
NUMBER_BITS = 32


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a forward pass of one image; a multiplication and its addition are two."""

    total: int
    by_weight: dict[str, int]
    """Those of the products with each conv or linear weight, by the path of `weights_of`."""

    def sparse(self, density: Mapping[str, float]) -> int:
        """Return the operations without those of removed weights; density: fraction kept of the weight at each path."""
        return self.total - round(sum(self.by_weight.get(path, 0) * (1 - kept) for path, kept in density.items()))


def count_flops(model: Model, info: DataInfo) -> Flops | None:
    """Return the operations of the network for an image of `info`; None where torch cannot count them.

    It is built and called on the meta device, so that nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode  # with sympy it takes a second, which `load` need not wait

    try:
        network = meta_network(model, info).eval()
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *info.shape))
    except Exception:  # a network of the user's own may do anything
        return None
    root = type(network).__name__
    counts = counter.get_flop_counts()
    members: dict[str, list[tuple[str, int]]] = {}
    for path, module, name in weights_of(network):
        owner = f"{root}.{path}".rstrip(".")
        if owner not in counts:  # a weight that is read without calling its layer, as those of attention
            owner = owner.rpartition(".")[0]
        members.setdefault(owner, []).append((path, module.get_parameter(name).numel()))
    by_weight: dict[str, int] = {}
    for owner, weights in members.items():
        # Products of two inputs, as queries with keys, involve no weight.
        found = sum(
            count for op, count in counts.get(owner, {}).items() if "bmm" not in str(op) and "dot" not in str(op)
        )
        size = sum(numel for _, numel in weights)
        by_weight |= {path: found * numel // size for path, numel in weights}
    return Flops(counter.get_total_flops(), by_weight)


def count_trained(method: Method) -> int:
    """Return the number of scores, weights and other parameters that training moves."""
    network = method.network
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    if method.masks and method.trains_weights():  # also those that a later phase has frozen
        trained |= {name: network.get_parameter(name) for name in not_masked(network)}
    return sum(each.numel() for each in trained.values())


def count_bits(method: Method, kept: Mapping[str, float], pruning: Pruning) -> int | None:
    """Return about how many bits describe the network: 64 of the seed, of the masks, and of numbers that are trained.

    A mask of n weights with k kept takes n H(k / n) bits, H the binary entropy, where it does not follow from the seed;
    a trained number takes 32. None where weights have factors, which no mask describes. Statistics of batch norm and a
    pretrained file are not counted.
    """
    if not method.masks:
        return SEED_BITS + NUMBER_BITS * count_trained(method)
    if any(count != int(count) for count in kept.values()):
        return None
    bits: float = SEED_BITS + sum(kept.values()) * method.bits_per_kept(method.config.method)
    if method.trains in ("scores", "both") or method.changes_weights:
        shapes = {path: tuple(layer.weight.shape) for path, layer in masked_layers(method.network)}
        bits += sum(mask_bits(shapes[path], int(count), pruning) for path, count in kept.items())
    others = not_masked(method.network)
    if not method.trains_weights():  # but for what train.norm_affine learns
        others = {name: n for name, n in others.items() if method.network.get_parameter(name).requires_grad}
    bits += NUMBER_BITS * sum(others.values())
    return math.ceil(bits)


def peak_memory(device: str) -> int | None:
    """Return the bytes of the run at its peak: those of torch's tensors on a GPU, else those of the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
