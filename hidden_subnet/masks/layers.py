"""Masked layers, and the functions that put them into any torch module and remove them.

A masked layer is torch's own layer with a frozen `weight` and learned `scores` of the same shape. In every forward pass
its rule computes the masked weight from both. The rule belongs to the method, and defines how the gradient reaches the
scores. A weight that a network reads without calling its layer is masked as a parameter (MaskedParameter).
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from hidden_subnet.masks.recompute import should_recompute
from hidden_subnet.models.inits import fans, weights_of
from hidden_subnet.seeding import generator


class ScoreRule(Protocol):
    """Computes a masked weight from scores and weight; all tensors have the weight's shape (out, in, *kernel)."""

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        """Return the masked weight; the rule defines how the gradient reaches scores and weight."""

    def mask(self, scores: Tensor) -> Tensor:
        """Return the boolean mask: True where the weight is kept."""


@runtime_checkable
class RecomputableRule(ScoreRule, Protocol):
    """A rule whose masked weight can be recomputed in the backward pass (hidden_subnet/masks/recompute.py)."""

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """Give the masked weight to one operation within the context; the backward pass recomputes it."""


@runtime_checkable
class WeighingRule(ScoreRule, Protocol):
    """A rule that may multiply weights by factors within [0, 1] where others remove some of them."""

    def kept(self, scores: Tensor, mask: Tensor) -> float:
        """Return the number of weights that `mask` keeps, or the sum of their factors."""


class KeepAll:
    """The rule that keeps every weight; a masked layer has it until its method sets another."""

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return weight

    def mask(self, scores: Tensor) -> Tensor:
        """Return True everywhere, (out, in, *kernel)."""
        return torch.ones_like(scores, dtype=torch.bool)


