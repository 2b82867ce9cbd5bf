"""The global allocation keeps exactly K of all weights, by a stated order and with its floors; the ramp of the rate."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from hidden_subnet.config.registries import ALLOCATIONS
from hidden_subnet.config.settings import Ramp
from hidden_subnet.masks.allocation import (
    AllocationRequest,
    GlobalAllocation,
    LayerwiseAllocation,
    ProportionalAllocation,
    floor_count,
    keep_largest,
    largest_on_device,
    proportional_counts,
    prune_rate_at,
)
from hidden_subnet.masks.topk import SelectionBuffers, kept_count


def kept(values: Sequence[float] | Tensor, sizes: Sequence[int], keep: int, floors: Sequence[int]) -> Tensor:
    flat = torch.as_tensor(values, dtype=torch.float32)
    out = torch.empty(len(flat), dtype=torch.bool)
    keep_largest(flat.clone(), sizes, keep, floors, SelectionBuffers(), out)
    assert torch.equal(out, largest_on_device(flat.clone(), sizes, keep, floors))
    return out


@pytest.mark.parametrize(
    ("values", "sizes", "keep", "floors", "expected"),
    [
        ([9, 8, 1, 2], [4], 2, [1], [1, 1, 0, 0]),
        ([9, 8, 1, 2], [2, 2], 2, [1, 1], [1, 0, 0, 1]),
        ([9, 8, 1, 2], [2, 2], 3, [1, 1], [1, 1, 0, 1]),
        ([9, 8, 1, 2], [2, 2], 4, [1, 1], [1, 1, 1, 1]),
        ([5, 5, 5, 5], [1, 3], 3, [1, 1], [1, 0, 1, 1]),  # of equal ones the highest index
        ([5, 5, 5, 5], [2, 2], 2, [1, 1], [0, 1, 0, 1]),
        ([5, 5, 5, 5], [2, 2], 3, [1, 1], [0, 1, 1, 1]),
        ([5, 5, 5, 5], [1, 3], 2, [1, 1], [1, 0, 0, 1]),
        # Layer 1 takes two places by its floor; that raises the threshold above layer 2's only candidate.
        ([9, 8, 7, 0, 0, 6, 1], [3, 2, 2], 4, [1, 2, 1], [1, 0, 0, 1, 1, 1, 0]),
        ([0, 0, 0, 0], [2, 2], 2, [1, 1], [0, 1, 0, 1]),
    ],
)
def test_written_out(values: list[float], sizes: list[int], keep: int, floors: list[int], expected: list[int]) -> None:
    assert kept(values, sizes, keep, floors).int().tolist() == expected


def by_sorting(flat: Tensor, sizes: Sequence[int], keep: int, floors: Sequence[int]) -> Tensor:
    """From the definition: the floors first, then by value and index."""
    order = torch.argsort(flat, stable=True).flip(0).tolist()
    chosen: list[int] = []
    first = 0
    for size, floor in zip(sizes, floors, strict=True):
        chosen += [i for i in order if first <= i < first + size][:floor]
        first += size
    rest = [i for i in order if i not in set(chosen)]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[chosen + rest[: keep - len(chosen)]] = True
    return mask


def test_random_layers_as_by_sorting() -> None:
    source = torch.Generator().manual_seed(0)
    for trial in range(60):
        sizes = torch.randint(1, 60, (4,), generator=source).tolist()
        n = sum(sizes)
        flat = torch.rand(n, generator=source) * torch.repeat_interleave(
            torch.rand(4, generator=source), torch.tensor(sizes)
        )
        if trial % 2:
            flat = (flat * 5).round()  # many ties
        rate = float(torch.rand((), generator=source) * 0.7)
        floors = [floor_count(size, rate, (0.1, 0.5, 1.0)[trial % 3]) for size in sizes]
        keep = kept_count(n, rate)
        if sum(floors) <= keep:
            found = kept(flat, sizes, keep, floors)
            assert int(found.count_nonzero()) == keep
            assert torch.equal(found, by_sorting(flat, sizes, keep, floors))


def test_floors_are_decimal() -> None:
    assert [floor_count(n, 0.9, 0.1) for n in (1, 100, 199, 200, 1000)] == [1, 1, 1, 2, 10]
    assert floor_count(1000, 0.71, 1.0) == 290  # 1000 * (1 - 0.71) is 290.00000000000006 in floats, 0.29 * 100 below 29
    assert floor_count(100, 0.5, 0.0) == 1


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    source = torch.Generator().manual_seed(1)
    found = []
    for shape in shapes:
        fan_in = torch.Size(shape[1:]).numel()
        found.append(nn.Parameter((torch.rand(shape, generator=source) * 2 - 1) / fan_in**0.5))
    return found


def allocate(scores: list[nn.Parameter], rate: float, floor: float = 0.1) -> GlobalAllocation:
    made = GlobalAllocation(scores, [each[0].numel() for each in scores], rate, floor)
    made.refresh()
    return made


@pytest.mark.parametrize("rate", [0.0, 0.29, 0.5, 0.9, 0.99])
def test_exactly_k_of_all_weights_and_layers_comparable_at_the_start(rate: float) -> None:
    """Unscaled, 0.5 % of the wide layer's weights would be kept at 0.9 (its scores are 20 times smaller)."""
    scores = parameters((64, 3, 3, 3), (256, 8192), (10, 256))
    masks = [selection.mask(each) for selection, each in zip(allocate(scores, rate).selections(), scores, strict=True)]
    assert sum(int(mask.count_nonzero()) for mask in masks) == kept_count(sum(map(torch.numel, scores)), rate)
    for mask in masks:
        n = mask.numel()
        share = mask.double().mean().item()
        assert share == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / n) ** 0.5 + 1e-12)


