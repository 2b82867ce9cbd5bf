"""Networks masked as edge-popup masks them, without a config; and a plain rule to compare masks with."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from hidden_subnet.masks.layers import fill_scores, mask_layers, masked_layers
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import SelectionBuffers, kept_count
from hidden_subnet.methods.edge_popup import EdgePopupRule


def by_stable_sort(scores: Tensor, keep: int) -> Tensor:
    """The mask of the `keep` largest |score|; among equals the highest index is kept."""
    order = torch.sort(scores.abs().flatten(), stable=True).indices
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[scores.numel() - keep :]] = True
    return mask.view(scores.shape)


def mask_as_edge_popup(
    network: nn.Module,
    prune_rate: float = 0.5,
    *,
    seed: int = 0,
    dense: Collection[str] = (),
    by_parameter: bool = False,
) -> list[str]:
    """Mask `network` in place: each layer keeps its K largest |score|, drawn from `seed`. Return the layers' paths."""
    paths = mask_layers(network, dense=dense, by_parameter=by_parameter)
    buffers = SelectionBuffers()
    for _, layer in masked_layers(network):
        layer.rule = EdgePopupRule(TopKSelection(kept_count(layer.weight.numel(), prune_rate), buffers))
    fill_scores(network, seed, "scores")
    return paths
