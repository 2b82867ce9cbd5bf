"""A small vision transformer: does it help a random one to have larger queries and keys? (docs/models_and_data.md)"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import hidden_subnet as hs


class SmallViT(nn.Module):
    """Cuts images into patches, and lets them attend to one another; maps (B, channels, side, side) to (B, classes)."""

    def __init__(
        self, channels: int, side: int, classes: int, *, patch: int, features: int, heads: int, layers: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, features, patch, stride=patch)
        # Positions are not masked. A random network needs them: without, it could not tell one patch from another.
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2, features))
        layer = nn.TransformerEncoderLayer(features, heads, 2 * features, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(features, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


@hs.register_model("small_vit")
def small_vit(
    shape: Sequence[int], classes: int, *, patch: int = 2, features: int = 64, heads: int = 2, layers: int = 2
) -> nn.Module:
    """Return the network; the keys of a head have features / heads = 32 dimensions."""
    channels, side, _ = shape
    return SmallViT(channels, side, classes, patch=patch, features=features, heads=heads, layers=layers)
