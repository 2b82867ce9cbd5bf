"""The figure of a run from inside: the data that its panels draw."""

from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes

from hidden_subnet.analysis.inside import Inside
from hidden_subnet.analysis.layers import LayerInside
from hidden_subnet.analysis.overlap import Overlap
from hidden_subnet.report.inside import plot, thresholds, write


def layer(scores: list[float], kept: list[int], path: str = "fc1") -> LayerInside:
    values = torch.tensor([scores])
    return LayerInside(path, torch.ones_like(values), torch.tensor([kept]).bool(), values, None)


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (layer([-0.5, 0.125, 0.25, -0.25], [1, 0, 1, 1]), [-0.25, 0.25]),  # by |score|
        (layer([-0.5, 0.125, 0.25, -0.25], [0, 1, 1, 0]), [0.125]),  # by score
        (layer([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 0]), []),  # by neither
        (layer([0.1, 0.2], [1, 1]), []),
        (layer([0.1, 0.2], [0, 0]), []),
    ],
)
def test_thresholds(of: LayerInside, found: list[float]) -> None:
    assert thresholds(of) == found


ROWS = [
    {"epoch": 0, "validation/top1": 0.1},
    {"epoch": 1, "train/top1": 0.4, "validation/top1": 0.5, "flip_rate": 0.2, "flip_rate/fc1": 0.25},
    {"epoch": 2, "train/top1": 0.8, "validation/top1": 0.7, "flip_rate": 0.1, "flip_rate/fc1": 0.125},
]


def inside(
    *layers: LayerInside,
    rows: list[dict[str, float]] = ROWS,
    epochs: dict[tuple[int, int], Overlap] | None = None,
) -> Inside:
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 0, 1, 1])
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    return Inside(Path("runs/a_$run$"), "best", rows, [*layers], images, labels, probabilities, epochs or {})


def panels(of: Inside) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in plot(of).axes}


def test_each_panel_draws_its_numbers() -> None:
    drawn = panels(inside(layer([-0.5, 0.125, 0.25, -0.25], [1, 0, 1, 1]), layer([1.0, 0.5], [1, 0], "fc2")))
    curves = {str(line.get_label()): line.get_xydata() for line in drawn["accuracy (%)"].lines}
    assert curves["train"].tolist() == [[1, 40], [2, 80]]
    assert curves["validation"].tolist() == [[0, 10], [1, 50], [2, 70]]
    assert curves["test"][:, 1].tolist() == [75, 75]
    (flips,) = drawn["mask changed in the epoch (%)"].lines
    assert flips.get_xydata().tolist() == [[1, 25], [2, 12.5]]
    assert [bar.get_width() for bar in drawn["weights kept (%)"].patches] == [75, 50]
    assert [text.get_text() for text in drawn["weights kept (%)"].texts] == [
        "1 of 4 inputs unused",
        "1 of 2 inputs unused",
    ]
    assert [line.get_xdata()[0] for line in drawn["scores of fc1"].lines] == [-0.25, 0.25]
    assert drawn["weights kept of fc1 for each pixel"].images[0].get_array().tolist() == [[1, 0], [1, 1]]
    assert [text.get_text() for text in drawn["test images"].texts] == ["2", "1", "1"]
    assert [text.get_text() for text in drawn["most surely wrong: class, taken for"].texts] == ["1, 0"]


def test_densities_that_change_are_drawn_by_epoch() -> None:
    rows = [{**row, "density/fc1": density} for row, density in zip(ROWS, (1.0, 0.75, 0.5), strict=True)]
    drawn = panels(inside(layer([0.1, 0.2], [1, 0]), rows=rows))
    (line,) = drawn["weights kept after the epoch (%)"].lines
    assert line.get_xydata().tolist() == [[0, 100], [1, 75], [2, 50]]
    constant = [{**row, "density/fc1": 0.5} for row in ROWS]
    assert "weights kept after the epoch (%)" not in panels(inside(layer([0.1, 0.2], [1, 0]), rows=constant))


def test_checkpoints_are_a_matrix() -> None:
    epochs = {(0, 2): Overlap(8, 4, 4, 2, 2.0), (0, 5): Overlap(8, 4, 4, 1, 2.0), (2, 5): Overlap(8, 4, 4, 4, 2.0)}
    drawn = panels(inside(layer([0.1, 0.2], [1, 0]), epochs=epochs))
    axes = drawn["weights in common, of those that either keeps\n(random masks: 33 %)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "2", "5"]
    numbers = [["1.00", "0.33", "0.14"], ["0.33", "1.00", "1.00"], ["0.14", "1.00", "1.00"]]
    assert [text.get_text() for text in axes.texts] == [number for row in numbers for number in row]


def test_a_method_without_masks_has_three_panels() -> None:
    assert [*panels(inside())] == ["accuracy (%)", "test images", "most surely wrong: class, taken for"]


def test_what_a_run_lacks_is_left_out() -> None:
    drawn = panels(inside(layer([0.1, 0.2], [1, 0]), rows=ROWS[:1]))  # nothing trained; a layer behind the pixels
    assert "mask changed in the epoch (%)" not in drawn
    assert "mask of fc1" in drawn


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_run_gives_the_same_bytes(suffix: str, start: bytes, tmp_path: Path) -> None:
    of = inside(layer([0.1, 0.2], [1, 0]))
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    write(of, first)
    write(of, second)
    assert first.read_bytes().startswith(start)
    assert first.read_bytes() == second.read_bytes()
