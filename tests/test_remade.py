"""An effective weight that is made again in the backward pass gives the same bits, and is not alive in between."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from hidden_subnet import layers, remade
from hidden_subnet.layers import LendingRule, Rule, fill_scores, mask_layers, masked_layers
from hidden_subnet.masks import Scratch
from hidden_subnet.methods.budget import GlobalBudget
from hidden_subnet.methods.dnw import DnwRule
from hidden_subnet.methods.edge_popup import EdgePopupRule, TopKRule
from hidden_subnet.methods.method import Choice
from hidden_subnet.methods.random_trained import FixedMaskRule
from hidden_subnet.methods.warmup_then_prune import WarmupRule


def searching(choice: Choice) -> Rule:
    rule = WarmupRule(choice)
    rule.dense = False
    return rule


RULES: dict[str, Callable[[Choice], Rule]] = {
    "edge_popup": EdgePopupRule, "dnw": DnwRule, "warmup, dense": WarmupRule, "warmup, searching": searching,
}  # fmt: skip
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "linear without bias, of 3 dimensions": (lambda: nn.Linear(6, 4, bias=False), (5, 2, 6)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1), (4, 2, 5, 5)),
    "conv with stride and groups": (lambda: nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False), (4, 4, 6, 6)),
    "conv padded in a circle": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (4, 2, 5, 5)),
    "depthwise, 1x1": (lambda: nn.Conv2d(3, 3, 1, groups=3), (4, 3, 2, 2)),
}


def step(
    made: Callable[[], nn.Module], rule: Callable[[Choice], Rule], x: Tensor, precision: torch.dtype
) -> list[Tensor]:
    torch.manual_seed(0)
    first = made()
    model = nn.Sequential(first, nn.ReLU(inplace=True), first) if x.shape == first(x).shape else first
    mask_layers(model, lambda n: rule(TopKRule(max(1, n // 3), Scratch())))
    fill_scores(model, 0, "scores")
    [(_, layer)] = masked_layers(model)
    layer.weight.requires_grad_(rule is WarmupRule)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = model(x)
    output.float().square().sum().backward()
    found = [output, x.grad, layer.scores.grad, layer.weight.grad]
    return [each.detach() for each in found if each is not None]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_same_bits(
    rule: str, kind: str, layout: torch.memory_format, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, shape = LAYERS[kind]
    if layout is torch.channels_last and len(shape) < 4:
        layout = torch.contiguous_format
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)

    def laid_out() -> nn.Module:
        return made().to(memory_format=layout) if len(shape) == 4 else made()  # type: ignore[call-overload]

    kept = step(laid_out, RULES[rule], x, precision)
    monkeypatch.setattr(remade, "SMALLEST", 1)
    again = step(laid_out, RULES[rule], x, precision)
    assert len(kept) == len(again) == 3
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def linear(n: int, choice: Choice | None = None) -> nn.Linear:
    layer = nn.Linear(n, n, bias=False)
    mask_layers(layer, lambda size: EdgePopupRule(choice or TopKRule(size // 2, Scratch())))
    fill_scores(layer, 0, "scores")
    return layer


def test_it_is_not_alive_between_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[StorageWeakRef] = []
    operation = F.linear

    def seen(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        made.append(StorageWeakRef(weight.untyped_storage()))
        return operation(x, weight, bias)

    monkeypatch.setattr(layers.F, "linear", seen)
    gone = []
    for smallest in (10**9, 1):
        monkeypatch.setattr(remade, "SMALLEST", smallest)
        output = linear(8)(torch.randn(3, 8, requires_grad=True))
        gone.append(made[-1].expired())
        output.sum().backward()
    assert gone == [False, True]


def test_global_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(new_rate: float | None = None) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        mask_layers(model, lambda n: TopKRule(n, Scratch()))
        fill_scores(model, 0, "scores")
        found = [layer for _, layer in masked_layers(model)]
        budget = GlobalBudget([layer.scores for layer in found], [6, 8], 0.6, 0.0)
        for layer, choice in zip(found, budget.choices(), strict=True):
            layer.rule = EdgePopupRule(choice)
        budget.refresh()
        loss = model(torch.ones(4, 6)).sum()
        if new_rate is not None:
            budget.set_rate(new_rate)
            budget.refresh()
        loss.backward()
        return [layer.scores.grad for layer in found if layer.scores.grad is not None]

    kept = gradients()
    monkeypatch.setattr(remade, "SMALLEST", 1)
    assert all(torch.equal(one, other) for one, other in zip(kept, gradients(), strict=True))
    with pytest.raises(RuntimeError, match="worked out anew"):
        gradients(new_rate=0.9)


def test_what_changed_in_between_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remade, "SMALLEST", 1)

    def change(layer: nn.Linear, x: Tensor) -> dict[str, Tensor]:
        assert isinstance(layer, layers.Masked)
        return {"scores": layer.scores.detach(), "weight": layer.weight, "input": x}

    for what in ("scores", "weight", "input", ""):
        layer, leaf = linear(4), torch.ones(2, 4, requires_grad=True)
        x = leaf * 1
        output = layer(x)
        with torch.no_grad():
            if what:
                change(layer, x)[what].add_(1)
        if what:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                output.sum().backward()
        else:
            output.sum().backward()


def test_which_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones on a CPU, of the methods whose weight is made by a choice."""
    assert not remade.pays(torch.empty(2**18 - 1))
    assert remade.pays(torch.empty(2**18))
    assert not remade.pays(torch.empty(2**18, device="meta"))
    choice = TopKRule(1, Scratch())
    assert all(isinstance(rule(choice), LendingRule) for rule in RULES.values())
    assert not isinstance(FixedMaskRule(choice), LendingRule)
    lent = []
    rule = EdgePopupRule(TopKRule(8, Scratch()))
    layer = linear(4)
    [(_, masked)] = masked_layers(layer)
    masked.rule = rule
    monkeypatch.setattr(EdgePopupRule, "lend", lambda *given: lent.append(1) or remade.remade(torch.ones(4, 4), list))
    layer(torch.ones(1, 4))
    assert lent == []
    monkeypatch.setattr(remade, "SMALLEST", 16)
    assert layer(torch.ones(1, 4)).tolist() == [[4, 4, 4, 4]]
    assert lent == [1]
    with torch.no_grad():
        layer(torch.ones(1, 4))
    assert lent == [1]


def test_a_network_that_was_made_for_inference_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors count no versions."""
    monkeypatch.setattr(remade, "SMALLEST", 1)
    with torch.inference_mode():
        layer = linear(4)
        [(_, masked)] = masked_layers(layer)
        expected = torch.ones(1, 4) @ (masked.weight * masked.rule.mask(masked.scores)).t()
        assert torch.equal(layer(torch.ones(1, 4)), expected)
