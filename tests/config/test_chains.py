"""Chains of runs: the runs of a sweep with those from which they start, as a tree is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.methods import config_of

from hidden_subnet.config.chains import ancestors, chained, parent_of
from hidden_subnet.config.convert import as_dict
from hidden_subnet.config.identity import folder_name, projection
from hidden_subnet.config.settings import Config
from hidden_subnet.report.results import row
from hidden_subnet.store.read import Run


def imp(prune_rate: float, seed: int = 0) -> Config:
    return replace(config_of("imp", prune_rate=prune_rate, per_round=0.5), seed=seed)


@pytest.mark.parametrize(
    ("asked", "tree"),
    [
        ([(0.0, 0)], [(0, 0.0, 0)]),
        ([(0.75, 0)], [(0, 0.0, 0), (1, 0.5, 0), (2, 0.75, 0)]),
        ([(0.75, 0), (0.5, 0)], [(0, 0.0, 0), (1, 0.5, 0), (2, 0.75, 0)]),
        ([(0.5, 1), (0.4, 0), (0.5, 0)], [(0, 0.0, 1), (1, 0.5, 1), (0, 0.0, 0), (1, 0.4, 0), (1, 0.5, 0)]),
        # Those of one parent stand together, and those of a seed.
        (
            [(0.5, 0), (0.5, 1), (0.4, 0), (0.75, 0)],
            [(0, 0.0, 0), (1, 0.5, 0), (2, 0.75, 0), (1, 0.4, 0), (0, 0.0, 1), (1, 0.5, 1)],
        ),
    ],
)
def test_every_run_stands_behind_its_parent_once(
    asked: list[tuple[float, int]], tree: list[tuple[int, float, int]]
) -> None:
    links = chained([imp(*each) for each in asked])
    assert [(link.depth, link.config.prune_rate, link.config.seed) for link in links] == tree
    for link in links:
        parent = parent_of(link.config)
        assert link.parent == (None if parent is None else folder_name(parent))


def test_runs_without_parents_stay_as_they_are() -> None:
    configs = [config_of("dense"), config_of("edge_popup"), replace(config_of("dense"), seed=1)]
    assert [link.config for link in chained(configs)] == configs
    assert ancestors(configs[0]) == []
    mixed = chained([configs[0], imp(0.5), configs[1]])
    assert [(link.config.method.name, link.depth) for link in mixed] == [
        ("dense", 0), ("imp", 0), ("imp", 1), ("edge_popup", 0)
    ]  # fmt: skip


def test_the_columns_of_a_run_are_its_own_and_not_those_of_its_search(compose: Callable[..., Config]) -> None:
    config = compose("method=finetune", "mask=edge_popup", "prune_rate=0.9")
    run = Run(Path("run"), as_dict(config), projection(config), None, "queued")
    values = row(run)
    assert (values["method"], values["lr"], values["prune_rate"]) == ("finetune", 0.03, 0.9)
    assert (values["search_method"], values["search_lr"]) == ("edge_popup", 0.1)
