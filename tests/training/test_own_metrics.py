"""Metrics of the user's own: what they are given, where their values are shown, and what is refused."""

import csv
from pathlib import Path

import pytest
import torch
from helpers.composing import make_composer
from helpers.own_parts import Use, composed, forgotten, use
from helpers.runs import QUIET, assert_same_run, interrupt, trained
from rich.console import Console

from hidden_subnet.analysis.evaluate import checkpoints_of, measure, rebuilt
from hidden_subnet.analysis.load import load
from hidden_subnet.cli.own_help import own_parts_text
from hidden_subnet.cli.run import epoch_line
from hidden_subnet.config.convert import as_dict, from_dict
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.own_parts import USED
from hidden_subnet.config.registries import METRICS
from hidden_subnet.config.settings import Config, Device
from hidden_subnet.config.unused import unused_lines
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.results import results, write_results
from hidden_subnet.report.table import summarise, table
from hidden_subnet.store import files
from hidden_subnet.store.read import read_runs
from hidden_subnet.sweep.execute import RunObserver, execute
from hidden_subnet.sweep.preflight import preflight
from hidden_subnet.trackers.summary import aggregate, run_table
from hidden_subnet.training.own_metrics import measures

__all__ = ["forgotten", "use"]

METRIC = """
import hidden_subnet as hs

@hs.register_metric("mine")
def mine(logits, labels):
    {}
"""
WRONG_SHARE = METRIC.format("return (logits.argmax(1) != labels).double().mean()")


def run_of(used: list[str], out: Path, *more: str) -> Config:
    fixed = ("model=conv2", "model.width=0.125", "data=digits", "train.epochs=2", "train.batch_size=400", f"out={out}")
    return composed(used, *fixed, *more)


def test_a_metric_is_given_all_logits_and_labels_of_an_evaluation(use: Use) -> None:
    use(METRIC.format("return (logits[:, 0] * labels).sum()"))
    assert METRICS["mine"].measure(torch.tensor([[1.0, 9.0], [2.0, 9.0]]), torch.tensor([1, 3])) == 7.0


def test_a_metric_cannot_change_the_logits_of_another(use: Use) -> None:
    use(METRIC.format("logits.zero_(); return 0"))
    logits = torch.ones(1, 2)
    METRICS["mine"].measure(logits, torch.tensor([0]))
    assert logits.tolist() == [[1, 1]]


def test_it_is_in_rows_results_table_and_csv(use: Use, tmp_path: Path) -> None:
    config = run_of(use(WRONG_SHARE), tmp_path / "runs", "metrics=[mine]")
    outcome = execute(config, QUIET)
    result, rows = outcome.result, files.read_rows(outcome.folder)
    assert result is not None
    assert [row["validation/mine"] for row in rows] == [pytest.approx(1 - row["validation/top1"]) for row in rows]
    for measured in (result["last"]["test"], result["best"]["test"], result["untrained"]["first_mask"]):
        assert measured["mine"] == pytest.approx(1 - measured["top1"])
    assert f"mine {rows[1]['validation/mine']:.4g}" in epoch_line(rows[1], 2, masked=True)

    with write_results(tmp_path / "runs").open() as file:
        [line] = csv.DictReader(file)
    assert float(line["last_test_mine"]) == result["last"]["test"]["mine"]
    assert float(line["best_test_mine"]) == result["best"]["test"]["mine"]
    assert results(tmp_path / "runs")["last_validation_mine"].tolist() == [rows[-1]["validation/mine"]]

    runs = read_runs(tmp_path / "runs")
    console = Console(record=True, width=200)
    console.print(table(summarise(runs)))
    assert f" {result['last']['test']['mine']:.4g} " in console.export_text()
    for columns, [values] in (run_table(runs), aggregate(summarise(runs))):
        named = dict(zip(columns, values, strict=True))
        assert result["last"]["test"]["mine"] in (named.get("last_test_mine"), named.get("test_mine"))


