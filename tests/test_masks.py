"""The mask keeps exactly K weights, by a rule that knows no layout, and the gradient passes straight through."""

from itertools import pairwise

import pytest
import torch

from hidden_subnet import masks
from hidden_subnet.masks import BLOCK, Scratch, Trail, kept_count, select, topk_mask
from hidden_subnet.methods.edge_popup import TopKRule


@pytest.mark.parametrize(
    ("n", "prune_rate", "kept"),
    [
        (100, 0.29, 71),  # binary floating point removes 28
        (100, 0.1, 90),
        (10, 0.1, 9),
        (10, 0.30000000000000004, 7),
        (10, 0.0, 10),
        (3, 0.5, 2),
        (1, 0.99, 1),
        (432, 0.995, 3),
        (27, 0.7, 9),
        (4_194_304, 0.9, 419_431),
    ],
)
def test_kept_count(n: int, prune_rate: float, kept: int) -> None:
    assert kept_count(n, prune_rate) == kept


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ([0.1, -0.9, 0.5, -0.3], 1, [0, 1, 0, 0]),
        ([0.1, -0.9, 0.5, -0.3], 2, [0, 1, 1, 0]),
        ([0.1, -0.9, 0.5, -0.3], 4, [1, 1, 1, 1]),
        ([1.0, -1.0, 1.0, 2.0], 2, [0, 0, 1, 1]),  # among equals the highest index is kept
        ([0.0, 0.0, 0.0, 0.0], 3, [0, 1, 1, 1]),
        ([0.0, 0.0, 0.0, 1.0], 2, [0, 0, 1, 1]),
        ([0.0, 1.0, 0.0, 0.0], 4, [1, 1, 1, 1]),
    ],
)
def test_topk_mask(scores: list[float], keep: int, kept: list[int]) -> None:
    assert topk_mask(torch.tensor(scores), keep).int().tolist() == kept
    # The path of other devices and types gives the same mask.
    assert topk_mask(torch.tensor(scores, dtype=torch.float64), keep).int().tolist() == kept


def by_stable_sort(scores: torch.Tensor, keep: int) -> torch.Tensor:
    order = torch.sort(scores.abs().flatten(), stable=True).indices
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[scores.numel() - keep :]] = True
    return mask.view(scores.shape)


@pytest.mark.parametrize("distinct", [2, 50, 10**7], ids=["two-values", "fifty-values", "continuous"])
@pytest.mark.parametrize("shape", [(5,), (6, 4, 3, 3), (256, 300), (64, 64, 9, 9)])
def test_mask_is_that_of_a_stable_sort(shape: tuple[int, ...], distinct: int) -> None:
    source = torch.Generator().manual_seed(0)
    scores = torch.randint(-distinct, distinct, shape, generator=source).float()
    scratch = Scratch()
    for prune_rate in (0.0, 0.003, 0.1, 0.5, 0.9, 0.999):
        keep = kept_count(scores.numel(), prune_rate)
        mask = topk_mask(scores, keep, scratch)
        assert int(mask.sum()) == keep
        assert torch.equal(mask, by_stable_sort(scores, keep))
        weight = torch.randn(shape, generator=source)
        assert torch.equal(TopKRule(keep, scratch).decide(scores)(weight), weight * mask)


