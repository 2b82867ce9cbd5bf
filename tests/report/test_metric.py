"""The accuracies that a figure is of, and the figures that a run or a sweep draws of itself (report.*)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import config, finish
from helpers.runs import small

from hidden_subnet.cli.results import results
from hidden_subnet.cli.run import run_single
from hidden_subnet.cli.sweep import run_sweep
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config, Report, ReportMetric, ReportStyle, Tracker
from hidden_subnet.report.metric import METRICS
from hidden_subnet.report.results import OUTCOME
from hidden_subnet.report.table import summarise
from hidden_subnet.store.read import read_runs

VALUES = {"train": 0.91, "validation": 0.82, "test": 0.73}


def evaluated(add: float) -> dict[str, Any]:
    return {"epoch": 15} | {split: {"loss": 1.0, "top1": value + add} for split, value in VALUES.items()}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for rate in (0.5, 0.9):
        finish(tmp_path, config(prune_rate=rate), 0.7, last=evaluated(0), best=evaluated(0.05))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last_test_top1", 0.73),
        ("best_test_top1", 0.78),
        ("last_validation_top1", 0.82),
        ("best_validation_top1", 0.87),
        ("last_train_top1", 0.91),
    ],
)
def test_each_metric_is_that_of_its_column(runs: Path, name: str, value: float) -> None:
    assert OUTCOME[name] == METRICS[name].path
    assert [line.accuracies for line in summarise(read_runs(runs), METRICS[name])] == [(pytest.approx(value),)] * 2


def test_the_settings_have_every_metric() -> None:
    assert [each.name for each in ReportMetric] == list(METRICS)


def test_figure_and_tables_say_what_they_are_of(runs: Path) -> None:
    results(runs, None, metric="best_validation_top1")
    figure, table = ((runs / "figures" / f"all.{kind}").read_text() for kind in ("svg", "md"))
    assert "validation accuracy (%)" in figure
    assert "Validation accuracy at the best epoch." in figure
    assert "87.00" in table
    assert "Validation accuracy at the best epoch in %" in table
    results(runs, None)
    assert "Test accuracy at the last epoch." in (runs / "figures" / "all.svg").read_text()


def test_runs_without_the_metric_have_no_figure(tmp_path: Path) -> None:
    """A method that trains nothing has no accuracy on training images."""
    finish(tmp_path, config(), 0.7, last=evaluated(0) | {"train": None})
    results(tmp_path, None, metric="last_train_top1")
    assert not (tmp_path / "figures" / "all.svg").exists()


def drawn(out: Path, report: Report, rates: tuple[float, ...]) -> list[Config]:
    base = small(out, epochs=1)
    return [replace(base, prune_rate=rate, tracker=Tracker(), report=report) for rate in rates]


def test_a_run_draws_itself_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [made] = drawn(tmp_path, Report(run=True), (0.5,))
    assert run_single(made) == 0
    [figure] = (tmp_path / "figures").iterdir()
    assert figure.name == f"{folder_name(made)}.png"
    assert f"{figure}" in capsys.readouterr().out
    before = figure.stat().st_mtime_ns
    assert run_single(made) == 0  # finished before
    assert figure.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_sweep_draws_as_its_settings_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(style=ReportStyle.talk, metric=ReportMetric.best_validation_top1, run=True, x="rate")
    configs = drawn(tmp_path, report, (0.5, 0.9))
    [jobs, code] = run_sweep(configs, "drawn", workers=2)
    assert code == 0
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {f"{job.folder.name}.png" for job in jobs} < figures
    [sweep] = [name for name in figures if name.endswith(".svg")]
    assert "Validation accuracy at the best epoch." in (tmp_path / "figures" / sweep).read_text()
    said = " ".join(capsys.readouterr().out.split())
    assert "report.x=rate: is no number that differs between these runs; they have prune_rate" in said
    assert "type: report.x=prune_rate" in said
