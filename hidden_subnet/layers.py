"""Score-masked layers, and the surgery that puts them into any torch module.

A masked layer is torch's own layer with a frozen `weight` and learned `scores` beside it. In every forward pass a rule
turns both into the effective weight; what the rule is, and how its gradient reaches the scores, is the method.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hidden_subnet.inits import fans
from hidden_subnet.seeding import generator


class Rule(Protocol):
    """How a layer's scores act on its weight; all tensors have the weight's shape."""

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        """The effective weight; what of its gradient reaches the scores is the rule's own."""

    def mask(self, scores: Tensor) -> Tensor:
        """Boolean: which weights are kept."""


class _Masked(nn.Module):
    weight: Tensor
    scores: nn.Parameter
    rule: Rule
    held: Tensor | None = None

    def effective_weight(self) -> Tensor:
        return self.rule(self.scores, self.weight) if self.held is None else self.held


class MaskedLinear(_Masked, nn.Linear):  # type: ignore[misc]
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.effective_weight(), self.bias)


class MaskedConv2d(_Masked, nn.Conv2d):  # type: ignore[misc]
    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(input, self.effective_weight(), self.bias)
        return output


PLAIN_TO_MASKED: dict[type[nn.Module], type[_Masked]] = {nn.Linear: MaskedLinear, nn.Conv2d: MaskedConv2d}
MASKED_TO_PLAIN = {masked: plain for plain, masked in PLAIN_TO_MASKED.items()}


def mask_layers(model: nn.Module, rule_for: Callable[[int], Rule]) -> list[str]:
    """Make every conv and linear layer of `model` a masked one, in place, and freeze everything but the scores.

    `rule_for(n)` gives the rule of a layer with n weights. Returns the paths of the masked layers, in order.
    Raises ValueError if there is nothing to mask.
    """
    # Exact types only: a subclass may bypass its own forward (attention's output projection does).
    found = [(path, layer) for path, layer in model.named_modules() if type(layer) in PLAIN_TO_MASKED]
    if not found:
        raise ValueError(f"{type(model).__name__} has no Conv2d or Linear layer: there is nothing to mask")
    model.requires_grad_(False)
    for _, layer in found:
        # The layer stays the object that it is, so hooks, sharing and its place in the model (even its root) survive.
        layer.__class__ = PLAIN_TO_MASKED[type(layer)]
        assert isinstance(layer, _Masked)
        layer.scores = nn.Parameter(layer.weight.detach().clone())
        layer.rule = rule_for(layer.weight.numel())
    return [path for path, _ in found]


def masked_layers(model: nn.Module) -> list[tuple[str, _Masked]]:
    return [(path, layer) for path, layer in model.named_modules() if isinstance(layer, _Masked)]


def fill_scores(model: nn.Module, seed: int, stream: str) -> None:
    """Draw all scores uniformly from +-1/sqrt(fan_in), as the authors do, each layer from its own stream."""
    for path, layer in masked_layers(model):
        bound = fans(layer.weight)[0] ** -0.5
        # Drawn contiguous and copied: in place, the numbers would depend on the memory format.
        drawn = torch.empty(layer.weight.shape).uniform_(-bound, bound, generator=generator(seed, stream, path))
        layer.scores.detach().copy_(drawn)


@contextmanager
def masks_held(model: nn.Module) -> Iterator[None]:
    """Within it the masks are worked out once and not in every forward pass: for evaluation, where scores rest."""
    layers = [layer for _, layer in masked_layers(model)]
    try:
        for layer in layers:
            layer.held = layer.effective_weight().detach()
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("held", None)  # back to the class's None


def bake(model: nn.Module) -> None:
    """Write the effective weights into the layers and make them torch's own again, in place."""
    for _, layer in masked_layers(model):
        effective = layer.effective_weight().detach().clone()
        plain = MASKED_TO_PLAIN[type(layer)]
        del layer.scores, layer.rule
        layer.__class__ = plain  # type: ignore[assignment]
        layer.weight = nn.Parameter(effective, requires_grad=False)
