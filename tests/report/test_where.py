"""Runs are chosen by their settings: results --where."""

from pathlib import Path

import pytest
from helpers.run_folders import config, finish

from hidden_subnet.cli.results import results
from hidden_subnet.config.settings import Train
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.where import matching
from hidden_subnet.store.read import Run, read_runs


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    for method in ("edge_popup", "random"):
        for rate in (0.5, 0.9):
            finish(tmp_path, config(method, rate), 0.9)
    finish(tmp_path, config("dense", train=Train(lr=0.01)), 0.9)
    return read_runs(tmp_path)


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["method=edge_popup"], 2),
        (["method=edge_popup,dense"], 3),
        (["method.name=edge_popup", "prune_rate=0.90"], 1),
        (["train.lr=0.01"], 1),
        (["lr=1e-2"], 1),
        (["state=done"], 5),
        ([], 5),
    ],
)
def test_a_run_is_chosen_if_it_satisfies_every_condition(runs: list[Run], conditions: list[str], count: int) -> None:
    assert len(matching(runs, conditions)) == count


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        (["metod=dense"], "--where metod=dense: is no name=value of these runs; as in: --where method=dense"),
        (["method"], "--where method: is no name=value of these runs; as in: --where method=dense"),
        (
            ["prune_rate=0.7"],
            "--where prune_rate=0.7: no run has the prune_rate 0.7, they have 0.5, 0.9; as in: --where prune_rate=0.5",
        ),
        (["method=dense", "lr=0.1"], "--where method=dense lr=0.1: no run is all of this; as in: --where method=dense"),
    ],
)
def test_what_no_run_has_is_refused_with_what_they_have(runs: list[Run], conditions: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        matching(runs, conditions)
    assert str(refused.value) == line


def test_results_of_some_runs_beside_those_of_all(tmp_path: Path, runs: list[Run]) -> None:
    results(tmp_path, None)
    every = (tmp_path / "figures" / "all.md").read_text()
    results(tmp_path, None, where=["method=edge_popup"], style="screen")
    results(tmp_path, None, where=["method=edge_popup,dense"], against="method=dense", x="prune_rate")
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    names = ("all", "all-method_edge_popup", "all-method_edge_popup_dense")
    assert written == {f"{name}.{kind}" for name in names for kind in ("png", "svg", "pdf", "md", "tex")}
    assert (tmp_path / "figures" / "all.md").read_text() == every
    assert "Difference to method=dense" in (tmp_path / "figures" / "all-method_edge_popup_dense.md").read_text()
    assert (tmp_path / "results.csv").read_text().count("\n") == 1 + 5


def test_an_x_that_does_not_differ_is_refused(tmp_path: Path, runs: list[Run]) -> None:
    with pytest.raises(ConfigError, match=r"--x epochs: is no number that differs .* they have .*prune_rate"):
        results(tmp_path, None, x="epochs")
