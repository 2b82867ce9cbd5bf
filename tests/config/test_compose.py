"""Jobs put together from what Hydra composed once are the jobs that Hydra composes, and fail as it fails."""

import random
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hidden_subnet.config.convert import as_dict, register
from hidden_subnet.config.identity import folder_name
from hydra_plugins.hidden_subnet.compose import Composer, compose_job
from hydra_plugins.hidden_subnet.errors import one_line
from hydra_plugins.hidden_subnet.grid_sweeper import expand, grids

ROOT = Path(__file__).parents[2]
CAUGHT = (HydraException, OmegaConfBaseException, ValueError)

GROUPS = {
    group: sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    for group in ("model", "init", "data", "method", "pruning", "train", "tracker")
}
# Of every type, spelt in every way; the last ones of a line are wrong, some in value and some in type.
VALUES = {
    "prune_rate": ["0.3", "0", "1e-3", "0.30000000000000004", "-0.0", "'0.5'", "1.5", "abc", "null"],
    "seed": ["3", "0", "'7'", "1.0", "-1", "x"],
    "train.lr": ["0.3", "1", "1e-5", "-1"],
    "train.epochs": ["3", "20", "0", "1.5"],
    "train.optimizer": ["adam", "sgd", "1", "sdg"],
    "train.nesterov": ["true", "False", "yes", "maybe"],
    "train.threads": ["2", "null", "0"],
    "train.milestones": ["[]", "[1,2]", "[2,1]", "3", "[a]", "null"],
    "train.schedule": ["cosine", "multistep", "constant"],
    "init.scale": ["density", "none"],
    "init.mode": ["fan_out", "fan_in"],
    "data.flip": ["true", "0"],
    "data.validation": ["0", "0.25", "1"],
    "model.width": ["0.5", "2", "0.001"],
    "model.name": ["fc", "'conv4'"],
    "method.name": ["dense", "edge_popup"],
    "tracker.tags": ["[a,b]", "[1,null]", "[]", "['x y','${seed}']"],
    "tracker.entity": ["null", "'null'", "12"],
    "seeds.data": ["4", "null"],
    "out": ["runs", "'a b'", "12", "runs/${seed}", "''"],
    "force": ["true"],
    "on_error": ["stop", "continue"],
    "pretrained": ["null", "nope.pt"],
    "mask": ["null", "nope.mask"],
    "extend": ["null", "nope"],
    "evaluate": ["null", "a/run"],
    "train.epoch": ["3"],
    "model": ["{name:fc,width:2}"],
    "+typo": ["1"],
    "++train.lr": ["0.7"],
    "~tracker": [""],
    "tracker.to.wandb": ["false", "true", "maybe"],
    "+tracker.to.tensorboard": ["true"],
}


@pytest.fixture(scope="module")
def context() -> HydraContext:
    register(ROOT / "sweeps")
    node = {"out": "elsewhere/${model.width}", "grids": [{"seed": [0, 1]}]}
    ConfigStore.instance().store(group="sweep", name="follows", node=node, package="_global_")
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    return HydraContext(config_loader=loader, callbacks=None)  # type: ignore[arg-type]


def master(context: HydraContext, *overrides: str) -> DictConfig:
    """Return what Hydra composes before it calls the sweeper."""
    from hydra.types import RunMode

    return context.config_loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def plain(context: HydraContext) -> DictConfig:
    return master(context)


@pytest.fixture(scope="module")
def shared(context: HydraContext, plain: DictConfig) -> Composer:
    """The composer of many jobs, as in a sweep."""
    return Composer(context, plain)


