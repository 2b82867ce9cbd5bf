"""Structured masks: exactly N of every M inputs, and whole blocks and channels by their sums, written out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import QUIET, small
from torch import Tensor

from hidden_subnet.config.registries import METHODS, info_of
from hidden_subnet.config.settings import Config, Indivisible, Init, Pruning, Scale, Structure
from hidden_subnet.errors import ConfigError
from hidden_subnet.masks.selection import TopKSelection
from hidden_subnet.masks.structure import (
    StructuredAllocation,
    as_rows,
    from_rows,
    inverted,
    left_dense,
    n_of_each,
    structured_mask,
)
from hidden_subnet.models.from_config import random_network
from hidden_subnet.sweep.execute import execute
from hidden_subnet.sweep.preflight import preflight


def pruning(structure: str, **settings: Any) -> Pruning:
    return Pruning(name="layerwise", structure=Structure[structure], **settings)


@pytest.mark.parametrize(
    ("row", "n", "expected"),
    [
        ([4, 1, 3, 2], 1, [1, 0, 0, 0]),
        ([4, 1, 3, 2], 2, [1, 0, 1, 0]),
        ([4, 1, 3, 2], 4, [1, 1, 1, 1]),
        ([5, 5, 5, 5], 1, [0, 0, 0, 1]),  # of equal ones the last
        ([5, 5, 5, 5], 3, [0, 1, 1, 1]),
        ([1, 5, 0, 1], 2, [0, 1, 0, 1]),
        ([0, 0, 0, 0], 2, [0, 0, 1, 1]),
        ([-1, -2], 1, [1, 0]),
    ],
)
def test_n_of_each_row(row: list[float], n: int, expected: list[int]) -> None:
    assert n_of_each(torch.tensor([row, row]), n).int().tolist() == [expected, expected]


FOUR = torch.tensor([[1.0, -9, 2, 3], [4, 4, -4, 4], [0, 0, 0, 1], [-8, 7, 6, 5]])


@pytest.mark.parametrize(
    ("asked", "rate", "expected"),
    [
        (pruning("n_m"), 0.5, [[0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]]),
        (pruning("n_m"), 0.75, [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]]),
        (pruning("n_m", m=2), 0.5, [[0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]]),
        (pruning("n_m"), 0.0, [[1] * 4] * 4),
        # The sums of |score| are 15, 16, 1 and 26 by row; 18, 13, 15 and 12 by block of two.
        (pruning("channel"), 0.5, [[0] * 4, [1] * 4, [0] * 4, [1] * 4]),
        (pruning("channel"), 0.9, [[0] * 4, [0] * 4, [0] * 4, [1] * 4]),  # K = 1
        (pruning("channel"), 0.1, [[1] * 4] * 4),  # K = n
        (pruning("block", block=2), 0.5, [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]),
        (pruning("block", block=2), 0.75, [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]),
        (pruning("block", block=1), 0.75, [[0, 1, 0, 0], [0] * 4, [0] * 4, [1, 1, 1, 0]]),
        (pruning("block", block=4), 0.9, [[1] * 4] * 4),
    ],
)
def test_written_out(asked: Pruning, rate: float, expected: list[list[int]]) -> None:
    assert structured_mask(FOUR, asked, rate).int().tolist() == expected


def test_equal_units_keep_the_last() -> None:
    same = torch.ones(4, 4)
    assert structured_mask(same, pruning("channel"), 0.75)[:, 0].tolist() == [False, False, False, True]
    kept = structured_mask(same, pruning("block", block=2), 0.75)
    assert kept.nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_by_value_the_signs_count() -> None:
    expected = [[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]]
    assert structured_mask(FOUR, pruning("n_m"), 0.5, by_value=True).int().tolist() == expected
    # The sums by row are -3, 8, 1 and 10.
    assert structured_mask(FOUR, pruning("channel"), 0.5, by_value=True)[:, 0].tolist() == [False, True, False, True]


def test_a_group_is_of_inputs_at_one_position_of_the_kernel() -> None:
    scores = torch.zeros(1, 2, 1, 2)
    scores[0, :, 0, 0], scores[0, :, 0, 1] = torch.tensor([3.0, 4]), torch.tensor([2.0, 1])
    assert structured_mask(scores, pruning("n_m", m=2), 0.5).int().tolist() == [[[[0, 1]], [[1, 0]]]]


def test_a_rate_between_two_n_has_no_mask() -> None:
    with pytest.raises(ValueError, match=r"prune_rate=0\.6 keeps no whole number of every 4 weights"):
        structured_mask(FOUR, pruning("n_m"), 0.6)


STRUCTURES = [
    *(pruning("n_m", m=m) for m in (2, 4, 8)),
    *(pruning("block", block=side) for side in (1, 2, 8)),
    pruning("channel"),
    pruning("weight"),
]
SHAPES = [(8, 16), (16, 8, 3, 3), (8, 8, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("asked", STRUCTURES, ids=lambda each: f"{each.structure.name}-{each.m}-{each.block}")
def test_rows_hold_each_weight_once(asked: Pruning, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    if len(shape) == 4:
        weight = weight.to(memory_format=torch.channels_last)
    back = from_rows(as_rows(weight, asked), weight, asked)
    assert torch.equal(back, weight)
    assert back.stride() == weight.stride()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75])
def test_the_count_is_exact_in_units(rate: float, shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape)
    groups = as_rows(structured_mask(scores, pruning("n_m"), rate), pruning("n_m"))
    assert (groups.sum(dim=1) == 4 * (1 - rate)).all()
    for asked in (pruning("block", block=4), pruning("channel")):
        rows = as_rows(structured_mask(scores, asked, rate), asked)
        assert set(rows.sum(dim=1).tolist()) == {0, rows.shape[1]}
        assert rows.any(dim=1).sum() == len(rows) * (1 - rate)


@pytest.mark.parametrize("by_value", [False, True])
@pytest.mark.parametrize("asked", STRUCTURES[:-1], ids=lambda each: f"{each.structure.name}-{each.m}-{each.block}")
def test_inverted_scores_keep_what_was_removed(asked: Pruning, by_value: bool) -> None:
    scores = torch.randn(8, 16, 3, 3)
    before = structured_mask(scores, asked, 0.5, by_value=by_value)
    after = structured_mask(inverted(scores, asked, by_value=by_value), asked, 0.5, by_value=by_value)
    assert torch.equal(after, ~before)


def test_a_layer_that_is_not_divided_is_refused_or_dense() -> None:
    shapes: dict[str, tuple[int, ...]] = {"conv1": (8, 1, 3, 3), "fc": (10, 6)}
    with pytest.raises(ValueError, match=r"conv1 .*: pruning\.m=4 does not divide its 1 input;.*indivisible=dense$"):
        left_dense(shapes, pruning("n_m"))
    dense = left_dense(shapes, pruning("n_m", indivisible=Indivisible.dense))
    assert dense["fc"] == "pruning.m=4 does not divide its 6 inputs"
    assert [*left_dense(shapes, pruning("n_m", m=3, indivisible=Indivisible.dense))] == ["conv1"]
    blocks = left_dense(shapes, pruning("block", block=2, indivisible=Indivisible.dense))
    assert blocks == {"conv1": "pruning.block=2 does not divide both 8 and 1, its outputs and inputs"}
    assert left_dense(shapes, pruning("channel")) == left_dense(shapes, pruning("weight")) == {}


def asked_of(tmp_path: Path, **settings: Any) -> Config:
    return replace(small(tmp_path), pruning=pruning("n_m", **settings), prune_rate=0.75)


def test_an_indivisible_layer_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^pruning\.structure=n_m: conv1 \(8, 1, 3, 3\): .*pruning\.indivisible=dense$"
    ):
        preflight([asked_of(tmp_path)])
    preflight([asked_of(tmp_path, indivisible=Indivisible.dense)])
    preflight([replace(asked_of(tmp_path), method=METHODS["dense"].settings())])


def test_a_layer_left_dense_is_not_scaled_by_the_density(tmp_path: Path) -> None:
    config = asked_of(tmp_path, indivisible=Indivisible.dense)
    info = info_of(config.data)
    plain, scaled = (
        random_network(replace(config, init=Init(name="kaiming_normal", scale=scale)), info, 0).state_dict()
        for scale in (Scale.none, Scale.density)
    )
    factors = {name: float((scaled[name] / value).mean()) for name, value in plain.items()}
    assert factors == pytest.approx({name: 1 if name == "conv1.weight" else 2 for name in plain})


def test_the_run_says_which_layer_is_left_dense(tmp_path: Path) -> None:
    said: list[str] = []
    config = replace(asked_of(tmp_path, indivisible=Indivisible.dense), method=METHODS["random"].settings())
    result = execute(config, replace(QUIET, say=said.append)).result
    assert result is not None
    assert (
        "pruning.structure=n_m keeps all weights of conv1 (8, 1, 3, 3): pruning.m=4 does not divide its 1 input" in said
    )
    assert [layer["kept"] / layer["weights"] for layer in result["layers"]] == [1, 0.25, 0.25, 0.25, 0.25]
    assert result["density"] == (72 + (6088 - 72) / 4) / 6088


def test_the_allocation_sets_the_rate_of_divided_layers() -> None:
    scores: list[Tensor] = [torch.randn(8, 1, 3, 3), torch.randn(8, 8)]
    allocation = StructuredAllocation(scores, 0.5, pruning("block", block=2), by_value=False)
    first, second = allocation.selections()
    assert isinstance(first, TopKSelection)
    for rate, kept in ((0.5, 32), (0.75, 16)):
        allocation.set_rate(rate)
        assert first.mask(scores[0]).all()
        assert second.mask(scores[1]).sum() == kept
        assert torch.equal(second.select(scores[1])(scores[1]), scores[1] * second.mask(scores[1]))