class MaskedLayer(nn.Module):
    """A layer whose weight is masked.

    weight: (out, in, *kernel), frozen unless the method trains weights. scores: learned, same shape. rule: computes the
    masked weight from both in each forward pass. cached_weight: the masked weight while `cached_masks` holds it.
    """

    weight: Tensor
    scores: nn.Parameter
    rule: ScoreRule
    cached_weight: Tensor | None = None

    def effective_weight(self) -> Tensor:
        """Return the masked weight (out, in, *kernel)."""
        return self.rule(self.scores, self.weight) if self.cached_weight is None else self.cached_weight

    def with_effective_weight(self, operation: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `operation(masked weight)`; a large masked weight is recomputed in the backward pass if possible."""
        if self.cached_weight is None and should_recompute(self.scores) and isinstance(self.rule, RecomputableRule):
            with self.rule.recomputed(self.scores, self.weight) as effective:
                return operation(effective)
        return operation(self.effective_weight())


class MaskedLinear(MaskedLayer, nn.Linear):  # type: ignore[misc]
    """A masked nn.Linear: weight (out, in)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map input (..., in) to output (..., out)."""
        return self.with_effective_weight(lambda effective: F.linear(input, effective, self.bias))


class MaskedConv2d(MaskedLayer, nn.Conv2d):  # type: ignore[misc]
    """A masked nn.Conv2d: weight (out, in / groups, kernel height, kernel width)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map input (B, in, H, W) to output (B, out, H', W')."""
        return self.with_effective_weight(lambda effective: self._conv_forward(input, effective, self.bias))


class MaskedParameter(MaskedLayer):
    """A parametrization (torch.nn.utils.parametrize) by which every read of a parameter gives the masked weight.

    For weights that are read without calling their layer, as nn.MultiheadAttention reads all of its weights.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self._weight = [weight]  # in a list, so that it is not registered a second time
        self.scores = nn.Parameter(weight.detach().clone())
        self.rule = KeepAll()

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The unmasked weight (out, in, *kernel)."""
        return self._weight[0]

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight, of the shape of `weight`: (out, in, *kernel)."""
        return self.effective_weight()


PLAIN_TO_MASKED: dict[type[nn.Module], type[MaskedLayer]] = {nn.Linear: MaskedLinear, nn.Conv2d: MaskedConv2d}
MASKED_TO_PLAIN = {masked: plain for plain, masked in PLAIN_TO_MASKED.items()}


def mask_layers(model: nn.Module, *, dense: Collection[str] = (), by_parameter: bool = False) -> list[str]:
    """Mask the weights of conv, linear and embedding layers and of attention, in place; freeze all but the scores.

    Scores start as copies of the weights, and the rule as KeepAll, until the method sets both. Layers whose path is in
    `dense` are not masked. With `by_parameter` every weight is masked as a parameter, for networks that may read a
    weight without calling its layer (as torchvision's Swin does). Returns the paths of the masked weights, in the order
    of the network. Raises ValueError if there is nothing to mask, or if two modules share a weight.
    """
    found = _to_mask(model, dense)
    if not found:
        raise ValueError(f"{type(model).__name__} has no conv, linear or embedding layer to mask: choose another model")
    refuse_tied(model, dense)
    model.requires_grad_(False)
    # In evaluation, torch's encoder layer reads the weights of its layers without calling them.
    read = {
        child for each in model.modules() if isinstance(each, nn.TransformerEncoderLayer) for child in each.children()
    }
    for _, module, name in found:
        weight = module.get_parameter(name)
        # Exact types only: a subclass may bypass its own forward (attention's output projection does).
        if by_parameter or module in read or type(module) not in PLAIN_TO_MASKED:
            parametrize.register_parametrization(module, name, MaskedParameter(weight), unsafe=True)
            continue
        # Changing the class keeps the object, and so hooks, shared layers, and a network that is itself one layer.
        module.__class__ = PLAIN_TO_MASKED[type(module)]
        assert isinstance(module, MaskedLayer)
        module.scores = nn.Parameter(weight.detach().clone())
        module.rule = KeepAll()
    return [path for path, _, _ in found]


def _to_mask(model: nn.Module, dense: Collection[str]) -> list[tuple[str, nn.Module, str]]:
    """Return path, module and parameter name of each weight that is to be masked."""
    return [each for each in weights_of(model) if each[0] not in dense and each[2] in each[1]._parameters]


def refuse_tied(model: nn.Module, dense: Collection[str]) -> None:
    """Raise ValueError where a weight to be masked is that of two modules: it would have two masks, or one and none."""
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules():  # each once, in however many places it is
        for name, value in module._parameters.items():
            names.setdefault(id(value), []).append(f"{path}.{name}".lstrip("."))
    for _, module, name in _to_mask(model, dense):
        if len(tied := names[id(module.get_parameter(name))]) > 1:
            raise ValueError(
                f"{' and '.join(tied)} are one tied weight, which cannot be masked in each place by itself; use one "
                "module in both places, or copy the weight"
            )


def masked_layers(model: nn.Module) -> list[tuple[str, MaskedLayer]]:
    """Return path and layer of each masked weight, with the paths and the order of `mask_layers`."""
    found: list[tuple[str, MaskedLayer]] = []
    for path, module in model.named_modules():
        if isinstance(module, MaskedLayer) and not isinstance(module, MaskedParameter):
            found.append((path, module))
        for parameter, masked in _masked_parameters(module):
            found.append((path if parameter == "weight" else f"{path}.{parameter}".lstrip("."), masked))
    return found


def _masked_parameters(module: nn.Module) -> list[tuple[str, MaskedParameter]]:
    if not parametrize.is_parametrized(module):
        return []
    chains = module.get_submodule("parametrizations").named_children()
    first = [(name, next(chain.children())) for name, chain in chains]
    return [(name, masked) for name, masked in first if isinstance(masked, MaskedParameter)]


def not_masked(model: nn.Module) -> dict[str, int]:
    """Return name and number of elements of each parameter that is not masked; scores are not listed."""
    known = {id(each) for _, layer in masked_layers(model) for each in (layer.weight, layer.scores)}
    return {name: value.numel() for name, value in model.named_parameters() if id(value) not in known}


def norm_factors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the factors and shifts of all batch-norm layers, (channels,), by name."""
    layers = [(path, each) for path, each in model.named_modules() if isinstance(each, _BatchNorm)]
    return {
        f"{path}.{name}".lstrip("."): value
        for path, layer in layers
        for name, value in layer.named_parameters(recurse=False)
    }


def fill_scores(model: nn.Module, seed: int, stream: str) -> None:
    """Draw all scores uniformly from [-b, b] with b = 1/sqrt(fan_in), in place; each layer has its own random stream.

    This is the initialisation of the authors' code (Ramanujan et al. 2020).
    """
    for path, layer in masked_layers(model):
        bound = fans(layer.weight)[0] ** -0.5
        # Drawn row-major and copied, since in place the numbers would depend on the memory format.
        drawn = torch.empty(layer.weight.shape).uniform_(-bound, bound, generator=generator(seed, stream, path))
        layer.scores.detach().copy_(drawn)


@contextmanager
def cached_masks(model: nn.Module, *, trained: bool = False) -> Iterator[None]:
    """Compute the masked weights once for all forward passes within the context.

    For an evaluation, or with `trained` for one training step, whose gradients pass through them.
    """
    layers = [layer for _, layer in masked_layers(model)]
    try:
        for layer in layers:
            effective = layer.effective_weight()
            layer.cached_weight = effective if trained else effective.detach()
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("cached_weight", None)  # the class attribute None is visible again


def remove_masks(model: nn.Module) -> None:
    """Write the masked weights into the layers and restore torch's own classes, in place; scores are removed."""
    for module in list(model.modules()):
        for name, masked in _masked_parameters(module):
            effective = masked.effective_weight().detach().clone()
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            module.register_parameter(name, nn.Parameter(effective, requires_grad=False))
        if isinstance(module, MaskedLayer) and not isinstance(module, MaskedParameter):
            effective = module.effective_weight().detach().clone()
            plain = MASKED_TO_PLAIN[type(module)]
            del module.scores, module.rule
            module.__class__ = plain  # type: ignore[assignment]
            module.weight = nn.Parameter(effective, requires_grad=False)