def test_a_run_with_a_metric_trains_to_the_same_bits_under_another_id(use: Use, tmp_path: Path) -> None:
    used = use(WRONG_SHARE)
    plain, measured = run_of(used, tmp_path), run_of(used, tmp_path, "metrics=[mine]")
    assert folder_name(plain) == folder_name(run_of([], tmp_path))
    assert folder_name(measured) not in (folder_name(plain), folder_name(run_of(used, tmp_path, "metrics=[]")))
    assert measured.code is not None
    first, second = (trained(execute(config, QUIET).folder) for config in (plain, measured))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_with_a_metric_resumes_and_is_evaluated_to_the_same_bits(use: Use, tmp_path: Path) -> None:
    used = use(WRONG_SHARE)
    whole = execute(run_of(used, tmp_path / "whole", "metrics=[mine]"), QUIET).folder
    resumed = run_of(used, tmp_path / "resumed", "metrics=[mine]")
    interrupt(resumed, steps=5)
    execute(resumed, QUIET)
    assert_same_run(whole, files.folder_of(resumed))
    with rebuilt(whole, Device.auto) as (experiment, result):
        found = measure(experiment, result, checkpoints_of(experiment, result))
    assert all("mine" in each.now for each in found)
    assert {each.equal for each in found} == {True}


