"""The figure of a sweep: its lines, bands and texts, and the same bytes each time."""

import math
import warnings
from pathlib import Path

import matplotlib
import pytest
from helpers.run_folders import config, fail, finish, svg_texts
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hidden_subnet.config.settings import Data, Init, Model, Train
from hidden_subnet.report.figure import draw, plot
from hidden_subnet.report.intervals import half_width
from hidden_subnet.report.labels import SMALLEST, Labels, apart, apart_by
from hidden_subnet.report.series import picture
from hidden_subnet.report.style import PAPER, settings_of
from hidden_subnet.report.table import summarise
from hidden_subnet.store.read import read_runs
from hidden_subnet.trackers.summary import curves


def test_half_width_of_the_t_interval() -> None:
    # t(0.975, 2 degrees of freedom) = 4.3027; 4.3027 * 2 / sqrt(3) = 4.968
    assert half_width([90, 92, 94]) == pytest.approx(4.968, abs=5e-4)
    # t(0.975, 1) = 12.706; times std 1.4142 / sqrt(2)
    assert half_width([1, 3]) == pytest.approx(12.706, abs=5e-4)
    assert math.isnan(half_width([90]))


def demonstration(out: Path) -> None:
    """9 rates x 3 seeds x {edge_popup, random}, and 3 dense runs."""
    for seed in range(3):
        finish(out, config("dense", seed=seed), 0.98 + 0.004 * seed)
        for tenth in range(1, 10):
            rate = tenth / 10
            best = 0.97 - 0.5 * abs(rate - 0.5) ** 3 - 0.25 * max(0, rate - 0.8)
            top1 = best + 0.008 * (seed - 1) * (1 + 3 * rate**4)
            finish(out, config(prune_rate=rate, seed=seed), top1)
            finish(out, config("random", rate, seed), 0.1 + 0.013 * ((tenth + seed) % 4 - 1.5))