def test_the_floor_keeps_a_layer_alive() -> None:
    scores = parameters((50, 20), (10, 50))
    scores[1].detach().mul_(1e-6)
    for floor, least in ((0.0, 1), (0.1, 25), (0.5, 125)):
        selections = allocate(scores, 0.5, floor).selections()
        masks = [selection.mask(each) for selection, each in zip(selections, scores, strict=True)]
        assert [int(mask.count_nonzero()) for mask in masks] == [750 - least, least]


def test_masks_of_changed_scores_are_refused_until_refreshed() -> None:
    scores = parameters((5, 4), (3, 5))
    made = allocate(scores, 0.5)
    selection = made.selections()[0]
    before = selection.mask(scores[0])
    with torch.no_grad():
        scores[0].copy_(scores[0].flip(0))
    with pytest.raises(RuntimeError, match="refresh"):
        selection.mask(scores[0])
    made.refresh()
    assert torch.equal(selection.mask(scores[0]), before.flip(0))
    made.set_rate(0.9)
    with pytest.raises(RuntimeError, match="refresh"):
        selection.select(scores[0])(scores[0])


def test_channels_last_has_the_same_masks() -> None:
    scores = parameters((8, 4, 3, 3), (8, 8, 3, 3))
    other = [nn.Parameter(each.detach().to(memory_format=torch.channels_last)) for each in scores]
    for one, two, a, b in zip(
        allocate(scores, 0.7).selections(), allocate(other, 0.7).selections(), scores, other, strict=True
    ):
        assert torch.equal(one.mask(a), two.mask(b))


def test_more_layers_than_kept_weights_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"prune_rate=0\.99.*pruning=layerwise") as caught:
        allocate(parameters((2, 2), (2, 2), (2, 2)), 0.99)
    assert "\n" not in str(caught.value)


def test_layerwise_follows_the_rate() -> None:
    scores = parameters((10, 10), (7, 3))
    made = LayerwiseAllocation(scores, 0.5)
    for rate, counts in ((0.5, [50, 11]), (0.29, [71, 15]), (0.9, [10, 3])):
        made.set_rate(rate)
        masks = [selection.mask(each) for selection, each in zip(made.selections(), scores, strict=True)]
        assert [int(mask.count_nonzero()) for mask in masks] == counts


