"""Run folders are read, summarised in a table of seeds, and written as a file of results."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import attempt, config, dead, fail, finish, me, printed, queue, read_csv, svg_texts

import hidden_subnet
from hidden_subnet.config.differences import flat, short_names
from hidden_subnet.config.identity import projection, settings_in_use
from hidden_subnet.config.registries import METHODS
from hidden_subnet.config.settings import Data, Model, Pruning, Seeds, Train
from hidden_subnet.report.figure import draw
from hidden_subnet.report.results import _IN_USE, FIRST, OUTCOME, cell, column, frame, row, write_results
from hidden_subnet.report.table import summarise
from hidden_subnet.store.read import Run, read_run, read_runs, until_settled

ROOT = Path(__file__).parents[2]


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


def test_an_older_view_does_not_stay_where_a_run_ends_while_it_is_written(tmp_path: Path) -> None:
    done = finish(tmp_path, config(seed=0), 0.9)
    waiting, broken = queue(tmp_path, config(seed=1)), queue(tmp_path, config(seed=2))
    seen: list[dict[str, str]] = []

    def write(runs: list[Run]) -> None:
        seen.append({run.name: run.state for run in runs})
        if len(seen) == 1:  # another command has seen these three end, and wrote before this one does
            (waiting / "result.json").write_bytes((done / "result.json").read_bytes())
            (broken / "result.json").write_text("{")
            finish(tmp_path, config(seed=3), 0.9)

    until_settled(tmp_path, read_runs(tmp_path), write)
    first, last = seen  # the damaged one is not waited for
    assert (len(first), first[waiting.name], first[broken.name]) == (3, "queued", "queued")
    assert last == {run.name: run.state for run in read_runs(tmp_path)}
    assert list(last.values()).count("done") == 3
    assert list(last) == sorted(last)


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
        ("config.yaml", "model: 3", "config.yaml: 3 does not hold the settings of Model"),
        ("config.yaml", "modl: {}", "config.yaml: 'modl' is not a setting of Config"),
        ("config.yaml", "init: {name: signed}", "config.yaml: init.name=signed: "),
        ("config.yaml", "method: {name: lottery}", "config.yaml: unknown method 'lottery'"),
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


def test_chance_is_the_largest_recorded_for_the_data(tmp_path: Path) -> None:
    """Results of 0.1.0 hold 1 / classes, later ones the share of the largest class of the test images."""
    finish(tmp_path, config(seed=0), 0.9)
    finish(tmp_path, config(seed=1), 0.9, chance=0.11)
    finish(tmp_path, config(prune_rate=0.9), 0.5)
    finish(tmp_path, config(data=Data(name="cifar100")), 0.5, chance=0.01)
    lines = summarise(read_runs(tmp_path))
    assert [(line.settings["data"], line.prune_rate, line.chance) for line in lines] == [
        ("cifar100", 0.5, 0.01), ("digits", 0.5, 0.11), ("digits", 0.9, 0.11)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "ramp_epochs", "expected"),
    [
        ({}, 0, 0.0625),
        ({"at_prune_rate": {"top1": 0.25}}, 3, 0.25),
        ({}, 3, None),  # of 0.1.0, whose first mask is that of pruning.start_rate
        ({"first_mask": {"loss": 2.3, "top1": 0.125, "top5": 0.5}}, 0, None),  # nothing removed: a dense phase
    ],
)
def test_untrained_is_at_the_prune_rate(
    changes: dict[str, Any], ramp_epochs: int, expected: float | None, tmp_path: Path
) -> None:
    folder = finish(tmp_path, config(pruning=Pruning(name="layerwise", ramp_epochs=ramp_epochs)), 0.9)
    result = json.loads((folder / "result.json").read_text())
    result["untrained"] |= changes
    (folder / "result.json").write_text(json.dumps(result))
    assert read_run(folder).untrained_top1 == expected


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
    assert "2 collapsed" in " ".join(texts)
    assert "Hollow: collapsed." in " ".join(texts)


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


def test_runs_under_masks_of_several_seeds_are_one_line(tmp_path: Path) -> None:
    """The mask of each is that of the search with its seed; two masks for the same seed are two lines."""
    parents = [f"/x/digits-conv2-edge_popup-signed_constant-pr0.9-s{seed}-{seed:012x}" for seed in range(3)]
    for seed, parent in enumerate(parents):
        mask = {"mask": f"{parent}/checkpoints/last.ckpt", "mask_sha256": f"{seed}" * 64}
        finish(tmp_path, config("finetune", seed=seed, **mask), 0.9)
    finish(tmp_path, config("finetune", seed=0, mask="/x/theirs.pt", mask_sha256="a" * 64), 0.8)
    lines = summarise(read_runs(tmp_path))
    assert [(line.settings["mask"], line.n) for line in lines] == [
        ("digits-conv2-edge_popup-signed_constant-pr0.9", 3),
        ("theirs.pt", 1),
    ]
    other = {"mask": f"{parents[0]}/checkpoints/best.ckpt", "mask_sha256": "b" * 64}
    finish(tmp_path, config("finetune", seed=0, **other), 0.7)
    found = {line.settings["mask"]: line.n for line in summarise(read_runs(tmp_path))}
    name = "digits-conv2-edge_popup-signed_constant-pr0.9"
    assert found == {
        f"{name}-000000": 1, f"{name}-111111": 1, f"{name}-222222": 1, f"{name}-bbbbbb": 1, "theirs.pt": 1,
    }  # fmt: skip


def test_masks_are_named_by_what_they_do_not_share(tmp_path: Path) -> None:
    for rate, seed in (("0.9", 0), ("0.97", 1)):
        parent = f"/x/digits-conv2-edge_popup-signed_constant-pr{rate}-s{seed}-{seed:012x}"
        given = {"mask": f"{parent}/checkpoints/last.ckpt", "mask_sha256": f"{seed}" * 64}
        finish(tmp_path, config("finetune", seed=seed, **given), 0.9)
    assert [line.settings["mask"] for line in summarise(read_runs(tmp_path))] == ["pr0.9", "pr0.97"]


def test_the_name_of_a_part_goes_before_its_settings(tmp_path: Path) -> None:
    for name in ("layerwise", "global"):
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
    same = {name for name in row if len({each[name] for each in rows.values()}) == 1}
    assert list(row)[:2] == ["name", "state"]
    assert {*list(row)[-len(same) :]} == same
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
        "norm": "batch_fixed",
        "temperature": "1.0",
        "fraction": "1.0",
        "ramp_epochs": "0",
        "pretrained": "none",
        "mask": "none",
        "precision": "fp32",
        "chance": "0.1",
        "unpruned_top1": "0.125",
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


def test_results_has_the_columns_and_rows_of_the_frame(tmp_path: Path) -> None:
    for seed in (0, 1):
        finish(tmp_path, config(seed=seed), 0.9)
        finish(tmp_path, config("dense", seed=seed), float("0.1"))
    (finish(tmp_path, config(seed=2), 0.8) / "config.yaml").write_text("seed: x\n")
    fail(tmp_path, config("random"), 'a "quoted", long\nerror')
    table = frame(read_runs(tmp_path)).map(cell).to_csv(index=False, lineterminator="\n")
    assert write_results(tmp_path).read_text() == table


@pytest.mark.parametrize("seed", ["3", "0", "True", "1.0", "'4'", "null"])
def test_a_row_has_the_seed_of_its_run(tmp_path: Path, seed: str) -> None:
    settings = finish(tmp_path, config(), 0.9) / "config.yaml"
    settings.write_text(settings.read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    [run] = read_runs(tmp_path)
    _IN_USE.clear()
    alone = row(run)
    _IN_USE.clear()
    row(replace(run, settings={**run.settings, "seed": 0}))  # is remembered
    assert repr(row(run)) == repr(alone)


def test_an_empty_cell_never_means_a_default(tmp_path: Path) -> None:
    """A setting that a run does not use is empty; whatever it uses has its value, at its default too."""
    sampled = finish(tmp_path, config("sampled"), 0.9)
    other = finish(tmp_path, config(pruning=Pruning(name="layerwise", ramp_epochs=3, start_rate=0.2)), 0.9)
    plain, dense = finish(tmp_path, config(), 0.9), finish(tmp_path, config("dense"), 0.9)
    rows = read_csv(write_results(tmp_path))
    used = {column(path) for path in flat(settings_in_use(config())) if path != "seeds"}
    assert [name for name in used if rows[plain.name][name] == ""] == []
    shown = ["prune_rate", "ramp_epochs", "start_rate", "method_penalty", "first_layer"]
    assert [[rows[folder.name][name] for name in shown] for folder in (plain, other, dense, sampled)] == [
        ["0.5", "0", "", "", "masked"],
        ["0.5", "3", "0.2", "", "masked"],
        ["", "", "", "", ""],
        ["", "", "", "0.0", "masked"],
    ]


def test_results_of_a_run_of_another_version(tmp_path: Path) -> None:
    """Its config.yaml cannot be read here; its result has what makes up its id."""
    folder = finish(tmp_path, config(), 0.9)
    with (folder / "config.yaml").open("a") as file:
        file.write("later: 1\n")
    row = read_csv(write_results(tmp_path))[folder.name]
    assert (row["state"], row["model"], row["lr"], row["last_test_top1"]) == ("done", "conv2", "0.1", "0.9")


def test_results_as_a_data_frame(tmp_path: Path) -> None:
    for seed, top1 in enumerate([0.90, 0.92, 0.94]):
        finish(tmp_path, config(seed=seed), top1)
    finish(tmp_path, config("dense"), 0.98)
    found = hidden_subnet.results(tmp_path)
    assert [str(found[name].dtype) for name in ("prune_rate", "epochs", "flip", "collapsed")] == [
        "Float64", "Int64", "boolean", "boolean",
    ]  # fmt: skip
    means = found.groupby(["method", "prune_rate"], dropna=False)["last_test_top1"].agg(["mean", "count"])
    assert means["mean"].tolist() == pytest.approx([0.98, 0.92])
    assert means["count"].tolist() == [1, 3]


def test_every_column_is_described(tmp_path: Path) -> None:
    finish(tmp_path, config(), 0.9)
    text = (ROOT / "docs" / "results.md").read_text()
    assert [name for name in [*FIRST, *OUTCOME, "seed", "error"] if f"`{name}`" not in text] == []


def test_columns_have_one_setting_each() -> None:
    paths = {path for method in METHODS for path in flat(settings_in_use(config(method)))}
    names = [column(path) for path in paths] + [*FIRST, *OUTCOME, "seed", "error"]
    assert len(names) == len(set(names))


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
