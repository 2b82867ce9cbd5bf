"""A run from inside: counts by layer, confusion and the images most wrong, with the answers written out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hidden_subnet.analysis.inside import Inside, look
from hidden_subnet.analysis.layers import LayerInside
from hidden_subnet.analysis.load import load_masks
from hidden_subnet.store import files


def layer(mask: list[object], *, groups: int = 1, inputs_first: bool = False) -> LayerInside:
    kept = torch.tensor(mask).bool()
    ones = torch.ones(kept.shape)
    return LayerInside("conv", ones, kept, ones, None, groups=groups, inputs_first=inputs_first)


@pytest.mark.parametrize(
    ("of", "units", "inputs"),
    [
        (layer([[1, 1, 0], [0, 1, 0]]), [2, 1], [1, 2, 0]),
        (layer([[1, 1, 0], [0, 1, 0]], inputs_first=True), [1, 2, 0], [2, 1]),
        (layer([[[1, 1], [0, 1]], [[0, 0], [0, 0]]]), [3, 0], [2, 1]),  # a kernel of two
        (layer([[[1, 1]], [[0, 0]], [[1, 0]]], groups=3), [2, 0, 1], [2, 0, 1]),  # depthwise: a unit has its own input
        # Two groups: units 0 and 1 see inputs 0 and 1, units 2 and 3 see inputs 2 and 3.
        (layer([[1, 0], [1, 0], [0, 1], [0, 0]], groups=2), [1, 1, 1, 0], [2, 0, 0, 1]),
        (layer([[1, 0], [1, 0], [0, 1], [0, 0]], groups=2, inputs_first=True), [2, 0, 0, 1], [1, 1, 1, 0]),
    ],
)
def test_weights_kept_of_units_and_inputs(of: LayerInside, units: list[int], inputs: list[int]) -> None:
    assert of.units.tolist() == units
    assert of.inputs.tolist() == inputs
    assert of.density == sum(units) / of.mask.numel()


def test_what_has_changed_since_the_first_mask() -> None:
    now = layer([[1, 1, 0, 0]])
    assert now.changed is None
    before = torch.tensor([[True, False, True, False]])
    assert LayerInside("fc", now.weight, now.mask, now.scores, (before, now.scores)).changed == 0.5


def taken(labels: list[int], probabilities: list[list[float]]) -> Inside:
    images = torch.zeros(len(labels), 1, 2, 2)
    return Inside(Path("run"), "last", [], [], images, torch.tensor(labels), torch.tensor(probabilities))


def test_confusion_and_the_most_wrong() -> None:
    found = taken([0, 0, 1, 2], [[0.9, 0.1, 0.0], [0.3, 0.5, 0.2], [0.8, 0.1, 0.1], [0.2, 0.2, 0.6]])
    assert found.accuracy == 0.5
    assert found.confusion().tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert found.most_wrong(5) == [2, 1]  # by 0.7 and by 0.2
    assert found.most_wrong(1) == [2]


@pytest.mark.parametrize("method", ["edge_popup", "dense", "random"])
def test_a_run_from_inside_is_what_it_recorded(method: str, undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed(method)
    result = files.read_result(folder)
    assert result is not None
    inside = look(folder)
    assert inside.accuracy == result["last"]["test"]["top1"]
    assert int(inside.confusion().diagonal().sum()) == round(inside.accuracy * len(inside.labels))
    assert len(inside.rows) == 1 + result["last"]["epoch"]
    if method == "dense":
        assert inside.layers == []
        return
    assert sum(int(each.mask.sum()) for each in inside.layers) == result["kept"]
    before = look(folder, "first").layers
    for now, first in zip(inside.layers, before, strict=True):
        changed = (now.mask != first.mask).double().mean().item()
        assert now.changed == changed
        assert (changed > 0) == (method == "edge_popup")


def test_masks_of_the_checkpoints_that_a_run_keeps(undisturbed: Callable[[str], Path]) -> None:
    folder = undisturbed("edge_popup")
    inside = look(folder)
    first, last = (load_masks(folder, which) for which in ("first", "last"))
    epoch = (files.read_result(folder) or {})["last"]["epoch"]
    assert {0, epoch} <= {each for pair in inside.epochs for each in pair}
    found = inside.epochs[0, epoch]
    assert found.both == sum(int((first[path] & last[path]).sum()) for path in first)
    same = sum(int((first[path] == last[path]).sum()) for path in first)
    assert inside.steady is not None
    assert 0 < inside.steady <= same / found.weights
    untrained = look(undisturbed("random"))
    assert untrained.epochs == {}
    assert untrained.steady is None
