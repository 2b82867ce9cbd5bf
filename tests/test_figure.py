"""The figure of a sweep: its lines, bands and legend, and the same bytes each time."""

import math
import warnings
from pathlib import Path

import pytest
from run_folders import config, fail, finish, svg_texts

from hidden_subnet.report.figure import draw, half_width
from hidden_subnet.report.runs import read_runs
from hidden_subnet.report.table import summarise
from hidden_subnet.settings import (
    Model,
)
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
    png, svg = draw(read_runs(out), out / "figures" / "prune_rates", "prune_rates")
    assert (png, svg) == (out / "figures" / "prune_rates.png", out / "figures" / "prune_rates.svg")
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    texts = svg_texts(svg)
    for text in ["prune_rates", "digits · conv2 · signed_constant · n = 3"]:
        assert text in texts
    for text in ["edge_popup", "random", "dense (n = 3)"]:
        assert text in texts
    for text in ["test accuracy (%)", "weights kept", "10 %", "90 %", "0.9", "chance"]:
        assert text in texts


def test_the_same_runs_draw_the_same_bytes(tmp_path: Path) -> None:
    finish(tmp_path / "runs", config(), 0.9)
    finish(tmp_path / "runs", config(seed=1), 0.8)
    finish(tmp_path / "runs", config("dense"), 0.9)
    runs = read_runs(tmp_path / "runs")
    first = [path.read_bytes() for path in draw(runs, tmp_path / "a", "x")]
    assert [path.read_bytes() for path in draw(runs[::-1], tmp_path / "b", "x")] == first
    assert [path.read_bytes() for path in draw(runs, tmp_path / "c", "y")] != first
    assert not list(tmp_path.glob("*.tmp"))


def test_a_single_series_has_no_legend(tmp_path: Path) -> None:
    for rate in (0.1, 0.3, 0.5):
        finish(tmp_path, config(prune_rate=rate), 0.9)
    texts = svg_texts(draw(read_runs(tmp_path), tmp_path / "figure")[1])
    assert "digits · conv2 · edge_popup · signed_constant · n = 1" in texts
    assert "edge_popup" not in texts
    assert "Test accuracy at the last epoch; each point is one run." in texts


def test_several_dense_networks_are_told_apart(tmp_path: Path) -> None:
    for model in (Model(name="conv2"), Model(name="conv4")):
        for method in ("edge_popup", "dense"):
            for seed in range(2):
                finish(tmp_path, config(method, seed=seed, model=model), 0.9 + 0.01 * seed)
    texts = svg_texts(draw(read_runs(tmp_path), tmp_path / "figure", "$ 5 $")[1])
    assert "$ 5 $" in texts
    for text in ["conv2, edge_popup", "conv4, edge_popup", "conv2, dense (n = 2)", "conv4, dense (n = 2)"]:
        assert text in texts


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
        png, svg = draw(read_runs(tmp_path), tmp_path / "figure")
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
    assert "sampled" in texts  # a band says (n = 2)
    assert "dense (n = 1)" in texts
    assert "0.7" not in texts  # ticks are those asked for


def test_nothing_is_drawn_where_nothing_is_done(tmp_path: Path) -> None:
    fail(tmp_path, config(), "ValueError: no")
    assert draw(read_runs(tmp_path), tmp_path / "figure") == []
    assert not (tmp_path / "figure.png").exists()
