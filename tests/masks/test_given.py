"""Drawn scores in the order of a mask: by hand, and for what the mask keeps at its own density and at others."""

import pytest
import torch
from torch import Tensor

from hidden_subnet.masks.given import highest_where_kept, scores_of_mask
from hidden_subnet.masks.topk import topk_mask


def of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def kept(*bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.bool)


@pytest.mark.parametrize(
    ("scores", "mask", "by_value", "expected"),
    [
        # |scores| from the largest: 4 (place 1), 3 (place 3), 2 (place 0), 1 (place 2). Kept: 0 and 2, in this order.
        (of(-2, 4, 1, -3), kept(1, 0, 1, 0), False, of(4, -2, -3, 1)),
        # Scores from the highest: 4 (place 1), 1 (place 2), -2 (place 0), -3 (place 3). Kept: 2 before 0.
        (of(-2, 4, 1, -3), kept(1, 0, 1, 0), True, of(1, -2, 4, -3)),
        # In order already.
        (of(0.5, 3, -2, 1), kept(0, 1, 1, 0), False, of(0.5, 3, -2, 1)),
        (of(1, 2, 3), kept(1, 1, 1), False, of(1, 2, 3)),
        (of(1, 2, 3), kept(0, 0, 0), False, of(1, 2, 3)),
    ],
)
def test_written_out(scores: Tensor, mask: Tensor, by_value: bool, expected: Tensor) -> None:
    found = highest_where_kept(scores, mask, by_value=by_value)
    assert found.tolist() == expected.tolist()
    assert sorted(found.tolist()) == sorted(scores.tolist())


@pytest.mark.parametrize("by_value", [False, True])
@pytest.mark.parametrize("values", ["floats", "few", "one"])
def test_the_highest_are_the_mask_and_others_are_nested(by_value: bool, values: str) -> None:
    """Also where many scores are equal, which topk_mask orders by their place."""
    source = torch.Generator().manual_seed(0)
    scores = torch.rand(20, 5, 3, generator=source) * 2 - 1
    if values != "floats":
        scores = (scores * (2 if values == "few" else 0)).round() + 1
    mask = torch.rand(scores.shape, generator=source) < 0.3
    found = highest_where_kept(scores, mask, by_value=by_value)
    count = int(mask.count_nonzero())
    assert torch.equal(topk_mask(found, count, by_value=by_value), mask)
    assert bool((topk_mask(found, count // 2, by_value=by_value) & ~mask).any()) is False
    assert bool((mask & ~topk_mask(found, count * 2, by_value=by_value)).any()) is False
    torch.testing.assert_close(found.flatten().sort().values, scores.flatten().sort().values, rtol=2e-7, atol=1e-44)


def test_a_tie_at_the_border_moves_by_one_unit_in_the_last_place() -> None:
    """Where 1, -1, 1 are the scores, the last ones would be kept; the mask keeps the first two."""
    one = 1 + 2**-23
    assert highest_where_kept(of(1, -1, 1), kept(1, 1, 0)).tolist() == [one, -one, 1]
    assert highest_where_kept(of(1, 1, 1), kept(1, 0, 0), by_value=True).tolist() == [one, 1, 1]


def test_the_order_among_the_kept_stays_as_it_was_drawn() -> None:
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(1000) % 3 == 0
    found = highest_where_kept(scores, mask)
    for part in (mask, ~mask):
        assert torch.equal(found[part].argsort(), scores[part].argsort())


def test_a_mask_as_scores() -> None:
    assert scores_of_mask(kept(1, 0, 1)).tolist() == [1.0, 0.0, 1.0]
