"""method=imp: the chain of its rounds, the mask and weights with which a round begins, and resumes in each round."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.methods import config_of
from helpers.runs import QUIET, assert_same_run, interrupt, rows_without_times, small, trained, with_parents
from torch import Tensor, nn

import hidden_subnet as hs
from hidden_subnet.config.chains import ancestors
from hidden_subnet.config.checks import problems
from hidden_subnet.config.identity import folder_name, id_of
from hidden_subnet.config.settings import Config, Pruning, Scale
from hidden_subnet.masks.layers import mask_layers
from hidden_subnet.masks.topk import kept_count
from hidden_subnet.methods.imp import Imp, ImpSettings
from hidden_subnet.store import files
from hidden_subnet.sweep.execute import RunObserver, execute

# The chain

CHAINS = [
    (0.0, 0.2, []),
    (1e-9, 0.2, [0.0]),
    (0.1, 0.2, [0.0]),
    (0.2, 0.2, [0.0]),
    (0.36, 0.2, [0.0, 0.2]),
    (0.488, 0.2, [0.0, 0.2, 0.36]),
    (0.48800000000000004, 0.2, [0.0, 0.2, 0.36]),
    (0.5, 0.5, [0.0]),
    (0.75, 0.5, [0.0, 0.5]),
    (0.9, 0.5, [0.0, 0.43765867481, 0.683772233983, 0.822172058996]),
    (0.99, 0.9, [0.0, 0.9]),
]


@pytest.mark.parametrize(("prune_rate", "per_round", "rates"), CHAINS)
def test_a_chain_keeps_the_same_part_in_each_round(prune_rate: float, per_round: float, rates: list[float]) -> None:
    chain = ancestors(config_of("imp", prune_rate=prune_rate, per_round=per_round))
    assert [config.prune_rate for config in chain] == rates


@pytest.mark.parametrize("per_round", [0.1, 0.2, 0.5])
def test_two_targets_of_one_ladder_share_its_rounds(per_round: float) -> None:
    ladder = [float(f"{1 - (1 - per_round) ** count:.12g}") for count in range(30)]
    for count, rate in enumerate(ladder):
        chain = ancestors(config_of("imp", prune_rate=rate, per_round=per_round))
        assert [config.prune_rate for config in chain] == ladder[:count]


def test_a_rate_of_few_digits_needs_no_further_round() -> None:
    assert [len(ancestors(config_of("imp", prune_rate=rate))) for rate in (0.79, 0.79028, 0.79029, 0.8)] == [7, 7, 7, 8]


def test_rates_of_layers_have_rounds_too() -> None:
    config = config_of("imp", prune_rate=0.2, per_round=0.5)
    chain = ancestors(replace(config, pruning=Pruning(name="layerwise", rates={"fc*": 0.75})))
    assert [config.pruning.rates for config in chain] == [{}, {"fc*": 0.5}]
    assert [config.prune_rate for config in chain] == [0.0, pytest.approx(1 - 0.8**0.5)]


def test_the_parent_of_a_forced_run_is_not_forced() -> None:
    [root] = ancestors(replace(config_of("imp", prune_rate=0.2), force=True))
    assert not root.force


@pytest.mark.parametrize(
    ("config", "typed"),
    [
        (replace(config_of("imp"), init=replace(config_of("imp").init, scale=Scale.density)), "init.scale=none"),
        (config_of("imp", rewind_epochs=16), "method.rewind_epochs=15"),
    ],
)
def test_what_a_chain_cannot_do_is_refused(config: Config, typed: str) -> None:
    [line] = problems(config)
    assert line.endswith(typed)


# The first mask and the first weights of a round

LAST = torch.tensor([[0.1, -0.9, 0.3, 0.4], [0.5, 0.2, -0.8, 0.0]])
ALL = torch.ones(2, 4)


def started(prune_rate: float, kept: Tensor, **settings: Any) -> tuple[Tensor, Tensor, list[str | int]]:
    """Return scores and weights of a layer of 8 weights after `start_from`, and the checkpoints that it has read."""
    network = nn.Sequential(nn.Linear(4, 2, bias=False))
    mask_layers(network, dense=())
    method = Imp(network, config_of("imp", prune_rate=prune_rate, per_round=0.5, **settings))
    read: list[str | int] = []

    def checkpoint(name: str | int) -> dict[str, Tensor]:
        read.append(name)
        weight = LAST if name == "last" else torch.full((2, 4), float(name) if isinstance(name, int) else 0.5)
        return {"0.weight": weight, "0.scores": kept}

    method.start_from(checkpoint)
    [(_, layer)] = method.layers
    return layer.scores.detach(), layer.weight.detach(), read


@pytest.mark.parametrize(
    ("prune_rate", "kept", "expected"),
    [
        (0.5, ALL, [[0, 1, 0, 1], [1, 0, 1, 0]]),
        (0.25, ALL, [[0, 1, 1, 1], [1, 1, 1, 0]]),
        (0.75, torch.tensor([[1.0, 0, 1, 1], [1, 0, 0, 0]]), [[0, 0, 0, 1], [1, 0, 0, 0]]),
        # A weight that is 0 after training still goes before those that the parent has removed.
        (0.75, torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 1]]), [[0, 0, 0, 0], [0, 1, 0, 1]]),
    ],
)
def test_a_round_keeps_the_largest_of_what_its_parent_kept(
    prune_rate: float, kept: Tensor, expected: list[list[int]]
) -> None:
    scores, _, _ = started(prune_rate, kept)
    assert scores.tolist() == expected


@pytest.mark.parametrize(
    ("prune_rate", "settings", "read", "value"),
    [
        (0.5, {}, ["last", "first"], 0.5),
        (0.75, {}, ["last", "first"], 0.5),
        (0.5, {"rewind_epochs": 3}, ["last", 3], 3.0),
        (0.75, {"rewind_epochs": 3}, ["last", "first"], 0.5),  # with which its parent began
        (0.5, {"learning_rate_rewinding": True}, ["last"], None),
    ],
)
def test_the_weights_are_those_of_the_right_checkpoint(
    prune_rate: float, settings: dict[str, Any], read: list[str | int], value: float | None
) -> None:
    scores, weights, found = started(prune_rate, ALL, **settings)
    assert found == read
    assert torch.equal(weights, LAST if value is None else torch.full((2, 4), value))
    assert int(scores.sum()) == kept_count(8, prune_rate)


# Whole chains


def chain(out: Path, prune_rate: float = 0.488, pruning: str = "layerwise", **settings: Any) -> list[Config]:
    config = replace(small(out, "imp", lr=0.03), prune_rate=prune_rate, method=ImpSettings(**settings))
    config = replace(config, pruning=Pruning(name=pruning))
    return [*ancestors(config), config]


def folder(config: Config) -> Path:
    return files.folder_of(config)


@pytest.mark.parametrize("pruning", ["layerwise", "global", "erk", "balanced"])
def test_masks_nest(pruning: str, tmp_path: Path) -> None:
    runs = chain(tmp_path, pruning=pruning)
    with_parents(runs[-1])
    execute(runs[-1], QUIET)
    masks = [hs.load_masks(folder(run)) for run in runs]
    assert all(bool(mask.all()) for mask in masks[0].values())
    for run, before, after in zip(runs[1:], masks, masks[1:], strict=False):
        assert all(bool((before[path] | ~after[path]).all()) for path in after)
        kept = sum(int(mask.sum()) for mask in after.values())
        assert kept == pytest.approx((1 - run.prune_rate) * 6088, abs=3)
        for path, mask in hs.load_masks(folder(run), "first").items():
            assert torch.equal(mask, after[path])  # it never changes


@pytest.mark.parametrize(
    ("settings", "source"),
    [({}, "first"), ({"rewind_epochs": 2}, "epoch_2"), ({"learning_rate_rewinding": True}, "")],
)
def test_every_round_begins_with_the_rewound_weights(settings: dict[str, Any], source: str, tmp_path: Path) -> None:
    runs = chain(tmp_path, 0.36, **settings)
    execute(runs[-1], QUIET)
    for parent, run in pairwise(runs):
        begun, wanted = trained(folder(run), "first"), trained(folder(runs[0] if source else parent), source or "last")
        assert begun.keys() == wanted.keys()
        assert all(torch.equal(begun[name], wanted[name]) for name in begun if name.endswith("weight"))
    rates = [[row["lr"] for row in rows_without_times(folder(run)) if "lr" in row] for run in runs]
    assert rates[1] == rates[2] == rates[0]  # the schedule starts again


def test_the_dense_network_is_that_of_method_dense(tmp_path: Path) -> None:
    [root] = chain(tmp_path, 0.0)
    dense = execute(small(tmp_path, "dense", lr=0.03), QUIET).folder
    ours = trained(execute(root, QUIET).folder)
    assert all(torch.equal(value, ours[name]) for name, value in trained(dense).items())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"rewind_epochs": 1}, {"learning_rate_rewinding": True}])
def test_a_chain_that_is_interrupted_in_every_round_has_the_same_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    whole, cut = chain(tmp_path / "whole", 0.36, **settings), chain(tmp_path / "cut", 0.36, **settings)
    execute(whole[-1], QUIET)
    for run, other in zip(cut, whole, strict=True):
        for steps in (1, 4, 5):
            interrupt(run, steps)
        assert execute(run, QUIET).state == "done"
        assert_same_run(folder(run), folder(other))


def test_a_result_names_its_parent(tmp_path: Path) -> None:
    root, run = chain(tmp_path, 0.2)
    execute(run, QUIET)
    found = [files.read_result(folder(each)) for each in (root, run)]
    assert "parent" not in (found[0] or {})
    assert (found[1] or {})["parent"] == {"name": folder_name(root), "id": id_of(root)}


# Single runs


def test_a_single_run_first_executes_what_is_missing_of_its_chain(tmp_path: Path) -> None:
    said: list[str] = []
    observer = RunObserver(QUIET.on_row, QUIET.on_step, said.append)
    *before, run = chain(tmp_path)
    execute(before[0], QUIET)
    assert execute(run, observer).state == "done"
    missing = [line for line in said if "starts from" in line]
    assert missing == [
        f"{folder_name(run)} starts from {folder_name(each)}, which is not done and runs first ({number} of 2)"
        for number, each in enumerate(before[1:], 1)
    ]
    said.clear()
    assert execute(run, observer).state == "skipped"
    assert execute(replace(run, force=True), observer).state == "done"
    assert not [line for line in said if "starts from" in line]  # they are done, and are not run again


def test_a_run_whose_parent_fails_does_not_start(tmp_path: Path) -> None:
    run = chain(tmp_path, 0.36)[-1]
    run = replace(run, train=replace(run.train, lr=1e30))
    outcome = execute(run, QUIET)
    root, first, _ = [*ancestors(run), run]
    assert (outcome.state, outcome.folder) == ("failed", folder(root))
    assert outcome.message == f"{folder_name(run)}: its parent {folder_name(root)} failed"
    assert not folder(first).exists()


@pytest.mark.slow
def test_it_resumes() -> None:
    hs.assert_resumes("method=imp", "init=kaiming_normal", prune_rate=0.36)
