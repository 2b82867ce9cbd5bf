"""Rates of single layers: how they are typed, which layer has which, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hidden_subnet.config.identity import id_of, projection
from hidden_subnet.config.layer_rates import final_rate, layer_rates, plain_rates, rates_on_the_way
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.plan import print_plan
from hidden_subnet.report.results import column
from hidden_subnet.sweep.preflight import preflight

Compose = Callable[..., Config]
SMALL = ("model=conv2", "model.width=0.1", "data=digits")
RESIDUAL = ["stem", "stage1.0.body.conv1", "stage1.0.body.conv2", "stage1.1.body.conv1", "fc"]


@pytest.mark.parametrize(
    ("typed", "rates"),
    [
        ("pruning.rates={conv1:0.1,fc*:0.9}", {"conv1": 0.1, "fc*": 0.9}),
        ("pruning.rates={conv1: 0.1, fc*: 0.9}", {"conv1": 0.1, "fc*": 0.9}),
        ("pruning.rates.conv1=0.1", {"conv1": 0.1}),
        ("pruning.rates.stage1.0.body.conv1=0.1", {"stage1.0.body.conv1": 0.1}),
        ("pruning.rates={1:0,10:0.30000000000000004}", {"1": 0.0, "10": 0.3}),
        ("pruning.rates={}", {}),
    ],
)
def test_what_is_typed(compose: Compose, typed: str, rates: dict[str, float]) -> None:
    assert compose(typed).pruning.rates == rates


def test_it_is_part_of_the_id_where_it_is_set(compose: Compose) -> None:
    assert "rates" not in projection(compose(*SMALL))["pruning"]
    one = compose(*SMALL, "pruning.rates={conv1:0.1,fc1:0.9}")
    assert projection(one)["pruning"]["rates"] == {"conv1": 0.1, "fc1": 0.9}
    assert id_of(one) == id_of(compose(*SMALL, "pruning.rates.fc1=0.9", "pruning.rates.conv1=0.1"))
    assert len({id_of(each) for each in (one, compose(*SMALL), compose(*SMALL, "pruning.rates={conv1:0.1}"))}) == 3


def of(config: Config, rates: dict[str, float], paths: list[str] = RESIDUAL) -> list[float]:
    return layer_rates(replace(config, pruning=replace(config.pruning, rates=rates)), paths)


def test_a_name_goes_before_a_pattern_and_the_rest_has_prune_rate(compose: Compose) -> None:
    config = compose("prune_rate=0.5")
    assert of(config, {}) == [0.5] * 5
    assert of(config, {"stem": 0.0, "fc": 0.9}) == [0.0, 0.5, 0.5, 0.5, 0.9]
    assert of(config, {"stage1.*": 0.1, "stage1.0.body.conv2": 0.2}) == [0.5, 0.1, 0.2, 0.1, 0.5]
    assert of(config, {"*.conv1": 0.3, "stage1.0.*": 0.3}) == [0.5, 0.3, 0.3, 0.3, 0.5]  # two patterns, one rate
    assert of(config, {"[sf]*": 0.7}) == [0.7] * 5


@pytest.mark.parametrize(
    ("rates", "line"),
    [
        (
            {"conv1": 0.1},
            "pruning.rates={conv1:0.1}: no masked layer has this name (stem, stage1.0.body.conv1, stage1.0.body.conv2, "
            "stage1.1.body.conv1, fc); as in: 'pruning.rates={stage1.0.body.conv1:0.1}'",
        ),
        (
            {"*.conv1": 0.3, "stage1.0.*": 0.4},
            "pruning.rates={*.conv1:0.3,stage1.0.*:0.4}: gives stage1.0.body.conv1 several rates; name the layer "
            "itself; as in: 'pruning.rates={stage1.0.body.conv1:0.3}'",
        ),
    ],
)
def test_what_fits_no_layer_or_two_rates_is_refused(compose: Compose, rates: dict[str, float], line: str) -> None:
    with pytest.raises(ValueError, match=r"pruning\.rates") as caught:
        of(compose(), rates)
    assert str(caught.value) == line


def test_a_wrong_name_is_refused_before_anything_starts_and_in_a_plan(compose: Compose, tmp_path: Path) -> None:
    config = compose(*SMALL, "pruning.rates={conv*:0.1,conv9:0.2}", f"out={tmp_path / 'runs'}")
    for start in (preflight, print_plan):
        with pytest.raises(ConfigError, match=r"rates=\{conv9:0\.2\}.*\(conv1, conv2, fc1, fc2, fc3\)"):
            start([config])  # type: ignore[operator]
    assert not (tmp_path / "runs").exists()
    # It is not pruned, so that it has no rate.
    with pytest.raises(ConfigError, match=r"\(conv1, conv2, fc1, fc2\)"):
        preflight([compose(*SMALL, "pruning.rates={fc3:0.2}", "model.last_layer=dense")])


def test_a_name_that_hydra_reads_as_a_number_is_refused(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"rates=\{1\.1:0\.5\}: a name of digits.*as in: pruning\.rates\.1\.1=0\.5"):
        compose("pruning.rates={1.10:0.5}")
    assert compose("pruning.rates.1.10=0.5").pruning.rates == {"1.10": 0.5}


def test_plain_rates_are_sorted_and_rounded() -> None:
    assert plain_rates({"b": 1 / 3, "a": {"0": {"c": 0}}, 2: True}) == {"2": True, "a.0.c": 0.0, "b": 0.333333333333}
    assert list(plain_rates({"b": 0.1, "a": 0.2})) == ["a", "b"]


def test_on_a_ramp_each_has_removed_the_same_share_of_its_own() -> None:
    rates = rates_on_the_way([0.8, 0.4, 0.0, 0.5], 0.5)
    assert rates(0.5) == [0.8, 0.4, 0.0, 0.5]
    assert rates(0.0) == [0.0] * 4
    assert rates(0.25) == pytest.approx([0.4, 0.2, 0.0, 0.25])
    assert rates(0.75) == pytest.approx([0.9, 0.7, 0.5, 0.75])  # half of what is kept: a second coat


def test_with_prune_rate_0_the_ramp_is_that_of_the_largest_rate(compose: Compose) -> None:
    config = compose("prune_rate=0", "pruning.rates={conv1:0.2,fc1:0.9}")
    assert final_rate(config) == 0.9
    assert final_rate(compose("prune_rate=0.5", "pruning.rates={conv1:0.2,fc1:0.9}")) == 0.5
    assert rates_on_the_way([0.2, 0.0, 0.9], 0.9)(0.45) == pytest.approx([0.1, 0.0, 0.45])
    with pytest.raises(ConfigError, match=r"must be at most prune_rate=0\.9"):
        compose("prune_rate=0", "pruning.rates={fc1:0.9}", "pruning.ramp_epochs=2", "pruning.start_rate=0.95")


def test_a_column_of_results_has_the_whole_name_of_the_layer() -> None:
    assert column("pruning.rates.stage1.0.body.conv1") == "rates.stage1.0.body.conv1"
    assert column("pruning.ramp") == "ramp"
