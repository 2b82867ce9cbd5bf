import csv
import io
import json
import math
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hidden_subnet import claims, owners, record
from hidden_subnet.config import as_dict, to_yaml
from hidden_subnet.identity import folder_name, projection
from hidden_subnet.report.figure import draw, half_width
from hidden_subnet.report.results import COLUMNS, cell, write_results
from hidden_subnet.report.runs import read_run, read_runs
from hidden_subnet.report.table import Line, short_names, summarise, table
from hidden_subnet.settings import (
    METHODS,
    Config,
    Data,
    DataName,
    Init,
    InitName,
    Model,
    Pruning,
    PruningName,
    Seeds,
    Tracker,
    TrackerName,
    Train,
)
from hidden_subnet.trackers.summary import curves


def config(method: str = "edge_popup", prune_rate: float = 0.5, seed: int = 0, **parts: Any) -> Config:
    made = Config(
        model=Model(name="conv2"),
        init=Init(name=InitName.signed_constant),
        data=Data(name=DataName.digits),
        pruning=Pruning(name=PruningName.layerwise),
        method=METHODS[method](),
        train=Train(lr=0.01 if method == "dense" else 0.1),
        tracker=Tracker(name=TrackerName.none),
        prune_rate=prune_rate,
        seed=seed,
    )
    return replace(made, **parts)


def queue(out: Path, what: Config) -> Path:
    folder = out / folder_name(what)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(as_dict(what)))
    return folder


def finish(out: Path, what: Config, top1: float, **changes: Any) -> Path:
    """A run folder as a finished run leaves it, with a last test accuracy of `top1`."""
    folder = queue(out, what)
    dense = what.method.name == "dense"
    density = 1.0 if dense else 1 - what.prune_rate
    accuracy = {"loss": 0.1, "top1": top1, "top5": 1.0}
    untrained = {"loss": 2.3, "top1": 0.125, "top5": 0.5}
    random = what.method.name == "random"
    last = {
        "epoch": 0 if random else 15,
        "train": None if random else accuracy,
        "validation": accuracy,
        "test": accuracy,
    }
    result = {
        "schema": 1,
        "name": folder.name,
        "projection": projection(what),
        "chance": 0.1,
        "untrained": {"unpruned": untrained, "first_mask": None if dense else {**untrained, "top1": 0.0625}},
        "last": last,
        "best": last,
        "collapsed": False,
        "dead_layer": None,
        "weights": 1000,
        "kept": round(1000 * density),
        "parameters": 1000,
        "density": density,
        "density_all": density,
        "layers": [{"name": "linear", "shape": [10, 100], "weights": 1000, "kept": round(1000 * density)}],
        "seconds": 4.0,
        "environment": {"host": "=cmd", "device": "cpu", "torch": "2.4"},
        **changes,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def attempt(folder: Path, owner: owners.Owner, state: str | None = None, message: str = "") -> Path:
    """The newest attempt at the run of `folder`, as `owner` leaves it that ended in `state`, or is at it."""
    number = 1 + max([0, *record.attempts(folder)])
    made = folder / "attempts" / str(number)
    made.mkdir(parents=True)
    (made / "claim.json").write_text(json.dumps(asdict(owner)))
    if state is not None:
        claims.end(made, state, message)
    return made


def me() -> owners.Owner:
    return owners.this_process("test", silent_seconds=90)


def dead() -> owners.Owner:
    """A process of this machine that has ended."""
    return replace(me(), started="0")


def fail(out: Path, what: Config, error: str) -> Path:
    folder = queue(out, what)
    failed = attempt(folder, me(), "failed", error)
    (failed / "error.txt").write_text(f"Traceback (most recent call last):\n  ...\n{error}\n\n")
    return folder


def by_method(lines: list[Line]) -> dict[str | None, Line]:
    return {line.method: line for line in lines}


def printed(lines: list[Line], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(lines))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


# Reading run folders


def test_a_folder_tells_its_state(tmp_path: Path) -> None:
    done = finish(tmp_path, config(seed=0), 0.9)
    failed = fail(tmp_path, config(seed=1), "RuntimeError: out of memory")
    stopped, waiting, running, killed, told = (queue(tmp_path, config(seed=seed)) for seed in range(2, 7))
    attempt(stopped, me(), "interrupted", "stopped and saved in epoch 1 after batch 3")
    attempt(running, dead(), "failed", "ValueError: no")
    attempt(running, me())
    attempt(killed, dead())
    attempt(told, dead(), "lost", "the process of the run died of SIGKILL (out of memory?)")
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / "results.csv").touch()

    states = {run.name: (run.state, run.error) for run in read_runs(tmp_path)}
    assert states == {
        done.name: ("done", ""),
        failed.name: ("failed", "RuntimeError: out of memory"),
        stopped.name: ("interrupted", ""),
        waiting.name: ("queued", ""),
        running.name: ("running", ""),
        killed.name: ("lost", f"the process of the run died ({dead()})"),
        told.name: ("lost", "the process of the run died of SIGKILL (out of memory?)"),
    }
    assert list(states) == sorted(states)


