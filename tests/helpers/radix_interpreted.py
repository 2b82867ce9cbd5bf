"""The cases of masks/gpu/test_select.py that run in Triton's interpreter: with TRITON_INTERPRET=1 from the start."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masking import by_stable_sort
from helpers.runs import QUIET, assert_same_run, small
from torch import Tensor, nn

from hidden_subnet.config.registries import ALLOCATIONS
from hidden_subnet.config.settings import Config, Pruning
from hidden_subnet.masks.allocation import Allocation, LayerwiseAllocation
from hidden_subnet.masks.gpu.allocation import SegmentedAllocation, layerwise
from hidden_subnet.masks.gpu.select import (
    Segments,
    apply_segments,
    available,
    keep_counts,
    masks_of_segments,
    select_segments,
    supported,
    topk_mask_segments,
)
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.topk import topk_mask
from hidden_subnet.methods.warmup_then_prune import WarmupThenPruneSettings
from hidden_subnet.sweep.execute import execute
from hidden_subnet.training import acceleration

assert os.environ["TRITON_INTERPRET"] == "1"
BLOCK = 16
DENORMAL = math.ldexp(1.0, -149)
NAN, INF = math.nan, math.inf


def check(scores: list[Tensor], keep: list[int], block: int = BLOCK) -> list[Tensor]:
    masks = topk_mask_segments(scores, keep, block)
    for mask, each, count in zip(masks, scores, keep, strict=True):
        assert int(mask.sum()) == count
        assert torch.equal(mask, topk_mask(each, count))
        assert torch.equal(mask, by_stable_sort(each, count))
        assert mask.stride() == each.stride()
    return masks


def random(*shape: int, seed: int = 0, distinct: int | None = None) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    if distinct is None:
        return torch.randn(shape, generator=source)
    return torch.randint(-distinct, distinct + 1, shape, generator=source).float()


WRITTEN_OUT: list[tuple[list[float], int, list[int]]] = [
    ([0.1, -0.9, 0.5, -0.3], 1, [0, 1, 0, 0]),
    ([0.1, -0.9, 0.5, -0.3], 2, [0, 1, 1, 0]),
    ([0.1, -0.9, 0.5, -0.3], 4, [1, 1, 1, 1]),
    ([7.0], 1, [1]),
    ([1.0, -1.0, 1.0, 2.0], 2, [0, 0, 1, 1]),
    ([2.0, -1.0, 1.0, 1.0], 2, [1, 0, 0, 1]),
    ([1.0, 1.0, 1.0, 1.0], 3, [0, 1, 1, 1]),
    ([0.0, 0.0, 0.0, 0.0], 1, [0, 0, 0, 1]),
    ([0.0, -0.0, 0.0, -0.0], 2, [0, 0, 1, 1]),
    ([1.0, -0.0, 0.0, -0.0], 2, [1, 0, 0, 1]),
    ([0.0, DENORMAL, -0.0, 0.0], 1, [0, 1, 0, 0]),
    ([DENORMAL, -2 * DENORMAL, DENORMAL, 0.0], 2, [0, 1, 1, 0]),
    ([INF, 3.4e38, -INF, 1.0], 2, [1, 0, 1, 0]),
    ([INF, 3.4e38, -INF, 1.0], 1, [0, 0, 1, 0]),
    ([1.0, 1.0 + 2**-23, 1.0 - 2**-24, 1.0], 2, [0, 1, 0, 1]),  # neighbours in float32
    ([0.25, 0.5, 1.0, 2.0, 4.0], 3, [0, 0, 1, 1, 1]),
]


def test_written_out() -> None:
    """Each row is a segment."""
    scores, keep, kept = zip(*WRITTEN_OUT, strict=True)
    masks = check([torch.tensor(each) for each in scores], list(keep))
    assert [mask.int().tolist() for mask in masks] == list(kept)


def test_nan_is_the_largest() -> None:
    ones = torch.ones(4)
    rows = [
        ([1.0, NAN, 2.0, INF], 1, [0, 1, 0, 0]),
        ([1.0, NAN, 2.0, INF], 2, [0, 1, 0, 1]),
        ([1.0, NAN, 2.0, INF], 3, [0, 1, 1, 1]),
        ([NAN, -NAN, 2.0, NAN], 2, [0, 1, 0, 1]),
    ]
    scores = [torch.tensor(each) for each, _, _ in rows]
    masks = topk_mask_segments(scores, [keep for _, keep, _ in rows], BLOCK)
    for mask, each, (_, keep, kept) in zip(masks, scores, rows, strict=True):
        assert mask.int().tolist() == kept
        assert by_stable_sort(each, keep).int().tolist() == kept
    # The effective weight on a CPU says so too, as long as the threshold itself is a number.
    assert TopKSelection(2).select(scores[1])(ones).tolist() == [0, 1, 0, 1]


def test_every_nan_is_the_same() -> None:
    bits = torch.tensor([0x7FC00001, 0x7FFFFFFF, 0x7F800001, 0x3F800000], dtype=torch.int32)
    mask = topk_mask_segments([bits.view(torch.float32)], [2], BLOCK)[0]
    assert mask.int().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("distinct", [0, 1, 3, None], ids=["equal", "three", "seven", "continuous"])
def test_every_k(distinct: int | None) -> None:
    """All K of 13 weights in one call: a segment each."""
    check([random(13, distinct=distinct)] * 13, list(range(1, 14)))


@pytest.mark.parametrize(
    ("distinct", "part"),
    [(0, 0.5), (2, 0.01), (2, 0.4), (None, 0.5), (None, 0.99)],
)
def test_sizes_around_the_edges_of_blocks(distinct: int | None, part: float) -> None:
    sizes = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 3]
    check([random(n, seed=n, distinct=distinct) for n in sizes], [max(1, int(part * n)) for n in sizes])


@pytest.mark.parametrize("block", [64, 8192])
def test_the_block_size_changes_nothing(block: int) -> None:
    check([random(40, distinct=2), random(100, seed=1), random(7, distinct=0)], [13, 50, 3], block)


def test_several_programs_apply_the_masks_of_one_block() -> None:
    """A block of 8192 weights is applied by four."""
    for keep in (1, 6_000, 9_000):
        check([random(9_001, distinct=0)], [keep], 8192)


def test_equal_scores_in_more_blocks_than_are_counted_at_a_time() -> None:
    """1024 later blocks are added up at a time; the cut is in the second block of 1030."""
    check([random(2_060, distinct=0)], [2_057], 2)


@pytest.mark.parametrize("distinct", [0, 1, None], ids=["equal", "three", "continuous"])
def test_channels_last_has_the_same_mask(distinct: int | None) -> None:
    shapes = [(3, 5, 2, 3), (4, 1, 3, 3), (2, 6, 1, 1), (1, 3, 2, 2), (2, 3, 2, 2, 2)]
    for part in (0.2, 0.7):
        scores = [random(*shape, seed=7, distinct=distinct) for shape in shapes]
        keep = [math.ceil(part * each.numel()) for each in scores]
        last = [each.to(memory_format=torch.channels_last) for each in scores[:-1]]
        last.append(scores[-1].to(memory_format=torch.channels_last_3d))
        for mask, each, count in zip(check(last, keep, 32), scores, keep, strict=True):
            assert torch.equal(mask, topk_mask(each, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_effective_weights(dtype: torch.dtype) -> None:
    scores = [random(3, 5, 2, 3, distinct=2).to(memory_format=torch.channels_last), random(6, 7, seed=1)]
    # Halves and quarters, which bfloat16 holds: the interpreter cuts off where a GPU rounds.
    weights = [torch.empty_like(each).copy_(random(*each.shape, seed=2, distinct=99) / 4) for each in scores]
    segments = Segments.of(scores, BLOCK)
    fixed = segments.alike(weights)
    effective = segments.alike([torch.full_like(each, NAN, dtype=dtype) for each in scores])
    keep = keep_counts(segments, [41, 9])
    for counts in ([41, 9], [90, 1]):  # as a ramp of the rate does it
        keep.copy_(keep_counts(segments, counts))
        thresholds = select_segments(segments, keep)
        apply_segments(segments, thresholds, fixed, effective)
        for result, each, weight, count in zip(effective.tensors, scores, weights, counts, strict=True):
            assert torch.equal(result, (weight * topk_mask(each, count)).to(dtype))
        smallest = [each.abs().flatten().topk(n).values[-1] for each, n in zip(scores, counts, strict=True)]
        assert thresholds.bits.view(torch.float32).tolist() == smallest


def test_scores_are_read_where_they_are() -> None:
    """An optimizer's step in place is seen; another tensor's memory under the same parameter is refused."""
    scores = torch.nn.Parameter(random(20))
    segments = Segments.of([scores], BLOCK)
    masks = segments.alike([torch.empty(20, dtype=torch.bool)])
    keep = keep_counts(segments, [6])
    for seed in (1, 2):
        with torch.no_grad():
            scores.copy_(random(20, seed=seed))
        masks_of_segments(segments, select_segments(segments, keep), masks)
        assert torch.equal(masks.tensors[0], topk_mask(scores, 6))
    scores.data = random(20)
    with pytest.raises(RuntimeError, match="moved"):
        select_segments(segments, keep)


def test_what_was_overwritten_is_noticed_by_a_backward_pass() -> None:
    scores, x = random(4, 4), torch.ones(1, 4, requires_grad=True)
    segments = Segments.of([scores], BLOCK)
    effective = segments.alike([torch.zeros(4, 4)])
    loss = (x @ effective.tensors[0]).sum()
    apply_segments(segments, select_segments(segments, keep_counts(segments, [3])), effective, effective)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_the_kernels_do_not_take() -> None:
    assert available(torch.device("cpu"))
    assert not available(torch.device("meta"))
    plain = random(4, 6)
    others = [plain.double(), plain.bfloat16(), plain.t(), random(33)[1:], random(0)]
    assert supported(plain)
    assert [supported(each) for each in others] == [False] * 5
    for each in others[:4]:
        with pytest.raises(ValueError, match="kernels"):
            Segments.of([plain, each])
        # The fallback takes them all.
        for mask, scores in zip(topk_mask_segments([plain, each], [5, 5]), (plain, each), strict=True):
            assert torch.equal(mask, topk_mask(scores, 5))
    segments = Segments.of([plain])
    for wrong in (0, 25):
        with pytest.raises(ValueError, match="cannot be kept"):
            keep_counts(segments, [wrong])
    with pytest.raises(ValueError, match="does not lie in memory"):
        segments.alike([random(6, 4).t()])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Allocation]:
    """The allocations that runs have made, in order."""
    entry, found = ALLOCATIONS["layerwise"], []

    def noted(make: Callable[..., Allocation]) -> Callable[..., Allocation]:
        def make_and_note(*given: Any) -> Allocation:
            found.append(make(*given))
            return found[-1]

        return make_and_note

    assert entry.make_by_kernels is not None
    by_kernels = noted(entry.make_by_kernels)
    monkeypatch.setitem(ALLOCATIONS, "layerwise", replace(entry, make=noted(entry.make), make_by_kernels=by_kernels))
    return found


@pytest.mark.parametrize(
    ("method", "fast"),
    [
        *((each, {}) for each in ("edge_popup", "dnw", "warmup_then_prune", "random_trained")),
        *((each, {"channels_last": True}) for each in ("edge_popup", "random_trained")),
        *((each, {"cuda_graph": True}) for each in ("edge_popup", "dnw")),
    ],
)
def test_a_run_is_the_same_with_and_without(
    method: str, fast: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[Allocation]
) -> None:
    """The kernels write the masked weights of every step, under a rate that rises from epoch to epoch."""
    monkeypatch.setattr(acceleration, "cuda_graph", lambda step: step)  # which needs a GPU

    def config(out: str) -> Config:
        given = small(tmp_path / out, method, batch_size=128, epochs=2, mask_kernels=out == "kernels", **fast)
        given = replace(given, model=replace(given.model, width=0.05))
        if method == "warmup_then_prune":
            return replace(given, method=WarmupThenPruneSettings(weight_epochs=1))
        if method != "random_trained":
            return replace(given, pruning=Pruning(name="layerwise", ramp_epochs=1))
        return given

    # Its weights are those of its kernels, or it would raise: see below.
    kernels = execute(config("kernels"), QUIET)
    plain = execute(config("plain"), QUIET)
    assert [type(each) for each in made] == [SegmentedAllocation, LayerwiseAllocation]
    assert kernels.state == plain.state == "done", (kernels.message, plain.message)
    assert_same_run(plain.folder, kernels.folder)


def test_kernels_that_fail_or_differ_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, weights = [nn.Parameter(random(20)), nn.Parameter(random(7, seed=1))], [random(20, seed=2), random(7)]
    assert isinstance(layerwise(scores, weights, 0.5), SegmentedAllocation)
    no_numbers = [torch.full((20,), NAN), weights[1]]  # times 0 they are not 0, which is what the kernels write
    with pytest.warns(UserWarning, match=r"by torch\.topk.*the mask of weight 1, \(20,\), differs"):
        assert isinstance(layerwise(scores, no_numbers, 0.5), LayerwiseAllocation)
    elsewhere = [random(40, seed=2)[::2], weights[1]]
    with pytest.warns(UserWarning, match=r"since the kernels fail here \(ValueError: .*does not lie in memory"):
        assert isinstance(layerwise(scores, elsewhere, 0.5), LayerwiseAllocation)
    monkeypatch.setitem(sys.modules, "triton.language", None)
    with pytest.warns(UserWarning, match=r"since the kernels fail here \(ModuleNotFoundError: .*triton\.language"):
        assert isinstance(layerwise(scores, weights, 0.5), LayerwiseAllocation)


def test_scores_that_changed_need_a_refresh_and_another_weight_none() -> None:
    scores, weight = nn.Parameter(random(4, 5)), random(4, 5, seed=1)
    allocation = layerwise([scores], [weight], 0.5)
    assert isinstance(allocation, SegmentedAllocation)
    [selection] = allocation.selections()
    allocation.refresh()
    assert torch.equal(selection.select(scores.detach())(weight), weight * topk_mask(scores.detach(), 10))
    other = random(4, 5, seed=2)  # as the controls redraw them
    assert torch.equal(selection.select(scores.detach())(other), other * topk_mask(scores.detach(), 10))
    scores.detach().neg_()
    with pytest.raises(RuntimeError, match="refresh"):
        selection.select(scores.detach())(weight)
    allocation.set_rate(0.8)
    allocation.refresh()
    assert (
        int((selection.select(scores.detach())(weight) != 0).sum()) == int(selection.mask(scores.detach()).sum()) == 4
    )


def test_layers_may_have_rates_of_their_own() -> None:
    scores, weights = [nn.Parameter(random(20)), nn.Parameter(random(7, seed=1))], [random(20, seed=2), random(7)]
    allocation = layerwise(scores, weights, 0.5, lambda shapes, rate: [rate, rate / 2])
    assert isinstance(allocation, SegmentedAllocation)
    for rate, kept in ((0.5, [10, 6]), (0.8, [4, 5])):
        allocation.set_rate(rate)
        allocation.refresh()
        layers = zip(allocation.selections(), scores, weights, strict=True)
        masks = [each.select(own.detach())(weight) for each, own, weight in layers]
        assert [int((mask != 0).sum()) for mask in masks] == kept
