"""Overlaps of masks with the answers written out, and of runs of one random network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hidden_subnet
from hidden_subnet.analysis.overlap import ALL, Overlap, overlap, pairs, together
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files


@pytest.mark.parametrize(
    ("first", "second", "counts", "jaccard", "chance", "nested"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 0], (4, 2, 2, 1), 1 / 3, 1 / 3, 0.5),  # half of the weights: 0.5 / (2 - 0.5)
        ([1, 1, 0, 0], [1, 1, 0, 0], (4, 2, 2, 2), 1.0, 1 / 3, 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], (4, 2, 2, 0), 0.0, 1 / 3, 0.0),
        ([1, 1, 1, 0], [1, 0, 0, 0], (4, 3, 1, 1), 1 / 3, 0.75 / 3.25, 1.0),
        ([0, 0], [0, 0], (2, 0, 0, 0), 1.0, 1.0, 1.0),
        ([0, 0], [1, 0], (2, 0, 1, 0), 0.0, 0.0, 1.0),
    ],
)
def test_masks_of_a_layer(
    first: list[int], second: list[int], counts: tuple[int, ...], jaccard: float, chance: float, nested: float
) -> None:
    found = overlap(torch.tensor([first]).bool(), torch.tensor([second]).bool())
    assert (found.weights, found.first, found.second, found.both) == counts
    assert (found.jaccard, found.chance, found.nested) == pytest.approx((jaccard, chance, nested))


def test_signs_count_where_both_keep() -> None:
    first, second = torch.tensor([1, 1, 1, 0]).bool(), torch.tensor([1, 1, 0, 1]).bool()
    found = overlap(first, second, (torch.tensor([1, -1, 1, 0]), torch.tensor([1, 1, 0, 1])))
    assert (found.both, found.same_sign) == (2, 1)
    assert together([found, found]).same_sign == 2
    assert together([found, overlap(first, second)]).same_sign is None


def test_all_layers_have_the_chance_of_masks_with_their_densities() -> None:
    # In one density, 6 of 12 weights, chance would be 3 in common; each layer by itself expects 4 * 4 / 4 + 2 * 2 / 8.
    found = together([Overlap(4, 4, 4, 4, 4.0), Overlap(8, 2, 2, 1, 0.5)])
    assert (found.weights, found.first, found.second, found.both) == (12, 6, 6, 5)
    assert found.expected == 4.5
    assert found.chance == 4.5 / 7.5


def test_random_masks_have_the_overlap_of_chance() -> None:
    source = torch.Generator().manual_seed(0)
    first, second = (torch.rand(1000, 1000, generator=source) < kept for kept in (0.3, 0.1))
    found = overlap(first, second)
    assert found.jaccard == pytest.approx(found.chance, abs=0.001)


def test_runs_are_compared(undisturbed: Callable[[str], Path]) -> None:
    learned, random = undisturbed("edge_popup"), undisturbed("random")
    (pair,) = pairs([learned, random])
    assert pair.same_weights
    for looked, folder in ((pair.first, learned), (pair.second, random)):
        result = files.read_result(folder)
        assert result is not None
        assert looked.accuracy == result["last"]["test"]["top1"]
    assert pair.layers[ALL].first == sum(int(mask.sum()) for mask in hidden_subnet.load_masks(learned).values())
    agreement = pair.agreement
    assert agreement is not None
    assert 0 <= agreement < 1
    (itself,) = pairs([learned, learned])
    assert itself.agreement == itself.layers[ALL].jaccard == 1
    (changed,) = pairs([learned, learned], "first")
    assert changed.layers[ALL].jaccard == 1


def test_a_frame_has_a_row_for_each_layer(undisturbed: Callable[[str], Path]) -> None:
    found = hidden_subnet.compare(undisturbed("edge_popup"), undisturbed("random"), undisturbed("edge_popup"))
    layers = [*hidden_subnet.load_masks(undisturbed("edge_popup")), "all"]
    assert found["layer"].tolist() == 3 * layers
    assert (found["both"] <= found[["first_kept", "second_kept"]].min(axis=1)).all()


def test_a_method_without_masks_is_refused(undisturbed: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="its method masks nothing; for the runs with masks, type: "):
        pairs([undisturbed("dense"), undisturbed("edge_popup")])
