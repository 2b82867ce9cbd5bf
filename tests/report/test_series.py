"""The content of a figure is chosen by what was swept."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.run_folders import config, finish

from hidden_subnet.config.settings import Config, Data, Init, Model, Pruning, Train
from hidden_subnet.report.names import axis_name, joined
from hidden_subnet.report.series import Picture, picture
from hidden_subnet.report.table import summarise
from hidden_subnet.report.texts import caption
from hidden_subnet.store.read import read_runs


def drawn(out: Path, runs: Iterable[tuple[Config, float]], x: str | None = None) -> Picture:
    for what, top1 in runs:
        finish(out, what, top1)
    return picture(summarise(read_runs(out)), x=x)


def contents(found: Picture) -> list[dict[str, dict[float, float]]]:
    """Mean accuracy by x of each series of each panel."""
    return [
        {each.name: {point.x: pytest.approx(point.mean) for point in each.points} for each in panel.series}
        for panel in found.panels
    ]


def test_prune_rates_are_x_and_dense_is_a_level(tmp_path: Path) -> None:
    runs = [(config(prune_rate=rate), rate) for rate in (0.3, 0.5)]
    found = drawn(tmp_path, [*runs, (config("dense"), 0.98)])
    assert (found.x, found.log, found.ticks) == ("prune_rate", False, (0.3, 0.5))
    assert contents(found) == [{"dense": {0: 98}, "edge-popup": {0.3: 30, 0.5: 50}}]
    [panel] = found.panels
    assert [each.is_level for each in panel.series] == [True, False]
    assert [point.before for point in panel.series[1].points] == [(6.25,), (6.25,)]
    assert panel.unpruned == (12.5, 12.5, 12.5)
    assert panel.chance == (10,)


def test_a_method_that_trains_nothing_has_no_untrained_network(tmp_path: Path) -> None:
    for rate in (0.3, 0.5):
        finish(tmp_path, config("random", rate), 0.1)
    assert [point.before for point in picture(summarise(read_runs(tmp_path))).panels[0].series[0].points] == [(), ()]


@pytest.mark.parametrize(("rates", "log"), [((0.5, 0.9), False), ((0.5, 0.99), True)])
def test_kept_weights_are_logarithmic_beyond_a_tenth(rates: tuple[float, ...], log: bool, tmp_path: Path) -> None:
    assert drawn(tmp_path, [(config(prune_rate=rate), 0.9) for rate in rates]).log is log


@pytest.mark.parametrize(
    ("name", "values", "log"),
    [
        ("lr", (0.01, 0.02), True),
        ("epochs", (5, 10, 40), True),
        ("epochs", (10, 15, 20), False),
        ("momentum", (0.0, 0.9), False),
    ],
)
def test_any_number_is_x(name: str, values: tuple[float, ...], log: bool, tmp_path: Path) -> None:
    runs = [(config(train=Train(**{name: value})), 0.1 * number) for number, value in enumerate(values, 5)]
    found = drawn(tmp_path, runs)
    assert (found.x, found.log, found.ticks) == (name, log, values)
    expected = {value: 10 * number for number, value in enumerate(values, 5)}
    series = contents(found)[0]
    assert series["edge-popup"] == expected


def test_a_method_without_the_swept_setting_is_a_level(tmp_path: Path) -> None:
    runs = [(config(pruning=Pruning(name="global", floor=floor)), 0.9) for floor in (0.1, 0.2, 0.3)]
    found = drawn(tmp_path, [*runs, (config("dense"), 0.98), (config("sampled"), 0.8)])
    assert found.x == "floor"
    assert {each.name: each.is_level for each in found.panels[0].series} == {
        "dense": True, "sampled": True, "edge-popup": False,
    }  # fmt: skip


def test_a_default_that_is_no_part_of_the_id_is_a_value_like_others(tmp_path: Path) -> None:
    """init.attention_scale=1 is left out of ids, so that older runs keep theirs; a dense network uses it too."""
    runs = []
    for scale, top1 in ((0.5, 0.3), (1.0, 0.5), (2.0, 0.7)):
        made = config()
        made.init = Init(name="signed_constant", attention_scale=scale)
        runs.append((made, top1))
    found = drawn(tmp_path, runs)
    assert (found.x, found.ticks) == ("attention_scale", (0.5, 1.0, 2.0))
    assert contents(found) == [{"edge-popup": {0.5: 30, 1.0: 50, 2.0: 70}}]


def test_x_is_the_number_with_the_fewest_series(tmp_path: Path) -> None:
    runs = [(config(prune_rate=rate, train=Train(lr=lr)), lr) for rate in (0.5, 0.9) for lr in (0.1, 0.2, 0.4)]
    found = drawn(tmp_path, runs)
    assert contents(found) == [{name: {0.1: 10, 0.2: 20, 0.4: 40} for name in ("prune rate 0.5", "prune rate 0.9")}]
    asked = picture(summarise(read_runs(tmp_path)), x="prune_rate")
    assert contents(asked) == [{f"learning rate {lr}": {0.5: 100 * lr, 0.9: 100 * lr} for lr in (0.1, 0.2, 0.4)}]


def test_seeds_alone_are_x(tmp_path: Path) -> None:
    found = drawn(tmp_path, [(config(seed=seed), 0.5 + seed / 10) for seed in (4, 0, 2)])
    assert found.x == "seed"
    assert contents(found) == [{"edge-popup": {0: 50, 2: 70, 4: 90}, "mean": {0: 70}}]
    assert [each.is_level for each in found.panels[0].series] == [False, True]


def test_without_a_number_each_combination_is_a_row_the_best_on_top(tmp_path: Path) -> None:
    inits = {"signed_constant": 0.7, "kaiming_normal": 0.9, "xavier_normal": 0.8}
    runs = [(config(init=Init(name=name), seed=seed), top1) for name, top1 in inits.items() for seed in (0, 1)]
    found = drawn(tmp_path, runs)
    assert (found.x, found.rows) == ("", ("Kaiming normal", "Xavier normal", "signed constant"))
    assert [(point.x, point.top1) for each in found.panels[0].series for point in each.points] == [
        (0, (90, 90)), (1, (80, 80)), (2, (70, 70)),
    ]  # fmt: skip


def test_two_numbers_beside_one_rate_are_a_heat_map(tmp_path: Path) -> None:
    runs = [
        (config(model=Model(name="conv2", width=width), train=Train(lr=lr)), lr * width)
        for width in (0.25, 0.5, 1.0)
        for lr in (0.1, 0.2, 0.4, 0.8)
    ]
    found = drawn(tmp_path, runs)
    assert (found.columns, found.rows) == (("0.1", "0.2", "0.4", "0.8"), ("0.25", "0.5", "1"))
    cells = {(point.x, point.y): point.mean for panel in found.panels for point in panel.series[0].points}
    assert cells[3, 0] == pytest.approx(20)
    assert cells[0, 2] == pytest.approx(10)


def test_a_dense_network_is_said_beside_a_heat_map(tmp_path: Path) -> None:
    runs = [
        (config(pruning=Pruning(name="global", floor=floor), train=Train(lr=lr)), 0.9)
        for floor in (0.1, 0.2, 0.3)
        for lr in (0.1, 0.2, 0.3)
    ]
    found = drawn(tmp_path, [*runs, (config("dense", train=Train(lr=0.1)), 0.98)])
    assert [len(panel.series[0].points) for panel in found.panels] == [9]
    [(name, mean)] = found.beside
    assert name.startswith("dense")
    assert mean == pytest.approx(98)
    assert f"{name}: 98.0." in caption(found)


def test_seeds_that_differ_by_more_than_a_tenth_have_a_zoom_of_their_means(tmp_path: Path) -> None:
    runs = [(config(method, seed=seed), 0.9 * seed) for method in ("edge_popup", "random_trained") for seed in (0, 1)]
    [panel] = drawn(tmp_path, runs).panels
    assert panel.zoom is not None
    assert panel.zoom[0] < 45 < panel.zoom[1]


def test_each_data_set_has_a_panel(tmp_path: Path) -> None:
    runs = [
        (config(prune_rate=rate, data=Data(name=data)), top1)
        for data, top1 in (("digits", 0.9), ("fashion_mnist", 0.8))
        for rate in (0.1, 0.5)
    ]
    found = drawn(tmp_path, runs)
    assert [panel.name for panel in found.panels] == ["Digits", "Fashion-MNIST"]
    assert contents(found) == [{"edge-popup": {0.1: 90, 0.5: 90}}, {"edge-popup": {0.1: 80, 0.5: 80}}]


def test_more_than_seven_series_are_families(tmp_path: Path) -> None:
    """Four networks times three inits: panels of the networks, and the dense ones in their own."""
    runs = [
        (config(prune_rate=rate, model=Model(name=model), init=Init(name=init)), 0.9)
        for model in ("conv2", "conv4", "conv6", "conv8")
        for init in ("signed_constant", "kaiming_normal", "xavier_normal")
        for rate in (0.1, 0.5)
    ]
    found = drawn(tmp_path, [*runs, (config("sampled", model=Model(name="conv4")), 0.8)])
    assert max(len(panel.series) for panel in found.panels) <= 7
    assert sum(len(panel.series) for panel in found.panels) == 13
    names = [{each.name for each in panel.series} for panel in found.panels]
    assert len(found.panels) == 2 or len(names) == 3 or len(names) == 4


def test_a_method_that_does_not_use_the_setting_of_the_panels_is_in_each(tmp_path: Path) -> None:
    runs = [
        (config(prune_rate=rate, pruning=Pruning(name=pruning), train=Train(lr=lr)), 0.9)
        for pruning in ("global", "layerwise")
        for rate in (0.1, 0.3, 0.5, 0.7, 0.9)
        for lr in (0.1, 0.2, 0.3, 0.4)
    ]
    found = drawn(tmp_path, [*runs, (config("dense"), 0.8)], x="prune_rate")
    assert [panel.name for panel in found.panels] == ["global", "layerwise"]
    assert [{each.name.partition(",")[0] for each in panel.series if each.is_level} for panel in found.panels] == [
        {"dense"}, {"dense"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("accuracies", "zoomed"),
    [
        ({"edge_popup": (0.96, 0.97), "random_trained": (0.95, 0.98)}, True),
        ({"edge_popup": (0.96, 0.97), "random_trained": (0.95, 0.98), "random": (0.1, 0.12)}, True),
        ({"edge_popup": (0.96, 0.97), "random_trained": (0.55, 0.68)}, False),
        ({"edge_popup": (0.96, 0.97)}, False),  # nothing to compare
        ({"edge_popup": (0.93, 0.97, 0.96, 0.95)}, True),
        ({"random": (0.1, 0.12), "edge_popup": (0.11, 0.1)}, False),  # all at chance
    ],
)
def test_a_zoom_where_most_lie_within_a_tenth(
    accuracies: dict[str, tuple[float, ...]], zoomed: bool, tmp_path: Path
) -> None:
    runs = [
        (config(method, prune_rate=0.1 + number / 5), top1)
        for method, values in accuracies.items()
        for number, top1 in enumerate(values)
    ]
    [panel] = drawn(tmp_path, runs).panels
    assert (panel.zoom is not None) is zoomed
    if panel.zoom is not None:
        low, high = panel.zoom
        inside = [100 * top1 for values in accuracies.values() for top1 in values if top1 > 0.5]
        assert low < min(inside)
        assert max(inside) < high
        assert high - low < 15


def test_names_are_those_of_a_paper() -> None:
    assert joined({"method": "edge_popup", "pruning": "global", "lr": None}) == "edge-popup, global"
    assert joined({"model": "conv2", "width": 0.25}) == "Conv2, quarter width"
    assert (
        joined({"data": "fashion_mnist", "width": 1.5, "ramp_epochs": 3}) == "Fashion-MNIST, width 1.5, ramp epochs 3"
    )
    assert joined({"method": "my_method", "lr": 0.1}) == "my method, learning rate 0.1"
    assert axis_name("batch_size") == "images per step"
    assert axis_name("weight_decay") == "weight decay"