def test_the_figure_of_the_demonstration(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    demonstration(out)
    png, svg, pdf = draw(read_runs(out), out / "figures" / "prune_rates", "prune_rates")
    folder = out / "figures"
    assert (png, svg, pdf) == tuple(folder / f"prune_rates.{kind}" for kind in ("png", "svg", "pdf"))
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert pdf.read_bytes().startswith(b"%PDF-")
    texts = svg_texts(svg)
    assert "prune_rates: Digits, Conv2, signed constant, 3 seeds" in " ".join(texts)
    for text in ["edge-popup", "random masks", "dense"]:
        assert text in texts
    for text in ["test accuracy (%)", "weights kept", "10 %", "90 %", "0.9", "chance 10 %"]:
        assert text in texts


def test_the_same_runs_draw_the_same_bytes(tmp_path: Path) -> None:
    finish(tmp_path / "runs", config(), 0.9)
    finish(tmp_path / "runs", config(seed=1), 0.8)
    finish(tmp_path / "runs", config("dense"), 0.9)
    finish(tmp_path / "runs", config(prune_rate=0.9), 0.8)
    runs = read_runs(tmp_path / "runs")
    first = [path.read_bytes() for path in draw(runs, tmp_path / "a", "x")]
    assert [path.read_bytes() for path in draw(runs[::-1], tmp_path / "b", "x")] == first
    assert [path.read_bytes() for path in draw(runs, tmp_path / "c", "y")] != first
    assert not list(tmp_path.glob("*.tmp"))


def drawn(out: Path) -> Figure:
    with matplotlib.rc_context(settings_of(PAPER)):
        return plot(picture(summarise(read_runs(out))), "the title")


def lines(axes: Axes, gid: str) -> list[tuple[float, float]]:
    """Points drawn with this mark."""
    found = [line.get_data() for line in axes.get_lines() if line.get_gid() == gid]
    return sorted((float(x), float(y)) for xs, ys in found for x, y in zip(xs, ys, strict=True))


def texts_of(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for axes in figure.axes for text in axes.texts]


def test_the_first_command_shows_the_networks_before_and_after(tmp_path: Path) -> None:
    for rate, top1 in ((0.1, 0.986), (0.3, 0.981), (0.5, 0.972)):
        finish(tmp_path, config(prune_rate=rate), top1)
    figure = drawn(tmp_path)
    axes = figure.axes[0]
    assert lines(axes, "seeds") == [(0.1, 98.6), (0.3, 98.1), (0.5, 97.2)]
    assert lines(axes, "first mask") == [(0.1, 6.25), (0.3, 6.25), (0.5, 6.25)]
    assert lines(axes, "unpruned") == [(0, 12.5)]
    assert {y for _, y in lines(axes, "chance")} == {10}
    assert axes.get_ylim() == (0, 104)
    texts = texts_of(figure)
    assert {"edge-popup", "untrained, under the first mask", "chance 10 %"} <= {*texts}
    assert [text for text in texts if text.replace(".", "").isdigit()] == ["98.6", "6.2", "98.1", "6.2", "97.2", "6.2"]
    said = svg_texts(draw(read_runs(tmp_path), tmp_path / "figure")[1])
    assert "Digits, Conv2, edge-popup, signed constant, 1 seed" in said
    assert " ".join(said).endswith(
        "Test accuracy at the last epoch. Dots: runs. Grey: the same networks before training, under the first mask. "
        "Diamond: before training, unpruned."
    )


@pytest.mark.parametrize(("seeds", "bars", "bands"), [(1, 0, 0), (2, 0, 0), (3, 1, 0), (4, 1, 0), (5, 0, 1)])
def test_intervals_from_three_seeds_on_and_bands_from_five(seeds: int, bars: int, bands: int, tmp_path: Path) -> None:
    for seed in range(seeds):
        for rate in (0.1, 0.5):
            finish(tmp_path, config(prune_rate=rate, seed=seed), 0.9 + 0.01 * seed)
    axes = drawn(tmp_path).axes[0]
    assert len(lines(axes, "seeds")) == 2 * seeds
    assert len(axes.containers) == bars
    assert len(axes.collections) - bars == bands
    if bars:
        segments = axes.collections[0].get_segments()  # type: ignore[attr-defined]
        values = [90 + seed for seed in range(seeds)]
        middle = sum(values) / seeds
        half = half_width(values)
        assert [segment[:, 1].tolist() for segment in segments] == [
            [pytest.approx(middle - half), pytest.approx(middle + half)] for _ in range(2)
        ]


def test_collapsed_runs_are_hollow_but_not_those_with_nothing_to_learn(tmp_path: Path) -> None:
    finish(tmp_path, config(prune_rate=0.5), 0.9)
    finish(tmp_path, config(prune_rate=0.9), 0.1, collapsed=True)
    untrained = {"loss": 2.3, "top1": 0.125, "top5": 0.5}
    last = {"epoch": 15, "train": None, "validation": None, "test": untrained}
    finish(tmp_path, config(prune_rate=0.0), 0.1, collapsed=True, last=last)
    axes = drawn(tmp_path).axes[0]
    assert lines(axes, "collapsed") == [(0.9, 10)]
    assert lines(axes, "seeds") == [(0, 12.5), (0.5, 90)]
    assert [line.state for line in summarise(read_runs(tmp_path))] == ["done", "done", "done, 1 collapsed"]


def test_several_dense_networks_are_told_apart(tmp_path: Path) -> None:
    for model in (Model(name="conv2"), Model(name="conv4")):
        for method in ("edge_popup", "dense"):
            for rate in (0.1, 0.5) if method == "edge_popup" else (0.5,):
                finish(tmp_path, config(method, rate, model=model), 0.9)
    texts = svg_texts(draw(read_runs(tmp_path), tmp_path / "figure", "$ 5 $")[1])
    assert "$ 5 $: Digits, signed constant, 1 seed" in texts
    assert {"Conv2, edge-popup", "Conv4, edge-popup", "Conv2, dense", "Conv4, dense"} <= {*texts}


def test_ticks_are_at_what_was_run(tmp_path: Path) -> None:
    for rate in (0.5, 0.9, 0.99):
        finish(tmp_path, config(prune_rate=rate), 0.9)
    figure = drawn(tmp_path)
    below, above = figure.axes[0], figure.axes[-1]
    for axes, texts in ((below, ["0.5", "0.9", "0.99"]), (above, ["50 %", "10 %", "1 %"])):
        assert [text.get_text() for text in axes.get_xticklabels()] == texts
    places = [below.transData.transform((rate, 0))[0] for rate in (0.9, 0.99, 0.999)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])  # a decade of weights kept
    assert [above.transData.transform((rate, 0))[0] for rate in (0.9, 0.99, 0.999)] == pytest.approx(places)


