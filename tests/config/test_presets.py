"""The presets in sweeps/: what each runs, tied settings, and what the command line changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.composing import make_composer
from helpers.forked_launch import launch
from helpers.image_folders import make_folder
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from hidden_subnet.config.checks import check
from hidden_subnet.config.convert import register
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.registries import ALLOCATIONS
from hidden_subnet.config.settings import Config
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.sizes import count_weights, plan
from hidden_subnet.store.files import read_result
from hydra_plugins.hidden_subnet.grid_sweeper import expand, grids
from hydra_plugins.hidden_subnet.options import keep_back_options

ROOT = Path(__file__).parents[2]
Jobs = Callable[..., list[Config]]

RUNS = {
    "biprop": 18,
    "bits": 72,
    "conv6_curve": 18,
    "depth": 460,
    "distributions": 175,
    "fashion_mnist": 150,
    "fashion_mnist_conv4": 80,
    "finetune": 39,
    "gem_miner_ablation": 12,
    "imagenet": 9,
    "imp": 36,
    "iterand": 12,
    "methods": 174,
    "methods_conv4": 174,
    "methods_sparse": 33,
    "methods_tuning": 96,
    "overlap": 18,
    "prune_rates": 57,
    "resnet18": 63,
    "scaling": 150,
    "signed": 15,
    "signed_mnist": 10,
    "smoke": 37,
    "temperature": 50,
    "width": 90,
    "width_at_kept": 30,
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Return every run of `python launch.py sweep=<preset> <overrides>`."""
    composer = make_composer()
    loader = composer.context.config_loader
    folder = make_folder(tmp_path_factory.mktemp("images"), train=24)

    def found(preset: str, *overrides: str) -> list[Config]:
        given = [f"sweep={preset}", *overrides, *([f"data.root={folder}"] if preset == "imagenet" else [])]
        preset_alone = loader.load_configuration("config", [f"sweep={preset}"], RunMode.MULTIRUN)
        expanded = expand(OverridesParser.create(), given, grids(preset_alone))
        return [composer.compose(job) for job in expanded]

    return found


def of_size(path: Path) -> Any:
    """Mark large presets as slow: they take seconds."""
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (RUNS.get(path.stem, 0) > 60))


@pytest.mark.parametrize("path", [of_size(path) for path in sorted((ROOT / "sweeps").glob("*.yaml"))])
def test_every_preset_asks_a_question_and_composes(jobs: Jobs, path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert "?" in f"{lines[0]}{lines[1]}"
    assert len(lines) <= 30
    found = jobs(path.stem, "seed=0")
    for config in found:
        check(config)
    assert len({folder_name(config) for config in found}) == len(found) > 1


@pytest.mark.parametrize("preset", RUNS)
def test_number_of_runs(preset: str) -> None:
    content = OmegaConf.to_container(ConfigStore.instance().load(f"sweep/{preset}.yaml").node)
    assert len(expand(OverridesParser.create(), [], content["grids"])) == RUNS[preset]  # type: ignore[call-overload,index]


def test_the_command_line_wins(jobs: Jobs) -> None:
    found = jobs("depth", "data=digits", "train.epochs=2", "model=conv2", "seed=7", "prune_rate=0.2")
    assert {config.data.name for config in found} == {"digits"}
    assert {config.data.crop for config in found} == {0}  # cifar10 has 4
    assert {(config.train.epochs, config.train.batch_size) for config in found} == {(2, 128)}
    assert {(config.model.name, config.seed, config.prune_rate) for config in found} == {("conv2", 7, 0.2)}
    assert len(found) == 2 * 2 + 2 + 1


def test_smoke_has_every_method_with_every_pruning(jobs: Jobs) -> None:
    found = {(config.method.name, config.pruning.name) for config in jobs("smoke")}
    without = {"sampled", "dense", "last_layer"}
    assert len({method for method, _ in found}) == 18  # those of this package; one that was added need not be there
    every = {
        (method, pruning)
        for method in {method for method, _ in found}
        for pruning in ("layerwise", "global")
        if pruning == "layerwise" or method not in without
    }
    assert found == every | {("edge_popup", pruning) for pruning in ALLOCATIONS}


def test_width_at_kept_keeps_as_many_weights_at_every_width(jobs: Jobs) -> None:
    kept = {}
    for config in jobs("width_at_kept"):
        n = count_weights(plan(config.model.name, config.model.width, (3, 32, 32), 10))
        kept[config.model.width] = n * (1 - config.prune_rate)
    assert sorted(kept) == [0.75, 1.0, 1.5, 2.0, 3.0]
    assert kept[1.0] == 1_212_512
    assert all(abs(value - kept[1.0]) < 0.0002 * kept[1.0] for value in kept.values())


def test_temperatures_are_those_of_the_scales(jobs: Jobs) -> None:
    given = {(config.prune_rate, config.model.temperature) for config in jobs("temperature")}
    rates = (0.1, 0.3)
    wanted = [(rate, kept**3.5) for rate in rates for kept in (1 - rate, rate)] + [(rate, 1.0) for rate in rates]
    assert sorted(given) == [(rate, pytest.approx(value, rel=1e-5)) for rate, value in sorted(wanted)]


def test_a_preset_says_what_one_would_type() -> None:
    parser = OverridesParser.create()
    grid = {"seeds.split": [None, 1], "train.milestones": [[1], [2, 3]], "train.nesterov": True, "prune_rate": 0.5}
    assert expand(parser, ["prune_rate=0.1"], [grid]) == [
        [f"seeds.split={split}", f"train.milestones={marks}", "train.nesterov=true", "prune_rate=0.1"]
        for split in ("null", "1")
        for marks in ("[1]", "[2,3]")
    ]


TIED: list[dict[str, Any]] = [{"model.width, prune_rate": [[0.5, 0.1], [1, 0.3]], "seed": [0, 1]}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], [("0.5", "0.1", "0"), ("0.5", "0.1", "1"), ("1", "0.3", "0"), ("1", "0.3", "1")]),
        (["seed=5"], [("0.5", "0.1", "5"), ("1", "0.3", "5")]),
        (["prune_rate=0.7", "seed=5,6"], [(w, "0.7", s) for w in ("0.5", "1") for s in "56"]),
        (["seed=5", "prune_rate=0.7", "model.width=2"], [("2", "0.7", "5")]),
    ],
    ids=["none", "another", "one of them", "all of them"],
)  # fmt: skip
def test_tied_settings_move_together(given: list[str], expected: list[tuple[str, str, str]]) -> None:
    found = expand(OverridesParser.create(), given, TIED)
    values = [dict(line.split("=") for line in job) for job in found]
    assert sorted((each["model.width"], each["prune_rate"], each["seed"]) for each in values) == sorted(expected)


