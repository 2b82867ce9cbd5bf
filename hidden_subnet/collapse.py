"""Whether a trained network guesses, and which layer stopped looking at the image."""

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hidden_subnet.layers import masks_held

DEVIATIONS = 3
"""Of the number of hits that guessing has: a guesser is told from a network by more than three of them."""
ROUNDING = 1e-6
"""Relative; matrix products of equal rows can differ in their last bits."""


def at_chance(top1: float, classes: int, images: int) -> bool:
    """Whether an accuracy on so many images is one that guessing reaches: not above chance by three deviations."""
    chance = 1 / classes
    return top1 <= chance + DEVIATIONS * math.sqrt(chance * (1 - chance) / images)


@torch.no_grad()
def dead_layer(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> str | None:
    """Name of the first layer with weights whose output, after its activation, is the same for every image.

    With a ReLU behind it that is also a layer that is never positive. None where the logits do depend on the image.
    """
    spans: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}  # in the order of the calls
    followed: dict[tuple[str, int], str] = {}  # an activation belongs to the weights before it
    calls: Counter[str] = Counter()  # of a module in a forward pass: an activation may serve several layers
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
        with masks_held(model):
            for images, _ in batches:
                calls.clear()
                model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return next((followed[call] for call, (low, high) in spans.items() if _is_constant(low, high)), None)


def _is_leaf(name: str, module: nn.Module) -> bool:
    """Of the network: the masks of a parameter are modules below it, and no part of the way of an image."""
    inner = any(child != "parametrizations" for child, _ in module.named_children())
    return not inner and "parametrizations" not in name.split(".")


def _is_constant(low: Tensor, high: Tensor) -> bool:
    return bool((high - low).max() <= ROUNDING * torch.maximum(low.abs(), high.abs()).max())