def test_a_run_says_what_it_is_and_how_accurate(tmp_path: Path) -> None:
    run = read_run(finish(tmp_path, config(), 0.9))
    assert (run.method, run.test_top1, run.untrained_top1) == ("edge_popup", 0.9, 0.0625)
    assert read_run(finish(tmp_path, config("dense"), 0.98)).untrained_top1 == 0.125
    waiting = read_run(queue(tmp_path, config(seed=1)))
    assert (waiting.method, waiting.test_top1) == ("edge_popup", None)
    assert waiting.projection == projection(config(seed=1))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", "model: [", "config.yaml: "),
        ("config.yaml", "", "config.yaml: holds no settings"),
        ("config.yaml", "model: 3", "config.yaml: 3 is no Model"),
        ("config.yaml", "modl: {}", "config.yaml: 'modl' is no setting of Config"),
        ("config.yaml", "init: {name: signed}", "config.yaml: 'signed' is no InitName"),
        ("config.yaml", "method: {name: lottery}", "config.yaml: 'lottery' is no"),
        ("result.json", '{"last": ', "result.json: "),
        ("result.json", "[]", "result.json: holds no settings"),
        ("result.json", '{"last": null}', "result.json: has no test accuracy"),
    ],
)
def test_a_folder_that_cannot_be_read_is_a_failed_run(tmp_path: Path, file: str, content: str, message: str) -> None:
    finish(tmp_path, config(seed=1), 0.9)
    folder = queue(tmp_path, config())
    (folder / file).write_text(content)

    broken = read_run(folder)
    assert broken.state == "failed"
    assert message in broken.error
    assert "\n" not in broken.error
    assert sum(line.n for line in summarise(read_runs(tmp_path))) == 1
    assert read_csv(write_results(tmp_path))[folder.name]["state"] == "failed"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = queue(tmp_path, config())
    (folder / "config.yaml").write_bytes(b"\xff\xfe\x00")
    assert read_run(folder).state == "failed"


# The table


def test_seeds_make_a_line(tmp_path: Path) -> None:
    for seed, top1 in enumerate([0.90, 0.92, 0.94]):
        finish(tmp_path, config(seed=seed), top1)
    finish(tmp_path, config(prune_rate=0.9), 0.5)

    half, high = summarise(read_runs(tmp_path))
    assert (half.prune_rate, half.density, half.n, half.state, half.seconds) == (0.5, 0.5, 3, "done", 4.0)
    assert half.settings == {}
    assert half.mean == pytest.approx(0.92)
    assert half.std == pytest.approx(0.02)
    assert (half.untrained, half.chance) == (0.0625, 0.1)
    assert (high.prune_rate, high.n, high.mean, high.std) == (0.9, 1, 0.5, None)


def test_failed_and_missing_runs_are_counted(tmp_path: Path) -> None:
    finish(tmp_path, config(seed=0), 0.90)
    finish(tmp_path, config(seed=1), 0.94)
    fail(tmp_path, config(seed=2), "ValueError: no")
    queue(tmp_path, config(seed=3))
    fail(tmp_path, config(prune_rate=0.7), "ValueError: no")

    some, none = summarise(read_runs(tmp_path))
    assert (some.n, some.state) == (2, "2 done, 1 failed, 1 queued")
    assert some.mean == pytest.approx(0.92)
    assert (none.n, none.mean, none.std, none.seconds, none.state) == (0, None, None, None, "1 failed")


