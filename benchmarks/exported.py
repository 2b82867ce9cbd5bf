"""Speed of an exported network, whose removed weights are zeros: they cost what others cost unless a kernel skips them.

A CPU is asked for what torch has: its dense kernels, and for linear layers those of compressed rows (CSR).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.network import Shape, batch_of, network, of_methods
from benchmarks.timing import Row, by_turns, ratios
from hidden_subnet.masks.layers import remove_masks
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.edge_popup import EdgePopupRule

GRAY: Shape = (1, 28, 28)


def rows(width: float, batch: int, rounds: int) -> list[Row]:
    """Forward passes of exported networks, as multiples of that of the network without masks."""
    rules = {f"{name}, dense kernels": of_methods()[name] for name in ("edge_popup", "n_m", "block")}
    conv2 = {"without masks": network("conv2", width, None)}
    conv2 |= {name: _exported(network("conv2", width, rule)) for name, rule in rules.items()}
    fc = {"without masks": network("fc", width, None, shape=GRAY)}
    for rate in (0.5, 0.9, 0.99):
        exported = _exported(network("fc", width, lambda n, rate=rate: _top(n, rate), shape=GRAY))
        fc[f"{rate:.0%} removed, CSR"] = _compressed(exported)
    return [
        *_rows("conv2, 50% removed", conv2, batch_of(batch)[0], rounds),
        *_rows("fc", fc, batch_of(batch, GRAY)[0], rounds),
    ]


def _rows(what: str, networks: dict[str, nn.Module], images: Tensor, rounds: int) -> list[Row]:
    seconds = by_turns({name: _forward(each, images) for name, each in networks.items()}, rounds)
    floor = seconds.pop("without masks")
    topic = f"forward pass of an exported {what}, batch {len(images)}"
    return [
        Row(topic=topic, name=f"{name} / without masks", unit="x", samples=ratios(each, floor))
        for name, each in seconds.items()
    ]


def _forward(model: nn.Module, images: Tensor) -> Callable[[], None]:
    model.eval()

    def forward() -> None:
        with torch.no_grad():  # sparse tensors are no inference tensors
            model(images)

    return forward


def _top(n: int, rate: float) -> EdgePopupRule:
    return EdgePopupRule(TopKSelection(kept_count(n, rate)))


def _exported(masked: nn.Module) -> nn.Module:
    remove_masks(masked)
    return masked


def _compressed(exported: nn.Module) -> nn.Module:
    for module in exported.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().to_sparse_csr(), requires_grad=False)
    return exported
