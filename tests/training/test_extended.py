"""extend=: a run that goes further from the end of another one, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs import QUIET, assert_same_run, interrupt, trained

import hidden_subnet
from hidden_subnet.cli.main import main
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.report.table import summarise
from hidden_subnet.store import checkpoints, files
from hidden_subnet.store.read import read_runs
from hidden_subnet.sweep.execute import RunObserver, execute

Compose = Callable[..., Config]
TINY = ("data=synthetic", "model=fc", "model.width=0.1", "train.epochs=2", "tracker=none")
METHODS = ["edge_popup", "sampled", "dense", "random_trained", "iterand", "magnitude"]


def ended(compose: Compose, out: Path, *arguments: str) -> Path:
    outcome = execute(compose(*TINY, *arguments, f"out={out}"), QUIET)
    assert outcome.state == "done", outcome.message
    return outcome.folder


@pytest.mark.parametrize("method", METHODS)
def test_it_begins_where_the_other_ended(method: str, compose: Compose, tmp_path: Path) -> None:
    own = [f"method={method}", *(["method.weight_epochs=1"] if method == "magnitude" else [])]
    parent = ended(compose, tmp_path, *own)
    config = compose(*TINY, *own, "train.epochs=3", f"extend={parent.name}", f"out={tmp_path}")
    said: list[str] = []
    outcome = execute(config, RunObserver(QUIET.on_row, QUIET.on_step, said.append))
    assert outcome.result is not None, outcome.message
    start, end = trained(outcome.folder, "first"), trained(parent, "last")
    assert start.keys() == end.keys()
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert outcome.result["extend"] == {"folder": str(parent), "sha256": config.extend_sha256}
    assert outcome.result["projection"]["extend"] == config.extend_sha256
    lr = config.train.lr
    assert (
        f"extend={parent.name}: starts from its scores and weights after epoch 2; "
        f"train.schedule=cosine begins again at train.lr={lr:g}, for 3 more"
    ) in said
    if method in ("edge_popup", "dense", "random_trained"):  # whose masks at epoch 0 are those of the end
        rows = [files.read_rows(folder) for folder in (outcome.folder, parent)]
        assert rows[0][0]["validation/loss"] == rows[1][-1]["validation/loss"]


def test_it_is_resumed_to_the_same_bits_and_loaded(compose: Compose, tmp_path: Path) -> None:
    parent = ended(compose, tmp_path / "runs")
    whole = ended(compose, tmp_path / "whole", f"extend={parent}")
    config = compose(*TINY, f"extend={parent}", f"out={tmp_path / 'broken'}")
    for steps in (1, 3, 2):
        interrupt(config, steps)
    broken = execute(config, QUIET).folder
    assert_same_run(broken, whole)
    images, labels = hidden_subnet.test_images(whole)
    right = (hidden_subnet.load(whole)(images).argmax(1) == labels).double().mean().item()
    assert right == (files.read_result(whole) or {})["last"]["test"]["top1"]


def test_the_id_holds_what_the_other_ended_with(compose: Compose, tmp_path: Path) -> None:
    first, same, other = (
        ended(compose, tmp_path / name, f"train.lr={lr}") for name, lr in (("a", 0.1), ("b", 0.1), ("c", 0.2))
    )
    names = [folder_name(compose(*TINY, f"extend={folder}")) for folder in (first, same, other)]
    assert names[0] == names[1] != names[2]
    assert names[0] != folder_name(compose(*TINY))
    assert "-extended-" in names[0]
    # Those of several seeds are on one line of the table.
    for seed in (0, 1):
        parent = ended(compose, tmp_path / "runs", f"seed={seed}", "train.epochs=1")
        ended(compose, tmp_path / "runs", f"seed={seed}", f"extend={parent}")
    lines = summarise(read_runs(tmp_path / "runs"))
    assert [line.n for line in lines] == [2, 2]
    # Figures have no point before training for a run that starts from trained scores.
    assert {line.settings["extend"] is None: len(line.before) for line in lines} == {True: 2, False: 0}


def test_a_run_that_another_one_extends_is_not_removed(
    compose: Compose, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parent = ended(compose, tmp_path)
    ended(compose, tmp_path, f"extend={parent}", "train.epochs=1")
    with pytest.raises(SystemExit) as end:
        main(["rm", parent.name, "--yes", "--out", str(tmp_path)])
    assert end.value.code != 0
    assert "extend=" in str(end.value.code) + capfd.readouterr().err + capfd.readouterr().out
    assert parent.is_dir()


def test_what_does_not_fit_is_one_line(compose: Compose, tmp_path: Path) -> None:
    parent = ended(compose, tmp_path)
    untrained = ended(compose, tmp_path, "method=random")
    masks = ended(compose, tmp_path, "checkpoint.keep=mask", "seed=1")
    given = (*TINY, f"extend={parent}", f"out={tmp_path}")
    assert compose(*given, "seed=0").extend == str(parent)  # a sweep composes what differs in its seed only from this
    wrong = [
        (
            ["model.width=0.2"],
            parent,
            r"has another network, .*\(model\.width 0\.1 there, 0\.2 here\).* model\.width=0\.1",
        ),
        (["seed=3"], parent, r"\(seeds\.weights 0 there, 3 here\)"),
        (
            ["method=sampled"],
            parent,
            r"method\.name edge_popup there, sampled here.* as in: extend=\S+ method=edge_popup",
        ),
        (["init=kaiming_normal"], parent, r" init=signed_constant$"),
        ([f"pretrained={parent}"], parent, r" pretrained=null$"),
        (["method=random"], untrained, "method=random trains nothing"),
        (["seed=1"], masks, r"keeps its masks alone .*; type: mask="),
        ([f"mask={parent}"], parent, "give one of them"),
        ([], parent / files.RESULT, "is a file; the folder of a finished run can be extended"),
        (["extend_sha256=00"], parent, "is another run than that of extend_sha256=00"),
    ]
    for arguments, folder, words in wrong:
        with pytest.raises(ConfigError) as error:
            compose(*TINY, *arguments, f"extend={folder}", f"out={tmp_path}")
        assert re.search(words, str(error.value)), (words, str(error.value))
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="name the run too; as in: extend=runs/digits-conv2 extend_sha256=00"):
        compose(*TINY, "extend_sha256=00")


def test_an_end_that_changes_behind_its_back_fails_the_run(compose: Compose, tmp_path: Path) -> None:
    parent = ended(compose, tmp_path)
    config = compose(*TINY, f"extend={parent}", f"out={tmp_path}")
    path = parent / "checkpoints" / files.LAST
    state = checkpoints.load(path)
    state["trained"]["fc1.scores"] += 1
    checkpoints.save(path, state)
    outcome = execute(config, QUIET)
    assert outcome.state == "failed"
    assert "ended otherwise when this run was composed" in outcome.message


def test_a_run_under_a_given_mask_is_extended_under_this_mask(compose: Compose, tmp_path: Path) -> None:
    search = ended(compose, tmp_path)
    parent = ended(compose, tmp_path, "method=finetune", f"mask={search}")
    longer = ended(compose, tmp_path, "method=finetune", f"extend={parent.name[-12:]}", "train.epochs=1")
    masks = [hidden_subnet.load_masks(folder) for folder in (search, longer)]
    assert all(torch.equal(masks[0][path], masks[1][path]) for path in masks[0])