def test_collapsed_runs_count_and_are_counted(tmp_path: Path) -> None:
    finish(tmp_path, config(seed=0), 0.90)
    folder = finish(tmp_path, config(seed=1), 0.10, collapsed=True, dead_layer="fc2")
    fail(tmp_path, config(seed=2), "ValueError: no")
    finish(tmp_path, config("dense"), 0.10, collapsed=True)
    (dense, line) = summarise(read_runs(tmp_path))
    assert (line.n, line.state, line.collapsed) == (2, "2 done, 1 failed, 1 collapsed", (False, True))
    assert line.mean == pytest.approx(0.5)
    assert dense.state == "done, 1 collapsed"
    row = read_csv(write_results(tmp_path))[folder.name]
    assert (row["state"], row["collapsed"], row["dead_layer"]) == ("done", "true", "fc2")
    texts = svg_texts(draw(read_runs(tmp_path), tmp_path / "figure")[1])
    assert "digits · conv2 · signed_constant · n = 1 to 2 · 2 collapsed" in texts
    assert any(text.endswith("Hollow: collapsed.") for text in texts)


def test_runs_of_a_version_that_did_not_look_for_collapse(tmp_path: Path) -> None:
    folder = finish(tmp_path, config(), 0.10)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({k: v for k, v in result.items() if k != "collapsed"}))
    (line,) = summarise(read_runs(tmp_path))
    assert (line.state, line.collapsed) == ("done", (False,))
    assert read_csv(write_results(tmp_path))[folder.name]["collapsed"] == ""


def test_dense_is_one_line_without_a_rate(tmp_path: Path) -> None:
    for seed in (0, 1):
        finish(tmp_path, config("dense", seed=seed), 0.98)
        for rate in (0.1, 0.5):
            finish(tmp_path, config(prune_rate=rate, seed=seed), 0.9)
    lines = summarise(read_runs(tmp_path))
    assert [(line.settings, line.prune_rate, line.n) for line in lines] == [
        ({"method": "dense"}, None, 2),
        ({"method": "edge_popup"}, 0.1, 2),
        ({"method": "edge_popup"}, 0.5, 2),
    ]
    assert lines[0].density == 1
    assert lines[0].untrained == 0.125


def test_two_folders_of_one_run_count_once(tmp_path: Path) -> None:
    finish(tmp_path, config(seed=0), 0.9)
    # seed=1 with every own seed 0 is the run of seed=0; here in a folder that somebody renamed.
    zero = Seeds(weights=0, scores=0, data=0, split=0)
    folder = fail(tmp_path / "elsewhere", config(seed=1, seeds=zero), "ValueError: no")
    folder.rename(tmp_path / "renamed")
    (line,) = summarise(read_runs(tmp_path))
    assert (line.n, line.state) == (1, "done")


def test_settings_that_vary_are_columns(tmp_path: Path) -> None:
    for lr in (0.05, 0.1):
        finish(tmp_path, config(train=Train(lr=lr)), 0.9)
        finish(tmp_path, config(train=Train(lr=lr), model=Model(name="conv4", width=2)), 0.9)
    finish(tmp_path, config("random"), 0.1)
    settings = [line.settings for line in summarise(read_runs(tmp_path))]
    assert settings == [
        {"model": "conv2", "width": 1.0, "method": "edge_popup", "lr": 0.05},
        {"model": "conv2", "width": 1.0, "method": "edge_popup", "lr": 0.1},
        {"model": "conv2", "width": 1.0, "method": "random", "lr": None},
        {"model": "conv4", "width": 2.0, "method": "edge_popup", "lr": 0.05},
        {"model": "conv4", "width": 2.0, "method": "edge_popup", "lr": 0.1},
    ]


def test_a_setting_that_each_method_has_its_own_default_of_is_no_column(tmp_path: Path) -> None:
    for method in METHODS:
        finish(tmp_path, config(method), 0.9)
    lines = summarise(read_runs(tmp_path))
    assert [line.settings for line in lines] == [{"method": name} for name in sorted(METHODS)]


