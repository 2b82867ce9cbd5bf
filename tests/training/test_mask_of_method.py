"""mask=<method>: the search of a mask as the parent of the run that builds on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.runs import QUIET, interrupt, rows_without_times, trained

import hidden_subnet as hs
from hidden_subnet.config.convert import from_dict
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.parents import search_of
from hidden_subnet.config.settings import Config
from hidden_subnet.config.unused import unused_lines
from hidden_subnet.errors import ConfigError
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import execute

Compose = Callable[..., Config]
SMALL = ["data=synthetic", "model.width=0.125", "train.epochs=2", "tracker=none"]


@pytest.mark.parametrize("method", ["finetune", "fixed", "edge_popup", "gem_miner"])
@pytest.mark.parametrize("search", ["edge_popup", "sampled", "gem_miner", "dnw", "random", "imp"])
def test_the_search_is_the_run_of_that_method(compose: Compose, method: str, search: str) -> None:
    words = ["init=kaiming_normal", "prune_rate=0.9", "pruning=global", "seed=3", "train.epochs=4", "data.crop=2"]
    found = search_of(compose(f"method={method}", f"mask={search}", *words))
    assert found is not None
    assert folder_name(found) == folder_name(compose(f"method={search}", *words))


def test_what_the_search_uses_is_part_of_the_id(compose: Compose) -> None:
    ids = []
    for method in ("finetune", "fixed"):
        plain = ["data=synthetic", f"method={method}", "mask=edge_popup"]
        for word in ("", "prune_rate=0.9", "pruning=global", "seeds.scores=1", "train.epochs=3", "mask=random"):
            config = compose(
                *[each for each in plain if each.split("=")[0] != word.split("=")[0]], *[word] * bool(word)
            )
            ids.append(folder_name(config))
            assert folder_name(from_dict(files.portable(config))) == ids[-1]  # as workers read it
    assert len(set(ids)) == len(ids)
    same = [folder_name(compose("method=fixed", "mask=edge_popup", f"train.lr={lr}")) for lr in (0.1, 0.2)]
    assert same[0] == same[1]  # the search has its own, and nothing else is trained
    mine = compose("method=edge_popup", "mask=edge_popup")
    assert projection(mine) != projection(compose("method=edge_popup"))


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["method=finetune", "mask=edge_popup", "prune_rate=0.9", "seeds.scores=1"], []),
        (["method=finetune", "mask=sampled", "prune_rate=0.9"], ["prune_rate=0.9"]),
        (["method=fixed", "mask=edge_popup", "train.epochs=3"], []),
        (["method=fixed", "mask=edge_popup", "train.lr=0.2"], ["train.lr=0.2"]),
    ],
)
def test_what_neither_uses_is_told(compose: Compose, words: list[str], lines: list[str]) -> None:
    assert [line.split(" changes nothing")[0] for line in unused_lines([compose(*words)], words)] == lines


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["method=finetune", "mask=dense"], "mask=dense: method=dense masks nothing; as in: mask=runs/digits-conv2"),
        (
            ["method=finetune", "mask=fixed"],
            "mask=fixed: method=fixed needs a mask itself; as in: mask=runs/digits-conv2",
        ),
        (["method=dnw", "mask=random", "init=kaiming_normal"], "mask=random: method=dnw finds its own mask"),
        (["method=finetune", "mask=magnitude", "train.epochs=3"], "method.weight_epochs=6: must be below"),
    ],
)
def test_what_finds_no_mask_is_refused(compose: Compose, words: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(*words)
    assert str(error.value).startswith(why)


def test_a_run_in_a_folder_of_that_name_is_that_run(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = execute(compose(*SMALL, "method=random", f"out={tmp_path}"), QUIET).folder
    folder.rename(tmp_path / "edge_popup")
    config = compose(*SMALL, "method=finetune", "mask=edge_popup")
    assert config.mask == str(tmp_path / "edge_popup")
    assert config.mask_sha256 is not None


def test_the_run_builds_on_the_mask_that_was_found(compose: Compose, tmp_path: Path) -> None:
    words = [*SMALL, "method=finetune", "mask=edge_popup", "prune_rate=0.8"]
    whole = compose(*words, f"out={tmp_path / 'whole'}")
    outcome = execute(whole, QUIET)
    assert outcome.state == "done", outcome.message
    search = search_of(whole)
    assert search is not None
    found, mine = hs.load_masks(files.folder_of(search)), hs.load_masks(outcome.folder)
    assert all(torch.equal(mask, mine[path]) for path, mask in found.items())
    assert outcome.result is not None
    assert outcome.result["parent"]["name"] == folder_name(search)
    assert outcome.result["mask"]["from"] == folder_name(search)
    cut = replace(whole, out=str(tmp_path / "cut"))
    execute(replace(search, out=cut.out), QUIET)
    interrupt(cut, 3)
    again = execute(cut, QUIET).folder
    assert rows_without_times(again) == rows_without_times(outcome.folder)
    one, other = trained(again), trained(outcome.folder)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
