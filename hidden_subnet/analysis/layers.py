"""A masked layer from inside: its weight, mask and scores, and which of its units and inputs keep no weight."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hidden_subnet.masks.layers import masked_layers
from hidden_subnet.masks.state import current_masks


@dataclass(frozen=True)
class LayerInside:
    """A masked layer; all tensors have the shape of its weight: (out, in / groups, *kernel)."""

    path: str
    weight: Tensor
    """As drawn or trained, before the mask."""
    mask: Tensor
    scores: Tensor
    first: tuple[Tensor, Tensor] | None
    """Mask and scores before training; None where the run keeps none."""
    groups: int = 1
    """Groups of a conv layer."""
    inputs_first: bool = False
    """Whether the weight is (in, out, *kernel), as that of a transposed conv layer and of an embedding."""

    @property
    def density(self) -> float:
        """Fraction of the weights that is kept."""
        return float(self.mask.double().mean())

    @property
    def units(self) -> Tensor:
        """Number of weights that each output unit (filter, neuron) keeps; one with 0 is dead."""
        return self._grouped().sum((2, 3)).flatten()

    @property
    def inputs(self) -> Tensor:
        """Number of weights that each input (channel, neuron before it) keeps; one with 0 is not used."""
        return self._grouped().sum((1, 3)).flatten()

    def lost(self) -> list[str]:
        """Return how many units and inputs keep no weight: "1 of 64 units dead"; nothing where all keep one."""
        counts = {"units dead": self.units, "inputs unused": self.inputs}
        return [f"{int((each == 0).sum())} of {len(each)} {what}" for what, each in counts.items() if not each.all()]

    def _grouped(self) -> Tensor:
        """Return the mask as (groups, units of a group, inputs of a group, kernel)."""
        first, second = len(self.mask) // self.groups, self.mask.shape[1]
        parts = self.mask.reshape(self.groups, first, second, -1)
        return parts.transpose(1, 2) if self.inputs_first else parts

    @property
    def changed(self) -> float | None:
        """Fraction of the weights that were kept at first and are not any more, or the reverse."""
        return None if self.first is None else float((self.first[0] != self.mask).double().mean())


def layers_of(network: nn.Module, before: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> list[LayerInside]:
    """Return the masked layers of a network in its order; `before` has masks and scores before training, by path."""
    masks, modules = current_masks(network), dict(network.named_modules())
    layers = []
    for path, layer in masked_layers(network):
        module = modules.get(path)
        layers.append(
            LayerInside(
                path, layer.weight.detach(), masks[path], layer.scores.detach(), (before or {}).get(path),
                groups=module.groups if isinstance(module, _ConvNd) else 1,
                inputs_first=isinstance(module, _ConvTransposeNd | nn.Embedding),
            )
        )  # fmt: skip
    return layers