def test_the_name_of_a_part_goes_before_its_settings(tmp_path: Path) -> None:
    for name in PruningName:
        finish(tmp_path, config(pruning=Pruning(name=name)), 0.9)
    lines = summarise(read_runs(tmp_path))
    assert [line.settings for line in lines] == [{"pruning": "global"}, {"pruning": "layerwise"}]


def test_names_that_collide_are_kept_whole() -> None:
    assert short_names(["model.name", "train.lr", "init.mode", "method.mode"]) == {
        "model.name": "model",
        "train.lr": "lr",
        "init.mode": "init.mode",
        "method.mode": "method.mode",
    }


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_reads_as_plain_text(tmp_path: Path, width: int) -> None:
    for seed, top1 in enumerate([0.90, 0.92, 0.94]):
        finish(tmp_path, config(seed=seed), top1)
    finish(tmp_path, config("dense"), 0.98125)
    fail(tmp_path, config("dense", seed=1), "ValueError: no")
    text = printed(summarise(read_runs(tmp_path)), width)
    assert all(len(line) <= width for line in text.splitlines())
    rows = [line.split() for line in text.splitlines()]
    assert ["edge_popup", "0.5", "0.5000", "6.25", "92.00", "2.00", "3", "4.0", "done"] in rows
    assert any(row[:8] == ["dense", "-", "1.0000", "12.50", "98.12", "-", "1", "4.0"] for row in rows)


def test_a_table_of_no_runs() -> None:
    assert "density" in printed(summarise([]), 100)


# results.csv


def test_results_has_a_row_a_run(tmp_path: Path) -> None:
    done = finish(tmp_path, config(prune_rate=0.1 + 0.2, seed=4), 0.9)
    dense, random = finish(tmp_path, config("dense"), 0.98), finish(tmp_path, config("random"), 0.1)
    failed = fail(tmp_path, config(seed=1), "-x, \"y\": '=SUM(A1)' é")
    path = write_results(tmp_path)
    assert path == tmp_path / "results.csv"
    rows = read_csv(path)
    assert list(rows) == sorted([done.name, dense.name, random.name, failed.name])

    row = rows[done.name]
    assert list(row) == COLUMNS
    expected = {
        "state": "done",
        "data": "digits",
        "model": "conv2",
        "width": "1.0",
        "init": "signed_constant",
        "scale": "none",
        "method": "edge_popup",
        "pruning": "layerwise",
        "prune_rate": "0.3",
        "seed": "4",
        "seed_scores": "4",
        "epochs": "15",
        "lr": "0.1",
        "nesterov": "false",
        "milestones": "",
        "chance": "0.1",
        "untrained_top1": "0.125",
        "first_mask_top1": "0.0625",
        "last_epoch": "15",
        "last_test_top1": "0.9",
        "collapsed": "false",
        "dead_layer": "",
        "best_test_top1": "0.9",
        "weights": "1000",
        "host": "'=cmd",
        "device": "cpu",
        "torch": "2.4",
        "error": "",
    }
    assert {column: row[column] for column in expected} == expected

    columns = ["prune_rate", "pruning", "density", "epochs", "first_mask_top1", "last_train_top1"]
    assert [rows[dense.name][column] for column in columns] == ["", "", "1.0", "15", "", "0.98"]
    assert [rows[random.name][column] for column in columns] == ["0.5", "layerwise", "0.5", "", "0.0625", ""]
    assert [rows[failed.name][column] for column in columns] == ["0.5", "layerwise", "", "15", "", ""]
    assert (rows[failed.name]["state"], rows[failed.name]["last_test_top1"]) == ("failed", "")
    assert rows[failed.name]["error"] == "'-x, \"y\": '=SUM(A1)' é"


def test_results_are_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("old " * 100)
    assert read_csv(write_results(tmp_path)) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("@x", "'@x"),
        ("-x", "'-x"),
        ("\t=x", "'\t=x"),
        ("-0.5", "-0.5"),
        (-0.5, "-0.5"),
        (1e-7, "1e-07"),
        (0.1 + 0.2, "0.30000000000000004"),
        (True, "true"),
        ([5, 10], "[5, 10]"),
        (None, ""),
    ],
)
def test_cells_are_no_formulas(value: Any, text: str) -> None:
    assert cell(value) == text


# The figure


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


def svg_texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


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