def test_ramp_written_out() -> None:
    def ramp(prune_rate: float, start_rate: float, ramp_epochs: int, epochs: int) -> list[float]:
        settings = {"prune_rate": prune_rate, "start_rate": start_rate, "ramp_epochs": ramp_epochs}
        return [prune_rate_at(epoch, **settings) for epoch in range(epochs)]  # type: ignore[arg-type]

    assert ramp(0.8, 0.0, 2, 4) == pytest.approx([0, 0.7, 0.8, 0.8])  # 0.8 - 0.8 / 8
    assert ramp(0.9, 0.1, 4, 5) == pytest.approx([0.1, 0.5625, 0.8, 0.8875, 0.9])  # 0.9 - 0.8 (1 - t/4)^3
    assert ramp(0.9, 0.0, 0, 2) == [0.9, 0.9]
    rates = ramp(0.9, 0.0, 50, 60)
    assert rates == sorted(rates)


def test_a_geometric_ramp_keeps_the_same_fraction_in_each_epoch() -> None:
    def rates(start_rate: float, prune_rate: float) -> list[float]:
        asked = {"prune_rate": prune_rate, "start_rate": start_rate, "ramp_epochs": 3}
        return [prune_rate_at(epoch, ramp=Ramp.geometric, **asked) for epoch in range(5)]  # type: ignore[arg-type]

    assert rates(0.0, 0.973) == pytest.approx([0, 0.7, 0.91, 0.973, 0.973])
    assert rates(0.5, 0.9375) == pytest.approx([0.5, 0.75, 0.875, 0.9375, 0.9375])
    assert rates(0.2, 0.2) == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    ("sizes", "shares", "keep", "expected"),
    [
        ([100, 100], [1, 3], 40, [10, 30]),
        ([100, 100], [1, 3], 41, [10, 31]),  # 10.25 and 30.75
        ([100, 100], [1, 1], 41, [20, 21]),  # of equal remainders the last
        ([10, 100], [3, 1], 40, [10, 30]),  # all of the first, and the rest of the second
        ([10, 20, 100], [5, 4, 1], 60, [10, 20, 30]),
        ([100, 1000], [1, 999], 50, [1, 49]),  # each keeps one
        ([4, 4, 4], [1, 1, 1], 3, [1, 1, 1]),
        ([4, 4, 4], [1, 2, 3], 12, [4, 4, 4]),
        ([1, 1], [1, 1], 2, [1, 1]),
        ([7], [5], 3, [3]),
    ],
)
def test_proportional_counts(sizes: list[int], shares: list[int], keep: int, expected: list[int]) -> None:
    assert proportional_counts(sizes, shares, keep) == expected


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("name", ["erk", "balanced"])
def test_budgets_keep_exactly_k(name: str, rate: float) -> None:
    scores = parameters((8, 3, 3, 3), (16, 8, 3, 3), (50, 400), (10, 50))
    made = ALLOCATIONS[name].make(AllocationRequest(scores, scores, [1] * 4, rate, 0.1, by_value=False))
    counts = [int(each.mask(one).count_nonzero()) for each, one in zip(made.selections(), scores, strict=True)]
    sizes = [each.numel() for each in scores]
    assert sum(counts) == kept_count(sum(sizes), rate)
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))
    made.set_rate(0.5)
    counts = [int(each.mask(one).count_nonzero()) for each, one in zip(made.selections(), scores, strict=True)]
    assert sum(counts) == kept_count(sum(sizes), 0.5)


def test_erk_and_balanced_written_out() -> None:
    """A conv of 4x2x3x3 = 72 weights and sum of sides 12, a linear layer of 30x30 = 900 and sum 60; 36 are kept."""
    scores = parameters((4, 2, 3, 3), (30, 30))
    found = {}
    for name in ("erk", "balanced"):
        made = ALLOCATIONS[name].make(AllocationRequest(scores, scores, [18, 30], 1 - 36 / 972, 0.1, by_value=False))
        found[name] = [int(each.mask(one).count_nonzero()) for each, one in zip(made.selections(), scores, strict=True)]
    assert found == {"erk": [6, 30], "balanced": [18, 18]}


def test_more_layers_than_weights_are_refused_by_budgets_too() -> None:
    with pytest.raises(ValueError, match=r"=0\.99 keeps 1 weights, fewer than the 2 layers.*pruning=layerwise"):
        ProportionalAllocation(parameters((2, 2), (2, 2)), [1, 1], 0.99)
