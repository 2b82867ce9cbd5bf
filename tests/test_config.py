"""Every part composes, converts and trains; what is composed is what was asked for, and comes back from its file."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_folders import make_folder
from torch.optim import SGD

from hidden_subnet.config import as_dict, load_config, to_yaml
from hidden_subnet.data.info import FOLDERS, INFO
from hidden_subnet.identity import folder_name
from hidden_subnet.inits import INITS, fill
from hidden_subnet.layers import masked_layers
from hidden_subnet.methods import table
from hidden_subnet.models.build import build
from hidden_subnet.models.plan import NAMES as MODEL_NAMES
from hidden_subnet.models.plan import has_norm
from hidden_subnet.settings import METHODS, Config, DataName, Init, InitName, PruningName, Scale, TrackerName
from hidden_subnet.subnetwork import put_masks
from hidden_subnet.training import Sums, evaluate, train_epoch
from hydra_plugins.hidden_subnet.errors import setting_names

Compose = Callable[..., Config]

ROOT = Path(__file__).parents[1]
GROUPS = ["model", "init", "data", "method", "pruning", "train", "tracker"]
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
PRESETS = [path.stem for path in sorted((ROOT / "sweeps").glob("*.yaml"))]
HELP = (ROOT / "conf" / "config.yaml").read_text()


def names(group: str) -> list[str]:
    return [option for each, option in OPTIONS if each == group]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_converts(compose: Compose, tmp_path: Path, group: str, option: str) -> None:
    # The default data's 8x8 pixels cannot be halved as often as some networks do.
    # dnw chooses by magnitude, which the default init gives to all weights alike.
    named = ["model.name=vit_b_16"] if option == "torchvision" else []
    needed = {"dnw": ["init=kaiming_normal"]}.get(option, ["data=cifar10"] if group == "model" else [])
    if option in FOLDERS:
        needed = [f"data.root={make_folder(tmp_path, train=4)}"]
    config = compose(f"{group}={option}", *named, *needed)
    assert type(config) is Config
    if group != "train":
        assert as_dict(config)[group]["name"] == ("vit_b_16" if named else option)
    assert folder_name(config)


def test_the_tables_hold_what_the_groups_offer() -> None:
    assert names("model") == sorted([*MODEL_NAMES, "torchvision"])
    assert names("init") == sorted(each.name for each in InitName) == sorted(INITS)
    assert names("data") == sorted(each.name for each in DataName) == sorted(INFO)
    assert names("pruning") == sorted(each.name for each in PruningName)
    assert names("tracker") == sorted(each.name for each in TrackerName)
    assert names("method") == sorted(METHODS) == sorted(table.METHODS)


def test_help_names_every_option() -> None:
    for group, option in [*OPTIONS, *(("sweep", preset) for preset in PRESETS)]:
        if group != "train":
            [said] = re.findall(rf"^        {group}  +(.*(?:\n {{20,}}.*)*)", HELP, flags=re.MULTILINE)
            assert option in re.findall(r"\w+", said), (group, option)


def test_help_names_settings_and_defaults_that_exist(compose: Compose) -> None:
    lines = re.findall(r"^        ([\w.]+)=(\S+)  +\S", HELP.split("settings used most")[1], flags=re.MULTILINE)
    assert len(lines) >= 14
    assert {setting for setting, _ in lines} <= set(setting_names())
    assert compose(*(f"{setting}={value}" for setting, value in lines)) == compose()


@pytest.mark.parametrize("init", list(InitName), ids=lambda init: init.name)
@pytest.mark.parametrize("model", [name for name in MODEL_NAMES if not has_norm(name)])
@pytest.mark.parametrize("method", ["edge_popup", "random", "dense"])  # the others: test_methods.py
def test_every_combination_runs_one_batch(model: str, method: str, init: InitName) -> None:
    source = torch.Generator().manual_seed(0)
    batch = (torch.randn(20, 1, 16, 16, generator=source), torch.arange(20) % 10)
    network = build(model, 1 / 16, (1, 16, 16), 10)
    fill(network, init.name, "fan_in", 1.0, seed=0)
    put_masks(network, Config(method=METHODS[method](), init=Init(name=init, scale=Scale.none), prune_rate=0.5))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    if trained:
        optimizer = SGD([value for value in network.parameters() if value.requires_grad], lr=0.1)
        sums = Sums("cpu")
        train_epoch(network, [batch], optimizer, 0.0, sums, lambda: None)
        assert sums.totals[3] == 20
        assert sums.means().loss > 0
    assert evaluate(network, [batch], "cpu").loss > 0  # and so not nan
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    masked = {f"{path}.scores" for path, _ in masked_layers(network)}
    last = {list(before)[-1]}
    assert trained == {"edge_popup": masked, "random": set(), "dense": set(before), "last_layer": last}[method]
    # Equal weights of the deepest networks may leave single layers without a gradient, but never all of them.
    assert changed <= trained
    assert bool(changed) == bool(trained)


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [
        ([], 0.1),
        (["method=edge_popup"], 0.1),
        (["method=dense"], 0.01),
        (["method=dense", "train.lr=0.3"], 0.3),
        (["train.lr=0.3", "method=dense"], 0.3),
        (["train.lr=0.3", "train=default", "method=edge_popup"], 0.3),
        (["method=dense", "train.epochs=3"], 0.01),
    ],
)
def test_a_method_sets_its_learning_rate_and_the_command_line_wins(
    compose: Compose, overrides: list[str], lr: float
) -> None:
    assert compose(*overrides).train.lr == lr


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=dense", "model=fc", "data=mnist", "data.validation=0", "tracker=none"],
        ["method=random", "init=kaiming_normal", "init.mode=fan_out", "init.scale=density", "seeds.weights=7"],
        ["train.schedule=multistep", "train.milestones=[2,5]", "train.lr=1e-5", "prune_rate=0.30000000000000004"],
        ["tracker=both", "tracker.tags=[yes,012,'null']", "tracker.entity='null'", "tracker.project='1e3'"],
        ["out='a: b # c'", "data.root='~'", "train.threads=2", "force=true", "model.width=2"],
    ],
)
def test_config_yaml_round_trip(compose: Compose, tmp_path: Path, overrides: list[str]) -> None:
    config = compose(*overrides)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(as_dict(config)))
    again = load_config(path)
    assert again == config
    assert type(again.method) is type(config.method)


def test_config_yaml_of_an_older_run_takes_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {name: fc}\ninit: {name: standard}\ndata: {name: mnist}\npruning: {name: layerwise}\n"
        "method: {name: dense}\ntrain: {epochs: 3}\ntracker: {name: none}\nseed: 4\n"
    )
    config = load_config(path)
    assert (config.train.epochs, config.seed) == (3, 4)
    assert (config.train.batch_size, config.prune_rate, config.seeds.weights) == (64, 0.5, None)
    assert config.checkpoint.minutes == 5