class CountingLoader:
    """Hydra's config loader; counts what it composes in full."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.composed = loader, 0

    def load_configuration(self, *given: Any) -> DictConfig:
        self.composed += 1
        composed: DictConfig = self.loader.load_configuration(*given)
        return composed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def counting(context: HydraContext) -> tuple[HydraContext, CountingLoader]:
    loader = CountingLoader(context.config_loader)
    return HydraContext(config_loader=loader, callbacks=None), loader  # type: ignore[arg-type]


def ends(work: "Composer | None", context: HydraContext, given: DictConfig, job: list[str]) -> tuple[str, object]:
    try:
        config = compose_job(context, given, job) if work is None else work.compose(job)
    except CAUGHT as error:
        return "error", one_line(error)
    return "config", (config, as_dict(config), repr(config), folder_name(config))


def random_job(source: random.Random) -> list[str]:
    groups = [
        f"{group}={source.choice(GROUPS[group])}" for group in source.sample(sorted(GROUPS), source.randint(0, 3))
    ]
    keys = [source.choice(sorted(VALUES)) for _ in range(source.randint(0, 4))]  # with repetition: the later wins
    lines = []
    for key in keys:
        # Mostly a value that is right, so that jobs are not all refused for one of many settings.
        value = source.choice(VALUES[key][: None if source.random() < 0.2 else 2])
        lines.append(key if key.startswith("~") else f"{key}={value}")
    job = groups + lines
    source.shuffle(job)
    return job


@pytest.mark.slow
def test_random_jobs_are_composed_as_hydra_composes_them(
    context: HydraContext, plain: DictConfig, shared: Composer
) -> None:
    source = random.Random(0)
    ended = []
    for _ in range(30):
        job = random_job(source)
        expected = ends(None, context, plain, job)
        assert ends(shared, context, plain, job) == expected, job
        ended.append(expected[0])
    assert min(ended.count("config"), ended.count("error")) > 6  # or the jobs prove little


@pytest.mark.parametrize(
    "key", [key if index % 5 == 0 else pytest.param(key, marks=pytest.mark.slow) for index, key in enumerate(VALUES)]
)
def test_every_value_alone_is_as_hydra_has_it(
    context: HydraContext, plain: DictConfig, shared: Composer, key: str
) -> None:
    for value in VALUES[key]:
        job = [key if key.startswith("~") else f"{key}={value}"]
        assert ends(shared, context, plain, job) == ends(None, context, plain, job), job


@pytest.mark.parametrize(
    ("job", "setting", "value"),
    [
        (["train.lr=0.3", "train.lr=0.2"], "lr", 0.2),
        (["method=dense"], "lr", 0.01),
        (["train.lr=0.3", "method=dense"], "lr", 0.3),
        (["method=dense", "train.lr=0.3", "train=default"], "lr", 0.3),
        (["train.milestones=[1,2]", "train.milestones=[3]", "train.schedule=multistep"], "milestones", [3]),
    ],
)
def test_the_later_wins(shared: Composer, job: list[str], setting: str, value: object) -> None:
    assert as_dict(shared.compose(job))["train"][setting] == value


def test_a_value_does_not_leak_into_the_next_job(context: HydraContext, plain: DictConfig) -> None:
    composer = Composer(context, plain)
    untouched = composer.compose([])
    tagged = composer.compose(["train.lr=0.7", "tracker.tags=[a]", "train.threads=2"])
    tagged.tracker.tags.append("b")
    assert composer.compose(["tracker.to.wandb=false"]).tracker.enabled == []
    assert composer.compose(["tracker.tags=[a]"]).tracker.tags == ["a"]
    assert composer.compose([]) == untouched


@pytest.mark.parametrize("others", [["train.lr=0.7"], ["method=dense", "model.width=0.5"], ["evaluate=a/run"]])
def test_jobs_that_differ_in_their_seed_only(context: HydraContext, plain: DictConfig, others: list[str]) -> None:
    seeds = ["7", "0", "12", "'7'", "007", "+7", "1_000", "1.0", "-1", "x", "null", "3"]
    composer = Composer(context, plain)
    for job in [[*others, f"seed={seed}"] for seed in seeds] + [["seed=4", *others], ["seed=4", *others, "seed=5"]]:
        assert ends(composer, context, plain, job) == ends(None, context, plain, job), job
    assert len(composer.checked) == (others != ["evaluate=a/run"])


def test_a_preset_whose_values_follow_from_others(context: HydraContext) -> None:
    given = master(context, "sweep=follows")
    composer = Composer(context, given)
    for width in ("0.5", "2.0"):
        job = ["sweep=follows", f"model.width={width}"]
        assert composer.compose(job).out == f"elsewhere/{width}"
        assert composer.compose(job) == compose_job(context, given, job)


@pytest.mark.parametrize(
    ("choice", "enabled"),
    [
        ("[wandb,tensorboard]", ["wandb", "tensorboard"]),
        ("[tensorboard]", ["tensorboard"]),
        ("none", []),
    ],
)
def test_several_trackers(context: HydraContext, plain: DictConfig, choice: str, enabled: list[str]) -> None:
    jobs = [[f"tracker={choice}", f"seed={seed}"] for seed in (3, 4)]
    counted, loader = counting(context)
    composer = Composer(counted, plain)
    for job in jobs:
        config = composer.compose(job)
        assert config == compose_job(context, plain, job)
        assert config.tracker.enabled == enabled
    assert loader.composed == 1


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
def test_presets(context: HydraContext, shared: Composer, preset: str) -> None:
    given = master(context, f"sweep={preset}")
    jobs = expand(OverridesParser.create(), [f"sweep={preset}"], grids(given))
    for job in jobs[:: max(1, len(jobs) // 2)]:
        assert ends(shared, context, given, job) == ends(None, context, given, job), job


def test_hydra_composes_each_choice_of_groups_once(context: HydraContext, plain: DictConfig) -> None:
    """200 jobs here; 1000 take 0.3 s, where composing each takes a minute."""
    jobs = expand(OverridesParser.create(), ["method=edge_popup,random", "seed=range(0,100)"], [{}])
    counted, loader = counting(context)
    composer = Composer(counted, plain)
    names = {folder_name(composer.compose(job)) for job in jobs}
    assert len(names) == len(jobs) == 200
    assert loader.composed == 2
