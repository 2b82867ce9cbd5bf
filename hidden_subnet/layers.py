"""Score-masked layers, and the surgery that puts them into any torch module.

A masked layer is torch's own layer with a frozen `weight` and learned `scores` beside it. In every forward pass a rule
turns both into the effective weight; what the rule is, and how its gradient reaches the scores, is the method. A weight
that is read past its layer's forward is masked as a parameter, and looks the same from here.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hidden_subnet.inits import fans, weights_of
from hidden_subnet.remade import pays
from hidden_subnet.seeding import generator


class Rule(Protocol):
    """How a layer's scores act on its weight; all tensors have the weight's shape."""

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        """The effective weight; what of its gradient reaches the scores is the rule's own."""

    def mask(self, scores: Tensor) -> Tensor:
        """Boolean: which weights are kept."""


@runtime_checkable
class LendingRule(Rule, Protocol):
    """A rule whose effective weight need not be kept for the backward pass (hidden_subnet/remade.py)."""

    def lend(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        """The same effective weight, for one operation within the context."""


class Masked(nn.Module):
    weight: Tensor
    scores: nn.Parameter
    rule: Rule
    held: Tensor | None = None

    def effective_weight(self) -> Tensor:
        return self.rule(self.scores, self.weight) if self.held is None else self.held

    def with_effective_weight(self, operation: Callable[[Tensor], Tensor]) -> Tensor:
        if self.held is None and pays(self.scores) and isinstance(self.rule, LendingRule):
            with self.rule.lend(self.scores, self.weight) as effective:
                return operation(effective)
        return operation(self.effective_weight())


class MaskedLinear(Masked, nn.Linear):  # type: ignore[misc]
    def forward(self, input: Tensor) -> Tensor:
        return self.with_effective_weight(lambda effective: F.linear(input, effective, self.bias))


class MaskedConv2d(Masked, nn.Conv2d):  # type: ignore[misc]
    def forward(self, input: Tensor) -> Tensor:
        return self.with_effective_weight(lambda effective: self._conv_forward(input, effective, self.bias))


class MaskedParameter(Masked):
    """A parametrization (torch.nn.utils.parametrize): whoever reads the parameter reads the effective weight.

    For weights that are read without a call of their layer, as nn.MultiheadAttention does with all of its own.
    """

    def __init__(self, weight: nn.Parameter, rule: Rule) -> None:
        super().__init__()
        self._weight = [weight]  # in a list it is not registered a second time
        self.scores = nn.Parameter(weight.detach().clone())
        self.rule = rule

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self._weight[0]

    def forward(self, weight: Tensor) -> Tensor:
        return self.effective_weight()


PLAIN_TO_MASKED: dict[type[nn.Module], type[Masked]] = {nn.Linear: MaskedLinear, nn.Conv2d: MaskedConv2d}
MASKED_TO_PLAIN = {masked: plain for plain, masked in PLAIN_TO_MASKED.items()}


def mask_layers(
    model: nn.Module, rule_for: Callable[[int], Rule], dense: Collection[str] = (), by_parameter: bool = False
) -> list[str]:
    """Mask every weight of conv and linear layers and of attention in place, and freeze everything but the scores.

    `rule_for(n)` gives the rule of a layer with n weights. Layers whose path is in `dense` keep all of their weights.
    `by_parameter` masks every weight as a parameter, for networks that may read a layer's weight without calling the
    layer (torchvision's Swin does). Returns the paths of what is masked, in order.
    Raises ValueError if there is nothing to mask.
    """
    found = [each for each in weights_of(model) if each[0] not in dense and each[2] in each[1]._parameters]
    if not found:
        raise ValueError(f"{type(model).__name__} has no Conv2d or Linear layer: there is nothing to mask")
    model.requires_grad_(False)
    # In evaluation torch's encoder layer hands the weights of its layers to a function of its own.
    read = {
        child for each in model.modules() if isinstance(each, nn.TransformerEncoderLayer) for child in each.children()
    }
    for _, module, name in found:
        weight = module.get_parameter(name)
        # Exact types only: a subclass may bypass its own forward (attention's output projection does).
        if by_parameter or module in read or type(module) not in PLAIN_TO_MASKED:
            masked = MaskedParameter(weight, rule_for(weight.numel()))
            parametrize.register_parametrization(module, name, masked, unsafe=True)
            continue
        # The layer stays the object that it is, so hooks, sharing and its place in the model (even its root) survive.
        module.__class__ = PLAIN_TO_MASKED[type(module)]
        assert isinstance(module, Masked)
        module.scores = nn.Parameter(weight.detach().clone())
        module.rule = rule_for(weight.numel())
    return [path for path, _, _ in found]


def masked_layers(model: nn.Module) -> list[tuple[str, Masked]]:
    """With the paths that `mask_layers` returned, in the same order."""
    found: list[tuple[str, Masked]] = []
    for path, module in model.named_modules():
        if isinstance(module, Masked) and not isinstance(module, MaskedParameter):
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
    """Name and size of the parameters that no mask acts on, scores aside."""
    known = {id(each) for _, layer in masked_layers(model) for each in (layer.weight, layer.scores)}
    return {name: value.numel() for name, value in model.named_parameters() if id(value) not in known}


def fill_scores(model: nn.Module, seed: int, stream: str) -> None:
    """Draw all scores uniformly from +-1/sqrt(fan_in), as the authors do, each layer from its own stream."""
    for path, layer in masked_layers(model):
        bound = fans(layer.weight)[0] ** -0.5
        # Drawn contiguous and copied: in place, the numbers would depend on the memory format.
        drawn = torch.empty(layer.weight.shape).uniform_(-bound, bound, generator=generator(seed, stream, path))
        layer.scores.detach().copy_(drawn)


@contextmanager
def masks_held(model: nn.Module, *, trained: bool = False) -> Iterator[None]:
    """Within it the masks are worked out once and not in every forward pass: for evaluation, where scores rest.

    `trained`: for one step of training, whose gradients go through them.
    """
    layers = [layer for _, layer in masked_layers(model)]
    try:
        for layer in layers:
            effective = layer.effective_weight()
            layer.held = effective if trained else effective.detach()
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("held", None)  # back to the class's None


def bake(model: nn.Module) -> None:
    """Write the effective weights into the layers and make them torch's own again, in place."""
    for module in list(model.modules()):
        for name, masked in _masked_parameters(module):
            effective = masked.effective_weight().detach().clone()
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            module.register_parameter(name, nn.Parameter(effective, requires_grad=False))
        if isinstance(module, Masked) and not isinstance(module, MaskedParameter):
            effective = module.effective_weight().detach().clone()
            plain = MASKED_TO_PLAIN[type(module)]
            del module.scores, module.rule
            module.__class__ = plain  # type: ignore[assignment]
            module.weight = nn.Parameter(effective, requires_grad=False)
