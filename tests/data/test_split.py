"""Which training images are held out, and which are in a fraction of the others."""

import pytest
import torch

from hidden_subnet.config.data_info import held_out
from hidden_subnet.data.catalog import INFO
from hidden_subnet.data.split import balanced_order, split


@pytest.mark.parametrize(
    ("n", "validation", "count"), [(1437, 0.1, 144), (10, 0.25, 2), (10, 0.0, 0), (60_000, 0.1, 6000)]
)
def test_split_is_disjoint_complete_and_sorted(n: int, validation: float, count: int) -> None:
    train, held = split(n, validation, seed=0)
    assert (len(train), len(held)) == (n - count, count)
    assert torch.cat([train, held]).sort().values.equal(torch.arange(n))
    assert train.equal(train.sort().values)
    assert held.equal(held.sort().values)


def test_split_follows_its_seed_alone() -> None:
    torch.manual_seed(0)
    first = split(1000, 0.1, seed=3)
    torch.manual_seed(1)
    assert split(1000, 0.1, seed=3)[1].equal(first[1])
    assert not split(1000, 0.1, seed=4)[1].equal(first[1])


@pytest.mark.parametrize("validation", [0.0, 0.1, 0.25, 0.333])
def test_as_many_are_held_out_as_the_check_says(validation: float) -> None:
    for name, info in INFO.items():
        assert len(split(info.train, validation, 0)[1]) == held_out(info.train, validation), name


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1]),
        ([2, 1, 0, 0, 0, 0], [0, 1, 2, 0, 0, 0]),  # one of each class first, however small the class
        ([1] * 4 + [0] * 2, [0, 1, 1, 1, 0, 1]),
        ([0], [0]),
    ],
)
def test_every_beginning_is_balanced(labels: list[int], expected: list[int]) -> None:
    each = torch.tensor(labels)
    for seed in range(3):
        assert each[balanced_order(each, seed)].tolist() == expected


def test_a_beginning_holds_each_class_in_its_share() -> None:
    labels = torch.randint(0, 5, (700,), generator=torch.Generator().manual_seed(0)) ** 2 % 5
    order = balanced_order(labels, 3)
    assert sorted(order.tolist()) == list(range(700))
    counts = labels.bincount()
    for count in range(5, 701, 7):
        found = labels[order[:count]].bincount(minlength=5)
        assert ((found - counts * count / 700).abs() <= 1.5).all(), count
        assert (found[counts > 0] > 0).all()
    assert not balanced_order(labels, 4).equal(order)


@pytest.mark.parametrize(
    ("sizes", "images", "expected"),
    [
        ([1000] + [1] * 100, 110, [10] + [1] * 100),  # a share of 100, of which 90 go to the small classes
        ([1000] + [1] * 100, 600, [500] + [1] * 100),
        ([600, 300, 90, 10], 100, [60, 30, 9, 1]),
        ([600, 300, 90, 10], 10, [5, 3, 1, 1]),
        ([600, 300, 90, 10], 500, [300, 150, 45, 5]),
    ],
)
def test_unbalanced_classes_keep_their_share_and_one_image(sizes: list[int], images: int, expected: list[int]) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    for seed in range(2):
        assert labels[balanced_order(labels, seed)][:images].bincount().tolist() == expected


def test_golden_choices() -> None:
    """Seed 0's choice is part of what a run is: a change here changes what finished runs mean."""
    assert split(12, 0.25, seed=0)[1].tolist() == [2, 5, 9]
