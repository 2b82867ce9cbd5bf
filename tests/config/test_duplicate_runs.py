"""A sweep over what a method does not use says so."""

from collections.abc import Callable

from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.settings import Config
from hydra_plugins.hidden_subnet.duplicate_runs import duplicate_runs

Compose = Callable[..., Config]


def said(compose: Compose, *jobs: list[str]) -> list[str]:
    groups: dict[str, list[Config]] = {}
    for job in jobs:
        config = compose(*job)
        groups.setdefault(folder_name(config), []).append(config)
    return duplicate_runs(groups.values())


def test_the_setting_and_the_method_are_named(compose: Compose) -> None:
    rates = [f"prune_rate={rate}" for rate in (0.1, 0.5, 0.9)]
    jobs = [[method, rate, seed] for method in ("method=sampled", "method=edge_popup", "method=dense") for rate in rates
            for seed in ("seed=0", "seed=1")]  # fmt: skip
    assert said(compose, *jobs) == [
        "prune_rate does not matter to method=sampled: 6 combinations are 2 runs",
        "prune_rate does not matter to method=dense: 6 combinations are 2 runs",
    ]
    assert said(compose, *jobs[:1], *jobs[2:3]) == [
        "prune_rate does not matter to method=sampled: 2 combinations are 1 run"
    ]


def test_several_settings_and_none(compose: Compose) -> None:
    ramp = ["method=random", "pruning.ramp_epochs=3", "train.lr=0.3"]
    assert said(compose, ["method=random"], ramp) == [
        "pruning.ramp_epochs, train.lr do not matter to method=random: 2 combinations are 1 run"
    ]
    [line] = said(compose, ["prune_rate=0.3"], ["prune_rate=0.30000000000000004"])
    assert line == "method=edge_popup: 2 combinations are 1 run; the others are the same settings, written differently"
    assert said(compose, ["prune_rate=0.3"], ["prune_rate=0.4"]) == []