@pytest.mark.parametrize(("zoomed", "pictures"), [(0, 3), (1, 3), (2, 5), (3, 6)])
def test_zooms_are_drawn_where_most_panels_have_one(tmp_path: Path, zoomed: int, pictures: int) -> None:
    """Each panel has the room of one then, which would be white."""
    for number, name in enumerate(("digits", "mnist", "cifar10")):
        for method, lower in (("edge_popup", 0.0), ("random_trained", 0.01 if number < zoomed else 0.4)):
            for rate in (0.1, 0.5, 0.9):
                made = config(method, rate)
                made.data = Data(name=name)
                finish(tmp_path, made, 0.95 - lower - rate / 100)
    figure = plot(picture(summarise(read_runs(tmp_path))), "")
    assert len([axes for axes in figure.axes if axes.axison]) == pictures


def test_a_zoom_has_the_same_runs_and_the_names_of_those_in_it(tmp_path: Path) -> None:
    for rate in (0.1, 0.5):
        for method, top1 in (("edge_popup", 0.97), ("random_trained", 0.98), ("random", 0.1)):
            finish(tmp_path, config(method, rate), top1)
    whole, zoom, _ = drawn(tmp_path).axes
    assert lines(whole, "seeds") == lines(zoom, "seeds")
    assert whole.get_xlim() == zoom.get_xlim()
    low, high = zoom.get_ylim()
    assert 96 < low < 97 < 98 < high < 99
    assert [text.get_text() for text in zoom.texts] == ["edge-popup", "random masks,\ntrained"]
    assert "random masks" in [text.get_text() for text in whole.texts]


def test_rows_of_categories(tmp_path: Path) -> None:
    for name, top1 in (("signed_constant", 0.5), ("kaiming_normal", 0.9)):
        for seed in (0, 1, 2):
            finish(tmp_path, config(init=Init(name=name), seed=seed), top1 + seed / 100)
    [axes] = drawn(tmp_path).axes
    assert lines(axes, "seeds") == [(50, 1), (51, 1), (52, 1), (90, 0), (91, 0), (92, 0)]
    assert lines(axes, "first mask") == [(6.25, 0)] * 3 + [(6.25, 1)] * 3
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Kaiming normal", "signed constant"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best on top


def test_a_heat_map_has_a_number_in_each_cell(tmp_path: Path) -> None:
    for width in (0.25, 0.5, 1.0):
        for lr in (0.1, 0.2, 0.4):
            finish(tmp_path, config(model=Model(name="conv2", width=width), train=Train(lr=lr)), width * lr)
    [axes] = drawn(tmp_path).axes
    assert {text.get_position(): text.get_text() for text in axes.texts}[2, 0] in ("10.0", "10.0")
    assert len(axes.texts) == 9
    assert {axes.get_xlabel(), axes.get_ylabel()} == {"learning rate", "width (multiplies all hidden channels)"}


def test_many_panels_have_one_legend_and_two_columns(tmp_path: Path) -> None:
    for data in ("digits", "mnist", "fashion_mnist"):
        for rate in (0.1, 0.5):
            finish(tmp_path, config(prune_rate=rate, data=Data(name=data)), 0.5 + rate)
    figure = drawn(tmp_path)
    *panels, empty = figure.axes
    assert [axes.get_title("left") for axes in panels] == ["Digits", "Fashion-MNIST", "MNIST"]
    legend = empty.get_legend()
    assert legend is not None
    assert not empty.axison
    assert [text.get_text() for text in legend.get_texts()] == ["edge-popup", "untrained, under the first mask"]


