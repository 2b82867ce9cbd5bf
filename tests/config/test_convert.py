"""A composed config holds what was asked for, and comes back from its file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from helpers.image_folders import make_folder
from helpers.runs import with_mask
from helpers.small_sets import save_kmnist, save_npz

from hidden_subnet.config.convert import as_dict, from_dict, normalised, to_yaml
from hidden_subnet.config.identity import folder_name
from hidden_subnet.config.parsing import parse_yaml
from hidden_subnet.config.registries import DATA, METHODS, load_parts
from hidden_subnet.config.settings import Config, Model, Train
from hidden_subnet.store.files import load_config

load_parts()

Compose = Callable[..., Config]

ROOT = Path(__file__).parents[2]
GROUPS = ["model", "init", "data", "method", "pruning", "train", "tracker"]
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
OPTIONS.remove(("model", "custom"))  # tests/models/test_custom.py
LIBRARIES = {"torchvision": "vit_b_16", "timm": "resnet18"}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_converts(compose: Compose, tmp_path: Path, group: str, option: str) -> None:
    # The default data's 8x8 pixels cannot be halved as often as some networks do.
    # dnw keeps the largest magnitudes, and the default init gives all weights of a layer the same.
    named = [f"model.name={LIBRARIES[option]}"] if group == "model" and option in LIBRARIES else []
    needed = {"dnw": ["init=kaiming_normal"]}.get(option, ["data=cifar10"] if group == "model" else [])
    if (group, option) == ("data", "torchvision"):
        needed = ["data.dataset=KMNIST", f"data.root={save_kmnist(tmp_path)}"]
    elif group == "method" and METHODS[option].has_given_mask:
        needed = [f"mask={with_mask(compose()).mask}"]
    elif (group, option) == ("data", "npz"):
        needed = [f"data.file={save_npz(tmp_path / 'x.npz')}"]
    elif group == "data" and DATA[option].read is None:
        needed = [f"data.root={make_folder(tmp_path, train=4)}"]
    config = compose(f"{group}={option}", *named, *needed)
    assert type(config) is Config
    if group not in ("train", "tracker"):
        assert as_dict(config)[group]["name"] == (LIBRARIES[option] if named else option)
    assert folder_name(config)


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


OLDER = (
    "model: {name: fc}\ninit: {name: standard}\ndata: {name: mnist}\npruning: {name: layerwise}\n"
    "method: {name: dense}\ntrain: {epochs: 3}\ntracker: {name: none}\nseed: 4\n"
)


def test_config_yaml_of_an_older_run_takes_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(OLDER)
    config = load_config(path)
    assert (config.train.epochs, config.seed) == (3, 4)
    assert (config.train.batch_size, config.prune_rate, config.seeds.weights) == (64, 0.5, None)
    assert config.checkpoint.minutes == 5
    assert config.tracker.enabled == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it names no method"),
        ("- 1\n", "it names no method"),
        ("model: [\n", "is damaged"),
        (OLDER.replace("dense", "dens"), "'dens'"),
        (OLDER.replace("epochs: 3", "epoch: 3"), "'epoch' is not a setting of Train"),
        (OLDER.replace("{name: fc}", "{name: fc, norm: layer}"), "'layer' is not a value of Norm"),
        (OLDER.replace("{epochs: 3}", "3"), "does not hold the settings of Train"),
    ],
)
def test_a_file_that_is_not_a_config_is_named_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "value"),
    [(0.30000000000000004, 0.3), (1, 1.0), (-0.0, 0.0), (1e-5, 1e-5), (0.1234567890123, 0.123456789012)],
)
def test_floats_are_floats_of_12_digits(given: Any, value: float) -> None:
    config = Config(model=Model(name="fc"), method=METHODS["dense"].settings(), train=Train(lr=given))
    found = normalised(config).train.lr
    assert (type(found), repr(found)) == (float, repr(value))
    assert config.train.lr is given  # another config is returned
    assert from_dict(as_dict(config)).train.lr == value


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("seed: one", "seed=one: must be int"),
        ("prune_rate: [0.5]", "prune_rate="),
        ("prune_rate: true", "prune_rate=True: must be float"),
        ("data: {name: digits, flip: 1}", "flip=1: must be bool"),
        ("out: 3", "out=3: must be str"),
        ("train: {milestones: [1, x]}", "milestones="),
        ("prune_rate: 1" + "0" * 400, "too large"),
        ("prune_rate: 1.5", "prune_rate=1.5"),
        ("on_error: [1]", "is not a value of OnError"),
    ],
)
def test_settings_of_a_run_are_checked_as_those_that_are_typed(tmp_path: Path, line: str, word: str) -> None:
    path = tmp_path / "run-0123456789ab" / "config.yaml"
    path.parent.mkdir()
    path.write_text(f"method: {{name: edge_popup}}\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(word)) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n  c: [1, {d: 2}]\n", "a: 1\na: 2\n", "a:\n- 1\n- 2\nb: x\n", "a: |\n  b: 1\n  c\nd: 2\n",
        "a: 'x\n  b: 1'\nc: 2\n", "a: >\nb: 1\n", "# a\na: 1\n", "- 1\n", "", "a: {b: 1,\nc: 2}\n", "a: 1\n? b\n: 2\n",
        "a: 1\nseed: 7\nb: 2\n", "a: [1]\nseed: 12\n", "a: 1\nseed: 012\n", "a: 1\nseed: 5\n  6\nb: 1\n",
        "a: 1\nseed: 5\nseed: 6\n", "a: 'x\nseed: 3\n  y'\n", "a: |\n  seed: 1\nseed: 2\n", "a:\n  seed: 1\n",
        "a: 1\nseed: 5 # x\n",
        "a: 1\nB: 2\n", "a: 1\nB: 2\nc: 3\n", "a: x\n  b\nc: 2001-01-01\n", "--- \na: 1\n", "a: !!set {b}\nc: 1\n",
    ],
)  # fmt: skip
def test_yaml_that_is_parsed_entry_by_entry_is_what_yaml_says(text: str) -> None:
    for _ in range(2):
        found = parse_yaml(text)
        assert found == yaml.safe_load(text)
        if isinstance(found, dict):  # what a caller changes is its own
            found["new"] = [found.pop(key) for key in list(found)]


def test_yaml_with_an_open_quote_is_refused() -> None:
    with pytest.raises(ValueError, match="quoted scalar"):
        parse_yaml("a: 'x\nb: 1\n")