def test_a_value_that_is_nan_is_left_out_and_said_once(use: Use, tmp_path: Path) -> None:
    said: list[str] = []
    config = run_of(use(METRIC.format("return float('nan')")), tmp_path, "metrics=[mine]")
    preflight([config])
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.state == "done"
    assert outcome.result is not None
    assert "mine" not in outcome.result["last"]["test"]
    assert all("validation/mine" not in row for row in files.read_rows(outcome.folder))
    told = [line for line in said if "mine" in line]
    assert told == ["metrics=[mine]: is NaN or infinite after epoch 1; no value of it is recorded there"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return logits.nothing", r"my_own_parts.py, line 6: AttributeError: .* mend the metric"),
        ("return logits", r"must return one number, and returns a tensor of shape \(16, 10\)"),
        ("return None", "must return one number, and returns None"),
        ("return '0.5'", "must return one number, and returns '0.5'"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_wrong_metric_is_refused_in_one_line_before_the_first_run(
    use: Use, tmp_path: Path, body: str, words: str
) -> None:
    config = run_of(use(METRIC.format(body)), tmp_path / "runs", "metrics=[mine]")
    with pytest.raises(ConfigError, match=rf"^metrics=\[mine\]: .*{words}") as caught:
        preflight([config])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"mine"', '"top1"', "other than loss, top1, top5"),
        ('"mine"', '"a.b"', "letters, digits and _"),
        (
            "(logits, labels)",
            "(logits)",
            r"mine: takes \(logits\), and is called with 2 values, as in: def mine\(logits",
        ),
    ],
)
def test_a_metric_that_cannot_be_one_is_refused_when_it_is_imported(use: Use, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        use(WRONG_SHARE.replace(old, new))


def test_an_unknown_metric_is_refused_with_the_nearest(use: Use, tmp_path: Path) -> None:
    used = use(WRONG_SHARE)
    with pytest.raises(ConfigError, match=r"metrics=\[min\]: there is no such metric \(mine\); .*: 'metrics=\[mine\]'"):
        run_of(used, tmp_path, "metrics=[min]")
    with pytest.raises(ConfigError, match=r"^metrics=mine: must be a list; type: 'metrics=\[mine\]'$"):
        run_of(used, tmp_path, "metrics=mine")


BINNED = """
from typing import Literal
import hidden_subnet as hs

@hs.register_metric("mine")
def mine(outputs, labels, *, bins: int = 15, by: Literal["mean", "most"] = "mean", weight: float = 1.0):
    return bins * weight + (100 if by == "most" else 0)

@hs.register_metric("plain")
def plain(logits, labels):
    return 1
"""


def test_further_arguments_of_a_metric_are_settings(use: Use, tmp_path: Path) -> None:
    used = use(BINNED)
    config = run_of(used, tmp_path, "metrics=[mine,plain]", "metric.mine.bins=3", "metric.mine.by=most")
    assert config.metric == {"mine": {"bins": 3, "by": "most", "weight": 1.0}}
    assert measures(config)["mine"](torch.zeros(1, 2), torch.tensor([0])) == 103
    default = run_of(used, tmp_path, "metrics=[mine]")
    assert default.metric == {"mine": {"bins": 15, "by": "mean", "weight": 1.0}}
    assert from_dict(as_dict(default)).metric == default.metric
    assert folder_name(run_of(used, tmp_path, "metrics=[mine]", "metric.mine.bins=15")) == folder_name(default)
    assert folder_name(run_of(used, tmp_path, "metrics=[mine]", "metric.mine.weight=2")) != folder_name(default)
    without = run_of(used, tmp_path, "metric.mine.bins=3")
    assert without.metric == {}
    assert folder_name(without) == folder_name(run_of([], tmp_path))
    assert unused_lines([without], ["metric.mine.bins=3"]) == [
        "metric.mine.bins=3 changes nothing: metrics=[mine] is not given"
    ]
    assert "  metrics=[mine] metric.mine.bins=15 metric.mine.by=mean metric.mine.weight=1.0" in own_parts_text()


def test_a_sweep_composes_its_jobs_as_each_alone(use: Use, tmp_path: Path) -> None:
    used = use(BINNED)
    composer = make_composer()
    use_it = f"use=[{','.join(used)}]"
    for words in (["metrics=[mine]"], ["metrics=[mine]", "metric.mine.bins=3"], []):
        several = composer.compose([use_it, "tracker=none", f"out={tmp_path}", *words])
        assert several == composed(used, f"out={tmp_path}", *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["metric.mine.bins=many"], r"metric.mine.bins=many: must be a whole number; as in: metric.mine.bins=15$"),
        (["metric.mine.by=best"], r"metric.mine.by=best: must be one of mean, most"),
        (["metric.mine.bin=3"], r"metric.mine.bin=3: .* did you mean: metric.mine.bins=3$"),
        (["metric=[mine]"], r"metric=\[mine\]: there is no such setting; did you mean: 'metrics=\[mine\]'$"),
    ],
)
def test_settings_of_a_metric_are_checked(use: Use, tmp_path: Path, words: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        run_of(use(BINNED), tmp_path, "metrics=[mine]", *words)


def test_an_argument_of_a_metric_needs_a_default(use: Use) -> None:
    with pytest.raises(ConfigError, match="mine: bins needs a default, as in bins: int = 15"):
        use(BINNED.replace("bins: int = 15", "bins: int"))


def test_a_network_is_loaded_without_the_file_of_its_metric(use: Use, tmp_path: Path) -> None:
    config = run_of(use(WRONG_SHARE), tmp_path, "metrics=[mine]", "train.epochs=1")
    folder = execute(config, QUIET).folder
    USED.clear()
    del METRICS["mine"]
    assert load(folder)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with (
        pytest.raises(ConfigError, match=r"^metrics=mine: the run is on your own parts, which must be named again"),
        rebuilt(folder, Device.auto),
    ):
        pass


@pytest.mark.slow
def test_two_processes_measure_what_one_does(use: Use, tmp_path: Path) -> None:
    used = use(METRIC.format("return (logits.logsumexp(1) - logits[range(len(labels)), labels]).double().mean()"))
    rows = []
    for devices in (1, 2):
        more = (f"train.devices={devices}", "train.device=cpu", "train.threads=1", "metrics=[mine]", "train.epochs=1")
        outcome = execute(run_of(used, tmp_path / str(devices), *more), QUIET)
        assert outcome.state == "done", outcome.message
        rows.append(files.read_rows(outcome.folder))
    for one, two in zip(*rows, strict=True):
        assert two["validation/mine"] == pytest.approx(two["validation/loss"], rel=1e-5)  # of all images, once each
        assert two["validation/mine"] == pytest.approx(one["validation/mine"], rel=1e-3)