def test_names_beside_a_panel_are_moved_apart_as_little_as_needed() -> None:
    assert apart_by([0, 50, 100], [10, 10, 10], 0, 100) == [5, 50, 95]
    assert apart_by([50, 52], [10, 10], 0, 100) == [46, 56]
    assert apart_by([98, 99, 100], [10, 10, 20], 0, 100) == [65, 75, 90]
    assert apart_by([10, 20], [60, 60], 0, 100) == [20, 80]  # more than there is room for
    assert apart_by([], [], 0, 100) == []


@pytest.mark.parametrize(("names", "size"), [(2, 10.0), (16, 7.2), (60, 10 * SMALLEST)])
def test_names_for_which_there_is_no_room_become_smaller(names: int, size: float) -> None:
    """The panel has 0.8 * 144 points, and half a line more above and below."""
    axes = Figure(figsize=(2, 2), dpi=72).add_axes((0.1, 0.1, 0.8, 0.8))
    labels = Labels(axes)
    for number in range(names):
        labels.add(number / names, f"name {number}", "black")
    labels.spread(10.0)
    (found,) = {label.get_fontsize() for _, label in labels.entries}
    assert found == pytest.approx(size, abs=0.1)


def test_ticks_that_are_too_near_have_no_label() -> None:
    assert apart([1, 2, 3, 10], [0, 0.05, 0.2, 1], 0.15) == [1, 3, 10]


@pytest.mark.parametrize(
    "runs",
    [
        [("dense", 0.5, 0, 0.98)],
        [("edge_popup", 0.0, 0, 0.9)],
        [("edge_popup", 0.5, 0, 0.0)],
        [("edge_popup", 0.5, seed, 0.9) for seed in range(3)],
        [("edge_popup", 0.5, 0, 0.9), ("edge_popup", 0.5, 1, 0.9), ("edge_popup", 0.9, 0, 0.9)],
        [("edge_popup", 0.5, 0, 0.9), ("random", 0.5, 0, 0.1)],
        [("edge_popup", rate, 0, 0.9) for rate in (0.9, 0.95, 0.99, 0.995, 0.5)],
    ],
)
def test_any_runs_can_be_drawn(tmp_path: Path, runs: list[tuple[str, float, int, float]]) -> None:
    for method, rate, seed, top1 in runs:
        finish(tmp_path, config(method, rate, seed), top1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png, svg, _ = draw(read_runs(tmp_path), tmp_path / "figure")
    assert png.stat().st_size > 10_000
    assert "test accuracy (%)" in svg_texts(svg)


def test_a_method_without_a_rate_stands_at_what_it_removed(tmp_path: Path) -> None:
    for seed, density in enumerate((0.28, 0.32)):
        finish(tmp_path, config("sampled", seed=seed), 0.8, density=density)
        for rate in (0.1, 0.9):
            finish(tmp_path, config(prune_rate=rate, seed=seed), 0.9)
    finish(tmp_path, config("dense"), 0.95)
    lines = {line.settings["method"]: line for line in summarise(read_runs(tmp_path)) if line.prune_rate != 0.9}
    assert {name: line.rate for name, line in lines.items()} == {
        "sampled": pytest.approx(0.7),
        "edge_popup": 0.1,
        "dense": None,
    }
    assert curves(summarise(read_runs(tmp_path)))["sampled"] == ([pytest.approx(0.7)], [80])
    texts = svg_texts(draw(read_runs(tmp_path), tmp_path / "figure")[1])
    assert {"sampled", "dense"} <= {*texts}
    assert "0.7" not in texts  # ticks are those asked for


def test_nothing_is_drawn_where_nothing_is_done(tmp_path: Path) -> None:
    fail(tmp_path, config(), "ValueError: no")
    assert draw(read_runs(tmp_path), tmp_path / "figure") == []
    assert not (tmp_path / "figure.png").exists()