def test_masks_of_rising_rates_are_nested() -> None:
    scores = torch.randint(0, 9, (40, 40), generator=torch.Generator().manual_seed(1)).float()
    masks = [topk_mask(scores, kept_count(1600, rate)) for rate in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for larger, smaller in pairwise(masks):
        assert not (smaller & ~larger).any()


def test_channels_last_has_the_same_mask() -> None:
    scores = torch.randint(0, 4, (8, 6, 3, 3), generator=torch.Generator().manual_seed(2)).float()
    last = scores.to(memory_format=torch.channels_last)
    for keep in (1, 100, 431):
        mask = topk_mask(last, keep)
        assert torch.equal(mask, topk_mask(scores, keep))
        assert mask.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("adverse", ["periodic", "sorted", "outlier", "nan"])
def test_selection_survives_what_its_sample_misses(adverse: str) -> None:
    n = 8192
    scores = torch.rand(n, generator=torch.Generator().manual_seed(3)) + 1
    if adverse == "periodic":
        scores[::16] = 0  # all that the sample sees
    elif adverse == "sorted":
        scores = scores.sort().values
    elif adverse == "outlier":
        scores[5] = 1e30
    else:
        scores[7] = float("nan")
    for keep in (1, n // 2, n - 1):
        assert select(scores, keep, Scratch())[0] == torch.sort(scores).values[n - keep] or adverse == "nan"
        assert int(topk_mask(scores, keep).sum()) in ((keep,) if adverse != "nan" else (keep - 1, keep))


def test_the_trail_of_earlier_steps_leads_to_the_same_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drift, standstill, a jump, a change of what is kept, equal scores, nan and back: always the exact one."""
    samples, sample = [], masks._bracket
    monkeypatch.setattr(masks, "_bracket", lambda *given: samples.append(1) or sample(*given))
    source, scratch, trail = torch.Generator().manual_seed(5), Scratch(), Trail()
    scores = torch.randn(20_000, generator=source)
    sampled = {}
    for step in range(60):
        keep = 10_000 if step < 40 else 2_000
        if 30 <= step < 33:
            scores = (scores * 4).round() / 4
        elif step == 20:
            scores = scores * 100
        elif step == 50:
            scores[3] = torch.nan
        elif step == 51:
            scores[3] = 0
        elif step >= 5:
            scores = scores + 1e-3 * scores.abs().mean() * torch.randn(20_000, generator=source)
        samples.clear()
        found = select(scores, keep, scratch, trail)
        sampled[step] = len(samples)
        if step != 50:
            assert found == select(scores, keep, Scratch())
            assert found[0] == scores.abs().sort().values[20_000 - keep]
    # Where nothing jumps it takes a sample to find the trail, and no more.
    assert sum(sampled[step] for step in range(2, 5)) == 0
    assert sum(sampled[step] for step in range(8, 20)) <= 1
    assert sampled[20] == sampled[40] == 1
    assert sum(sampled[step] for step in range(55, 60)) <= 2


@pytest.mark.parametrize("n", [BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_selection_over_several_blocks(n: int) -> None:
    source, scratch = torch.Generator().manual_seed(4), Scratch()
    for scores in (torch.randn(n, generator=source), torch.randint(0, 99, (n,), generator=source).float()):
        ascending = scores.abs().sort().values
        for keep in (1, n // 2, n - 1):
            threshold, tied = select(scores, keep, scratch)
            assert threshold == ascending[n - keep]
            assert tied == bool(ascending[n - keep - 1] == threshold)


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (1, 4, 3, 3), (4, 3, 1, 1), (2, 3, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_effective_weight_lies_in_memory_as_the_weight(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    """Down to the strides of dimensions of one element: by them a convolution chooses how it adds up."""
    weight = torch.randn(shape).to(memory_format=layout)
    scores = torch.randn_like(weight)
    effective = TopKRule(3, Scratch()).decide(scores)(weight)
    assert effective.stride() == weight.stride()
    assert torch.equal(effective, weight * topk_mask(scores, 3))


def test_forward_and_straight_through_gradient_written_out() -> None:
    scores = torch.tensor([0.1, -0.9, 0.5, 0.0], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, -3.0, 4.0])
    effective = TopKRule(2, Scratch())(scores, weight)
    assert effective.tolist() == [0, 2, -3, 0]
    effective.backward(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    assert scores.grad is not None
    # gradient * weight * sign(score), for the removed weights too
    assert scores.grad.tolist() == [1, -2, -3, 0]


def test_a_layer_used_twice_before_the_backward() -> None:
    """The second use must not overwrite the effective weight that the first one's gradient needs."""
    scores = torch.tensor([[0.1, -0.9], [0.5, 0.2]], requires_grad=True)
    rule, weight = TopKRule(2, Scratch()), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = torch.tensor([[1.0, -1.0]])
    for _ in range(2):  # a later step as well
        scores.grad = None
        hidden = torch.nn.functional.linear(x, rule(scores, weight))
        torch.nn.functional.linear(hidden, rule(scores, weight)).sum().backward()
        plain = torch.tensor([[0.0, 2.0], [3.0, 0.0]], requires_grad=True)
        torch.nn.functional.linear(torch.nn.functional.linear(x, plain), plain).sum().backward()
        assert scores.grad is not None
        assert plain.grad is not None
        assert torch.equal(scores.grad, plain.grad * weight * torch.sign(scores.detach()))
