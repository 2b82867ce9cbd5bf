"""A masked weight that is computed again in the backward pass has the same bits, and is not alive in between."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from hidden_subnet.masks.allocation import GlobalAllocation
from hidden_subnet.masks.layers import RecomputableRule, ScoreRule, fill_scores, mask_layers, masked_layers
from hidden_subnet.masks.recompute import SMALLEST, should_recompute
from hidden_subnet.masks.selection import LayerSelection, TopKSelection
from hidden_subnet.methods.biprop import BipropRule
from hidden_subnet.methods.dnw import DnwRule
from hidden_subnet.methods.edge_popup import EdgePopupRule
from hidden_subnet.methods.random_trained import FixedMaskRule
from hidden_subnet.methods.signed import SignedRule
from hidden_subnet.methods.warmup_then_prune import WarmupRule

SIDE = 512  # of the smallest square layer whose masked weight is computed again


def searching(selection: LayerSelection) -> ScoreRule:
    rule = WarmupRule(selection)
    rule.dense = False
    return rule


RULES: dict[str, Callable[[LayerSelection], ScoreRule]] = {
    "edge_popup": EdgePopupRule, "dnw": DnwRule, "signed": SignedRule, "biprop": BipropRule,
    "warmup, dense": WarmupRule, "warmup, searching": searching,
}  # fmt: skip
# Layers of SMALLEST weights or a few more, and a small batch for each.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(600, 440), (5, 600)),
    "linear without bias, of 3 dimensions": (lambda: nn.Linear(600, 440, bias=False), (5, 2, 600)),
    "conv": (lambda: nn.Conv2d(100, 300, 3, padding=1), (4, 100, 3, 3)),
    "conv with stride and groups": (lambda: nn.Conv2d(256, 256, 3, 2, groups=2, bias=False), (4, 256, 4, 4)),
    "conv padded in a circle": (lambda: nn.Conv2d(100, 300, 3, padding=1, padding_mode="circular"), (4, 100, 3, 3)),
    "1x1": (lambda: nn.Conv2d(512, 512, 1), (4, 512, 2, 2)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 256, groups=4), (2, 4, 257, 257)),
}


class KeptRule:
    """The same rule without `recomputed`: autograd keeps the masked weight for the backward pass."""

    def __init__(self, rule: ScoreRule) -> None:
        self.rule = rule

    def __call__(self, scores: Tensor, weight: Tensor) -> Tensor:
        return self.rule(scores, weight)

    def mask(self, scores: Tensor) -> Tensor:
        return self.rule.mask(scores)


def step(
    made: Callable[[], nn.Module], rule: ScoreRule, trains_weight: bool, x: Tensor, precision: torch.dtype
) -> list[Tensor]:
    """Return output and gradients of a layer under `rule`, used twice where its shapes allow it."""
    torch.manual_seed(0)
    first = made()
    model = nn.Sequential(first, nn.ReLU(inplace=True), first) if x.shape == first(x).shape else first
    mask_layers(model)
    fill_scores(model, 0, "scores")
    [(_, layer)] = masked_layers(model)
    layer.rule = rule
    layer.weight.requires_grad_(trains_weight)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = model(x)
    output.float().square().sum().backward()
    found = [output, x.grad, layer.scores.grad, layer.weight.grad]
    return [each.detach() for each in found if each is not None]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_same_bits(name: str, kind: str, layout: torch.memory_format, precision: torch.dtype) -> None:
    made, shape = LAYERS[kind]
    if layout is torch.channels_last and len(shape) < 4:
        layout = torch.contiguous_format
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)

    def laid_out() -> nn.Module:
        return made().to(memory_format=layout) if len(shape) == 4 else made()  # type: ignore[call-overload]

    def rule() -> ScoreRule:
        return RULES[name](TopKSelection(SMALLEST // 3))

    trains_weight = name == "warmup, dense"
    kept = step(laid_out, KeptRule(rule()), trains_weight, x, precision)
    again = step(laid_out, rule(), trains_weight, x, precision)
    assert len(kept) == len(again) == 3
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_same_bits_of_a_weight_whose_dimensions_have_one_element(
    name: str, layout: torch.memory_format, precision: torch.dtype
) -> None:
    def gradients(recomputes: bool) -> list[Tensor]:
        x, weight, scores = (
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(memory_format=layout).requires_grad_()
            for seed, shape in enumerate([(4, 3, 2, 2), (3, 1, 1, 1), (3, 1, 1, 1)])
        )
        rule = RULES[name](TopKSelection(1))
        assert isinstance(rule, RecomputableRule)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            if recomputes:
                with rule.recomputed(scores, weight) as effective:
                    output = F.conv2d(x, effective, groups=3)
            else:
                output = F.conv2d(x, rule(scores, weight), groups=3)
        output.float().square().sum().backward()
        return [each for each in (output.detach(), x.grad, scores.grad, weight.grad) if each is not None]

    kept, again = gradients(False), gradients(True)
    assert len(kept) == len(again) == 3
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def linear(side: int, rule: ScoreRule | None = None) -> nn.Linear:
    layer = nn.Linear(side, side, bias=False)
    mask_layers(layer)
    fill_scores(layer, 0, "scores")
    [(_, masked)] = masked_layers(layer)
    masked.rule = rule or EdgePopupRule(TopKSelection(side * side // 2))
    return layer


def test_it_is_not_alive_between_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[StorageWeakRef] = []
    operation = F.linear

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(StorageWeakRef(weight.untyped_storage()))
        return operation(x, weight, bias)

    monkeypatch.setattr(F, "linear", watched)
    gone = []
    for side in (SIDE - 1, SIDE):
        output = linear(side)(torch.randn(3, side, requires_grad=True))
        gone.append(seen[-1].expired())
        output.sum().backward()
    assert gone == [False, True]


def test_global_masks() -> None:
    def gradients(kept: bool = False, new_rate: float | None = None) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(SIDE, SIDE), nn.ReLU(), nn.Linear(SIDE, SIDE))
        mask_layers(model)
        fill_scores(model, 0, "scores")
        found = [layer for _, layer in masked_layers(model)]
        allocation = GlobalAllocation([layer.scores for layer in found], [SIDE, SIDE], 0.6, 0.0)
        for layer, selection in zip(found, allocation.selections(), strict=True):
            layer.rule = KeptRule(EdgePopupRule(selection)) if kept else EdgePopupRule(selection)
        allocation.refresh()
        loss = model(torch.ones(4, SIDE)).sum()
        if new_rate is not None:
            allocation.set_rate(new_rate)
            allocation.refresh()
        loss.backward()
        return [layer.scores.grad for layer in found if layer.scores.grad is not None]

    both = list(zip(gradients(kept=True), gradients(), strict=True))
    assert len(both) == 2
    assert all(torch.equal(one, other) for one, other in both)
    with pytest.raises(RuntimeError, match="computed again between a forward and its backward pass"):
        gradients(new_rate=0.9)


@pytest.mark.parametrize("what", ["scores", "weight", "input", "nothing"])
def test_what_changed_in_between_is_refused(what: str) -> None:
    layer, leaf = linear(SIDE), torch.ones(2, SIDE, requires_grad=True)
    [(_, masked)] = masked_layers(layer)
    x = leaf * 1
    output = layer(x)
    if what == "nothing":
        output.sum().backward()
        return
    with torch.no_grad():
        {"scores": masked.scores.detach(), "weight": masked.weight, "input": x}[what].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_write_past_the_counter_of_versions_is_refused(name: str, layout: torch.memory_format) -> None:
    layer = nn.Conv2d(256, 128, 3, bias=False).to(memory_format=layout)  # type: ignore[call-overload]
    mask_layers(layer)
    [(_, masked)] = masked_layers(layer)
    masked.rule = RULES[name](TopKSelection(1000))
    masked.weight.requires_grad_(name == "warmup, dense")
    output = layer(torch.ones(1, 256, 3, 3, requires_grad=True))
    masked.scores.data.mul_(-2)
    if name == "warmup, dense":  # nothing is computed again, and the scores do not matter
        output.sum().backward()
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("name", ["edge_popup", "dnw"])
def test_hooks_that_keep_saved_tensors_elsewhere_see_all_of_a_large_layer(name: str) -> None:
    def gradients(run: Callable[[nn.Module, Tensor], Tensor]) -> list[Tensor]:
        torch.manual_seed(0)
        layer, x = linear(SIDE, RULES[name](TopKSelection(1000))), torch.ones(3, SIDE, requires_grad=True)
        run(layer, x * 2).square().sum().backward()
        [(_, masked)] = masked_layers(layer)
        assert x.grad is not None
        assert masked.scores.grad is not None
        return [x.grad, masked.scores.grad]

    packed: list[Tensor] = []

    def moved(layer: nn.Module, x: Tensor) -> Tensor:
        def pack(saved: Tensor) -> Tensor:
            packed.append(saved)
            return saved.clone()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            output: Tensor = layer(x)
        return output

    def on_cpu(layer: nn.Module, x: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            output: Tensor = layer(x)
        return output

    def again(layer: nn.Module, x: Tensor) -> Tensor:
        output: Tensor = checkpoint(layer, x, use_reentrant=False)
        return output

    def forbidden(layer: nn.Module, x: Tensor) -> Tensor:
        with torch.autograd.graph.disable_saved_tensors_hooks("no hooks here"):
            output: Tensor = layer(x)
        return output

    plain = gradients(lambda layer, x: layer(x))
    for run in (moved, on_cpu, again, forbidden):
        assert all(torch.equal(one, other) for one, other in zip(plain, gradients(run), strict=True))
    assert (3, SIDE) in {tuple(each.shape) for each in packed}  # the input of the layer


class CountingRule(EdgePopupRule):
    """Counts how often its masked weight was one that is not kept."""

    count = 0

    def recomputed(self, scores: Tensor, weight: Tensor) -> AbstractContextManager[Tensor]:
        self.count += 1
        return super().recomputed(scores, weight)


def test_which_layers() -> None:
    """Large ones on a CPU, of the methods whose masked weight a selection makes."""
    assert not should_recompute(torch.empty(2**18 - 1))
    assert should_recompute(torch.empty(2**18))
    assert not should_recompute(torch.empty(2**18, device="meta"))
    selection = TopKSelection(1)
    assert all(isinstance(rule(selection), RecomputableRule) for rule in RULES.values())
    assert not isinstance(FixedMaskRule(selection), RecomputableRule)
    rule = CountingRule(selection)
    linear(SIDE - 1, rule)(torch.ones(1, SIDE - 1))
    assert rule.count == 0
    layer = linear(SIDE, rule)
    layer(torch.ones(1, SIDE))
    assert rule.count == 1
    with torch.no_grad():
        layer(torch.ones(1, SIDE))
    assert rule.count == 1


def test_a_network_that_was_made_for_inference_runs() -> None:
    """Its tensors count no versions."""
    with torch.inference_mode():
        layer = linear(SIDE)
        [(_, masked)] = masked_layers(layer)
        expected = torch.ones(1, SIDE) @ (masked.weight * masked.rule.mask(masked.scores)).t()
        torch.testing.assert_close(layer(torch.ones(1, SIDE)), expected)