@pytest.mark.parametrize("rows", [[[0.5, 0.1], [1]], [0.5, 0.1], 0.5, [[1, 2, 3]]])
def test_tied_settings_need_a_value_each(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.width, prune_rate: must be a list of rows .* 2 settings"):
        expand(OverridesParser.create(), [], [{"model.width, prune_rate": rows}])


@pytest.mark.parametrize(
    "content",
    [
        "3",
        "common: 3\ngrids: [{seed: 1}]",
        "common: {seed: 1}\ngrids: [3]",
        "grids: 3",
        "grids: {seed: 1}",
        "a: [",
        "",
        "grids: []",
        "grid: [{seed: 1}]",
        "hydra: local\ncommon: {seed: 1}",
        "common: {train: {epochs: 1}}",
        "common: {seed: [0, 1]}\ncommon: {seed: 2}",
        "common: {data: \xff}",
        "common: {seed: []}",
    ],
)
def test_what_is_no_preset_is_named_when_it_is_chosen(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content.encode("latin-1"))
    register(tmp_path, ["-m", "sweep=mine_too"])  # another is none of its business
    with pytest.raises(ValueError, match=r"mine\.yaml is not a preset: \S.*; (as in|type): \S+"):
        register(tmp_path, ["-m", "sweep=mine"])


@pytest.mark.parametrize("key", ["sweep", "hydra/launcher", "hydra.launcher.workers"])
def test_what_is_no_setting_of_a_run_is_refused(key: str) -> None:
    with pytest.raises(
        ConfigError,
        match=f"grids: {key}: is not a setting of a run; to be given on the command line; type: {key}=smoke",
    ):
        expand(OverridesParser.create(), [], [{key: "smoke"}])


def test_a_preset_may_say_how_it_is_launched(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("hydra: {launcher: {workers: 1}}\ncommon: {seed: 1}\n")
    register(tmp_path)
    node = ConfigStore.instance().load("sweep/mine.yaml").node
    assert node.hydra == {"launcher": {"workers": 1}, "mode": "MULTIRUN"}


def test_one_preset_at_a_time() -> None:
    with pytest.raises(ConfigError, match=r"sweep=smoke,depth: only one preset at a time; type: sweep=smoke$"):
        expand(OverridesParser.create(), ["sweep=smoke,depth"], [{}])


def test_an_option_of_a_method_goes_where_it_is_named() -> None:
    grids = [{"method": "warmup_then_prune", "method.weight_epochs": 2}, {"method": "dense"}]
    given = ["method.weight_epochs=3", "seed=1"]
    assert expand(OverridesParser.create(), given, grids) == [
        ["method=warmup_then_prune", "method.weight_epochs=3", "seed=1"],
        ["method=dense", "seed=1"],
    ]
    tied = [{"method": "warmup_then_prune", "method.weight_epochs, prune_rate": [[2, 0.1], [4, 0.2]]}]
    assert expand(OverridesParser.create(), given[:1], tied) == [
        ["method=warmup_then_prune", f"prune_rate={rate}", given[0]] for rate in (0.1, 0.2)
    ]
    # Where no grid names it, it goes to all, and is refused where it does not fit.
    assert expand(OverridesParser.create(), given[:1], [{"method": "dense"}]) == [["method=dense", given[0]]]


@pytest.mark.parametrize(
    ("methods", "given", "expected"),
    [
        ("sampled,dense", "1", {"sampled": ["1"], "dense": []}),
        ("sampled,dense", "1,2", {"sampled": ["1", "2"], "dense": []}),
        ("mine,sampled,dense", "1", {"mine": ["1"], "sampled": ["1"], "dense": []}),
        # Nobody is known to have it: composing refuses it, or mine has it.
        ("mine,dense", "1", {"mine": ["1"], "dense": ["1"]}),
        ("dense,random", "1", {"dense": ["1"], "random": ["1"]}),
    ],
)
def test_an_option_goes_to_the_methods_that_have_it(methods: str, given: str, expected: dict[str, list[str]]) -> None:
    parser, option = OverridesParser.create(), f"method.penalty={given}"
    wanted = [
        [f"method={method}", *(f"method.penalty={value}" for value in values)]
        for method, both in expected.items()
        for values in ([[each] for each in both] or [[]])
    ]
    assert expand(parser, [f"method={methods}", option], [{}]) == wanted
    assert expand(parser, [option], [{"method": methods.split(",")}]) == wanted


def test_an_option_of_the_default_method() -> None:
    assert expand(OverridesParser.create(), ["method.penalty=1"], [{}], {"method": "sampled"}) == [["method.penalty=1"]]


@pytest.mark.parametrize(
    ("given", "kept_back"),
    [
        ("-m method=a,b method.penalty=1 seed=0", "-m method=a,b method.penalty=choice(1) seed=0"),
        ("sweep=smoke method.penalty=1", "sweep=smoke method.penalty=choice(1)"),
        ("-m method=a,b method.penalty=1,2", "-m method=a,b method.penalty=1,2"),
        ("-m method=a method.penalty=1 seed=0,1", "-m method=a method.penalty=1 seed=0,1"),
        ("hydra/sweeper=optuna method=a,b method.x=1", "hydra/sweeper=optuna method=a,b method.x=1"),
    ],
)
def test_hydra_does_not_give_an_option_to_its_default_method(given: str, kept_back: str) -> None:
    assert keep_back_options(given.split()) == kept_back.split()


@pytest.mark.parametrize("key", ["prune_rate, ", "prune_rate, prune_rate"])
def test_a_tied_key_has_a_name_on_each_side_of_the_comma(key: str) -> None:
    with pytest.raises(ConfigError, match="needs different names"):
        expand(OverridesParser.create(), [], [{key: [[1, 2], [2, 3]]}])


def test_a_method_of_the_command_line_brings_its_own_options() -> None:
    grids = [{"method": "warmup_then_prune", "method.weight_epochs": 2, "seed": 1}]
    found = expand(OverridesParser.create(), ["method=dense"], grids)
    assert [sorted(job) for job in found] == [["method=dense", "seed=1"]]


def test_tied_settings_take_the_place_of_common_ones(tmp_path: Path) -> None:
    content = "common: {seed: 3, prune_rate: 0.5}\ngrids: [{'prune_rate, model.width': [[0.1, 1], [0.2, 2]]}]"
    (tmp_path / "mine.yaml").write_text(content)
    register(tmp_path)
    node = ConfigStore.instance().load("sweep/mine.yaml").node
    assert node.grids == [{"seed": 3, "prune_rate, model.width": [[0.1, 1], [0.2, 2]]}]


def test_a_choice_of_a_preset_may_be_of_thousands_and_a_range() -> None:
    assert len(expand(OverridesParser.create(), [], [{"seed": list(range(3000))}])) == 3000
    assert expand(OverridesParser.create(), [], [{"seed": ["range(0,2)", 7]}]) == [["seed=0"], ["seed=1"], ["seed=7"]]


def test_common_settings_alone_are_a_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# Which?\ncommon: {seed: [0, 1], data: digits}\n")
    register(tmp_path)
    node = ConfigStore.instance().load("sweep/mine.yaml").node
    assert node.grids == [{"seed": [0, 1], "data": "digits"}]


@pytest.mark.slow
def test_smoke_runs(tmp_path: Path) -> None:
    done = launch(tmp_path, "sweep=smoke", f"out={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    results = [read_result(path.parent) for path in tmp_path.glob("*/result.json")]
    every = RUNS["smoke"] + 2  # the dense networks from which method=imp starts
    assert len(results) == every
    assert f"{every} done" in done.stdout
    # Four epochs are enough to be far from chance wherever something is trained at all.
    for result in results:
        assert result is not None
        trained = result["projection"]["method"]["name"] != "random"
        assert (result["last"]["test"]["top1"] > 0.25) == trained, result["name"]
