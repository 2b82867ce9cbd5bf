"""Collapse: detects a trained network that only guesses, and the layer whose output does not depend on the image."""

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hidden_subnet.masks.layers import cached_masks

DEVIATIONS = 3
"""Number of standard deviations by which an accuracy must differ from chance, or from another one, to count."""
ROUNDING = 1e-6
"""Relative tolerance, since matrix products of equal rows can differ in their last bits."""


def chance(labels: Tensor, classes: int) -> float:
    """Return the accuracy (0 to 1) that needs no image: 1 / classes, or the share of the largest class if it is larger.

    labels: of the test images, int64 (N,).
    """
    return max(1 / classes, int(labels.bincount().max()) / len(labels))


def at_chance(top1: float, chance: float, images: int) -> bool:
    """Return whether the accuracy `top1` on `images` images is no better than `chance`, both 0 to 1."""
    return top1 <= chance + DEVIATIONS * math.sqrt(chance * (1 - chance) / images)


@torch.no_grad()
def dead_layer(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> str | None:
    """Return the name of the first layer with weights whose output, after its activation, is the same for every image.

    This includes a layer that is never positive before a ReLU. Returns None where the logits depend on the image.
    `batches`: images (B, C, H, W) and labels (B,).
    """
    spans: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}  # in the order of the calls
    followed: dict[tuple[str, int], str] = {}  # an activation belongs to the weights before it
    calls: Counter[str] = Counter()  # calls of each module in a forward pass: layers may share an activation
    weighted = ""

    def watch(name: str, has_weights: bool) -> "torch.utils.hooks.RemovableHandle":
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            nonlocal weighted
            if not isinstance(output, Tensor):
                return
            weighted = name if has_weights else weighted
            calls[name] += 1
            call = name, calls[name]
            followed[call] = weighted
            low, high = output.amin(0), output.amax(0)
            if call in spans:
                low, high = torch.minimum(low, spans[call][0]), torch.maximum(high, spans[call][1])
            spans[call] = low, high

        handle: torch.utils.hooks.RemovableHandle = modules[name].register_forward_hook(note)
        return handle

    modules = {name: module for name, module in model.named_modules() if _is_leaf(name, module)}
    hooks = [watch(name, next(module.parameters(), None) is not None) for name, module in modules.items()]
    model.eval()
    try:
        with cached_masks(model):
            for images, _ in batches:
                calls.clear()
                model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return next((followed[call] for call, (low, high) in spans.items() if _is_constant(low, high)), None)


def _is_leaf(name: str, module: nn.Module) -> bool:
    """Return whether a module of the network contains no other; parametrizations do not count as modules."""
    inner = any(child != "parametrizations" for child, _ in module.named_children())
    return not inner and "parametrizations" not in name.split(".")


def _is_constant(low: Tensor, high: Tensor) -> bool:
    return bool((high - low).max() <= ROUNDING * torch.maximum(low.abs(), high.abs()).max())
