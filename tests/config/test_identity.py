"""The name of a run follows from its settings: always the same one, and another for whatever gives other results."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields, is_dataclass, replace
from math import nextafter
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.leaves import leaves

from hidden_subnet.config import settings as all_settings
from hidden_subnet.config.convert import as_dict, default_of, parse_config
from hidden_subnet.config.identity import (
    UNTRAINED_USES,
    UNUSED,
    digest,
    earlier_folder_name,
    folder_name,
    once_but_seed,
    projection,
    projections,
)
from hidden_subnet.config.registries import METHODS, METRICS, MetricEntry, load_parts
from hidden_subnet.config.settings import Config, MethodSettings, Model, Pruning, setting
from hidden_subnet.models.sizes import NAMES as MODEL_NAMES
from hidden_subnet.models.sizes import plan
from hidden_subnet.store import sweeps
from hidden_subnet.store.files import folder_of

load_parts()

Compose = Callable[..., Config]

# The config.yaml of a run of schema 1, as it lies in users' folders: later settings are missing from it.
SCHEMA_1 = """
model: {name: conv2, width: 1.0}
init: {name: signed_constant, mode: fan_in, scale: none}
data: {name: digits, root: data, validation: 0.1, crop: 0, flip: false}
pruning: {name: layerwise}
method: {name: edge_popup}
train:
  epochs: 15
  batch_size: 64
  lr: 0.1
  optimizer: sgd
  momentum: 0.9
  nesterov: false
  weight_decay: 0.0001
  schedule: cosine
  warmup_epochs: 0
  milestones: []
  gamma: 0.1
  label_smoothing: 0.0
  device: auto
  threads: null
checkpoint: {minutes: 5.0}
tracker: {name: wandb, project: hidden_subnet, entity: null, mode: auto, tags: []}
seeds: {weights: null, scores: null, data: null, split: null}
prune_rate: 0.5
seed: 0
out: runs
force: false
"""

# Finished runs are found again by these names. They change only with a higher schema (identity.CHANGED) and a note that
# tells users what to do with the runs they have; a setting added later must leave all of them as they are.
GOLDEN: list[tuple[dict[str, Any], str]] = [
    ({}, "digits-conv2-edge_popup-signed_constant-pr0.5-s0-079796581559"),
    ({"seed": 1}, "digits-conv2-edge_popup-signed_constant-pr0.5-s1-81438fb1c26f"),
    ({"prune_rate": 0.3}, "digits-conv2-edge_popup-signed_constant-pr0.3-s0-af3b30c8b2f9"),
    ({"prune_rate": 0.0}, "digits-conv2-edge_popup-signed_constant-pr0-s0-f7afd01ef696"),
    ({"prune_rate": 0.995, "seed": 12345}, "digits-conv2-edge_popup-signed_constant-pr0.995-s12345-f22d578acbea"),
    ({"method.name": "dense", "train.lr": 0.01}, "digits-conv2-dense-signed_constant-s0-29cf994e7fd5"),
    ({"method.name": "random"}, "digits-conv2-random-signed_constant-pr0.5-s0-29cf9ff31f7d"),
    ({"method.name": "random", "data.validation": 0}, "digits-conv2-random-signed_constant-pr0.5-s0-165711811205"),
    ({"model.name": "fc", "data.name": "mnist"}, "mnist-fc-edge_popup-signed_constant-pr0.5-s0-53ad28b54480"),
    (
        {"model.name": "conv4", "data.name": "cifar10", "data.crop": 4, "data.flip": True, "train.epochs": 100},
        "cifar10-conv4-edge_popup-signed_constant-pr0.5-s0-d5c7abbe6b01",
    ),
    (
        {"model.name": "conv6", "model.width": 0.5, "data.name": "cifar100", "data.validation": 0},
        "cifar100-conv6-w0.5-edge_popup-signed_constant-pr0.5-s0-a5deb2994aad",
    ),
    (
        {"model.name": "conv8", "data.name": "cifar10", "init.name": "kaiming_normal", "init.mode": "fan_out"},
        "cifar10-conv8-edge_popup-kaiming_normal-pr0.5-s0-b1214854463f",
    ),
    (
        {"init.name": "kaiming_uniform", "init.scale": "density"},
        "digits-conv2-edge_popup-kaiming_uniform-pr0.5-s0-b566aea053fd",
    ),
    (
        {"init.name": "unsigned_constant", "data.name": "fashion_mnist"},
        "fashion_mnist-conv2-edge_popup-unsigned_constant-pr0.5-s0-a51219d4d31b",
    ),
    (
        {"init.name": "xavier_normal", "data.name": "synthetic"},
        "synthetic-conv2-edge_popup-xavier_normal-pr0.5-s0-323d4b229efb",
    ),
    (
        {"init.name": "xavier_constant", "method.name": "dense", "seeds.weights": 7},
        "digits-conv2-dense-xavier_constant-s7.0.0-99554d929abf",
    ),
    (
        {"init.name": "standard", "seeds.scores": 1, "seeds.data": 2, "seeds.split": 3},
        "digits-conv2-edge_popup-standard-pr0.5-s0.1.2.3-1438d4b7342d",
    ),
    (
        {"train.optimizer": "adam", "train.lr": 0.001, "train.weight_decay": 0.0},
        "digits-conv2-edge_popup-signed_constant-pr0.5-s0-a019196a9444",
    ),
    (
        {"train.schedule": "multistep", "train.milestones": [5, 10], "train.gamma": 0.2, "train.label_smoothing": 0.1},
        "digits-conv2-edge_popup-signed_constant-pr0.5-s0-b7b5530d6325",
    ),
    (
        {"train.schedule": "constant", "train.warmup_epochs": 2, "train.nesterov": True, "train.batch_size": 128},
        "digits-conv2-edge_popup-signed_constant-pr0.5-s0-2c714c13ce18",
    ),
]


def changed(changes: dict[str, Any], tmp_path: Path) -> Config:
    """Return the config read from SCHEMA_1 with `changes` ("group.key": value) written into it."""
    settings = yaml.safe_load(SCHEMA_1)
    for key, value in changes.items():
        *groups, last = key.split(".")
        inner = settings
        for group in groups:
            inner = inner.setdefault(group, {})  # settings later than SCHEMA_1; parse_config refuses what is none
        inner[last] = value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return parse_config(path.read_text(), path)


def test_golden_names(tmp_path: Path) -> None:
    found = [folder_name(changed(changes, tmp_path)) for changes, _ in GOLDEN]
    assert found == [name for _, name in GOLDEN]
    assert len({name[-12:] for name in found}) == 20


def test_a_composed_run_has_its_golden_name(compose: Compose, tmp_path: Path) -> None:
    overrides = ["model=conv4", "data=cifar10", "train.epochs=100", "train.lr=0.1", "train.batch_size=64"]
    assert folder_name(compose(*overrides)) == GOLDEN[9][1]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 1),
        # What is not masked trains with the weights: it was frozen in these two methods.
        (["method=dnw", "init=kaiming_normal"], 1),
        (["method=dnw", "init=kaiming_normal", "model.last_layer=dense"], 2),
        (["method=dnw", "init=kaiming_normal", "model=cifar_resnet18"], 1),
        (["method=dnw", "init=kaiming_normal", "model=cifar_resnet18", "model.norm=batch"], 2),
        (["method=warmup_then_prune"], 1),
        (["method=warmup_then_prune", "model.first_layer=dense"], 2),
        (["method=warmup_then_prune", "model=torchvision", "model.name=resnet18", "data=cifar10"], 2),
        (["method=random_trained", "model=cifar_resnet18", "model.norm=batch", "model.first_layer=dense"], 1),
        (["method=dense", "model=cifar_resnet18", "model.norm=batch"], 1),
        (["model=cifar_resnet18", "model.norm=batch", "model.first_layer=dense"], 1),
        # A layer of which nothing is removed is not scaled.
        (["init.scale=density"], 1),
        (["init.scale=density", "model.first_layer=dense"], 2),
        (["init.scale=density", "model.first_layer=dense", "prune_rate=0"], 1),
        (["init.scale=reference", "model.first_layer=dense"], 1),
        # The density of `mean` was recorded as 1.
        (["method=sampled"], 1),
        (["method=sampled", "method.evaluation=mean"], 2),
    ],
)
def test_a_run_whose_result_has_changed_has_another_schema(
    overrides: list[str], expected: int, compose: Compose
) -> None:
    assert projection(compose(*overrides))["schema"] == expected


OPERATIONAL: dict[str, Any] = {
    "use": ["my_parts.py"],
    "code": None,  # a digest; tests/config/test_own_parts.py has more
    "out": "elsewhere",
    "force": True,
    "resume_stopped": True,
    "stop_collapsed": True,
    "stop_collapsed_epoch": 7,
    "train.device": "cpu",
    "train.devices": 2,
    "train.sync_norm": True,
    "train.threads": 3,
    "train.profile": True,
    "train.cuda_graph": True,
    "train.mask_kernels": True,
    "pruning.n": 2,
    "data.root": "/elsewhere",
    "data.workers": 3,
    "data.trust_names": True,
    "plan": True,
    "on_error": "stop",
    "claim.silent_seconds": 30.0,
    "checkpoint.minutes": 0.0,
    "checkpoint.every": 2,
    "checkpoint.keep": "mask",
    "report.style": "talk",
    "report.metric": "best_test_top1",
    "report.x": "lr",
    "report.run": True,
    "pretrained": "weights.pt",
    "mask": "runs/other",
    "mask_train": {"lr": 0.5},
    "extend": "runs/other",
    "evaluate": "runs/other",
    "tracker.to": {"wandb": True, "tensorboard": True},
    "tracker.project": "other",
    "tracker.entity": "me",
    "tracker.mode": "offline",
    "tracker.tags": ["a"],
    "tracker.artifacts": "mask",
    "tracker.paths": True,
    "tracker.alerts": True,
    "tracker.histograms": 2,
    "tracker.step_loss": 10,
}

# One other value of each setting that makes another run, on a base that uses all of them.
BASE = {
    "train.schedule": "multistep",
    "train.milestones": [5],
    "seed": 1,
    "pruning.name": "global",
    "pruning.ramp_epochs": 2,
    "pruning.start_rate": 0.1,
}
IDENTITY: dict[str, Any] = {
    "code_digest": "0123456789abcdef",
    "metrics": ["calibration"],
    "metric": {"calibration": {"bins": 3}},
    "model.name": "conv4",
    "model.library": "torchvision",
    "model.width": 0.5,
    "model.norm": "batch",
    "model.activation": "elu",
    "model.first_layer": "dense",
    "model.last_layer": "dense",
    "model.temperature": 2.0,
    "init.name": "kaiming_normal",
    "init.mode": "fan_out",
    "init.scale": "density",
    "init.attention_scale": 2.0,
    "data.name": "synthetic",
    "data.validation": 0.2,
    "data.crop": 1,
    "data.flip": True,
    "data.resized_crop": True,
    "data.pad": 2,
    "data.size": 16,
    "data.resize": 16,
    "data.fraction": 0.5,
    "data.one_batch": True,
    "data.found.classes": 5,
    "data.found.train": 5,
    "data.found.test": 5,
    "data.found.digest": "0123",
    "method.name": "random",
    "train.epochs": 16,
    "train.batch_size": 65,
    "train.lr": 0.2,
    "train.optimizer": "adam",
    "train.momentum": 0.8,
    "train.nesterov": True,
    "train.weight_decay": 0.0,
    "train.schedule": "constant",
    "train.warmup_epochs": 1,
    "train.milestones": [5, 6],
    "train.gamma": 0.2,
    "train.label_smoothing": 0.1,
    "pretrained_sha256": "0" * 64,
    "mask_sha256": "0" * 64,
    "extend_sha256": "0" * 64,
    "pruning.rates": {"fc1": 0.9},
    "train.norm_affine": True,
    "train.optimizer_args": {"dampening": 0.1},
    "data.augment": ["RandomInvert"],
    "train.clip_norm": 1.0,
    "train.accumulate": 4,
    "train.norm_batches": 4,
    "train.precision": "bf16",
    "train.channels_last": True,
    "train.compile": True,
    "prune_rate": 0.51,
    "pruning.name": "layerwise",
    "pruning.floor": 0.2,
    "pruning.ramp_epochs": 3,
    "pruning.start_rate": 0.2,
    "pruning.ramp": "geometric",
    "pruning.structure": "channel",
    "seed": 2,
    "seeds.weights": 2,
    "seeds.scores": 2,
    "seeds.data": 2,
    "seeds.split": 2,
}
OF_THE_METHOD = {"method.transform": "identity"}
# Without a norm layer or a bias, and without a structure, as here, they change nothing.
WITHOUT_EFFECT = {"train.norm_decay", "pruning.m", "pruning.block", "pruning.indivisible"}


def test_every_setting_is_known_to_make_another_run_or_not() -> None:
    config = Config(method=METHODS["edge_popup"].settings())
    assert set(leaves(as_dict(config))) == {*OPERATIONAL, *IDENTITY, *OF_THE_METHOD, *WITHOUT_EFFECT}


@pytest.mark.parametrize("method", METHODS)
def test_operational_settings_leave_the_name(tmp_path: Path, method: str) -> None:
    name = folder_name(changed({**BASE, "method.name": method}, tmp_path))
    for key, value in OPERATIONAL.items():
        assert folder_name(changed({**BASE, "method.name": method, key: value}, tmp_path)) == name, key


def test_every_other_setting_makes_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "calibration", MetricEntry(lambda logits, labels: 0.0))  # there are only users' own
    every = IDENTITY | OF_THE_METHOD
    ids = {key: digest(projection(changed({**BASE, key: value}, tmp_path))) for key, value in every.items()}
    ids["nothing"] = digest(projection(changed(BASE, tmp_path)))
    assert len(set(ids.values())) == len(ids)


def test_settings_that_a_method_does_not_use_are_not_part_of_the_id(tmp_path: Path) -> None:
    dense = projection(changed({"method.name": "dense"}, tmp_path))
    assert set(dense) == {"schema", "model", "init", "data", "method", "seeds", "train"}
    assert set(dense["seeds"]) == {"weights", "data", "split"}
    untrained = projection(changed({"method.name": "random"}, tmp_path))
    assert set(untrained) == {"schema", "model", "init", "data", "method", "seeds", "pruning", "prune_rate"}
    assert set(untrained["data"]) == {"name", "validation"}
    assert set(untrained["seeds"]) == {"weights", "scores", "split"}

    def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
        return folder_name(changed(first, tmp_path)) == folder_name(changed(second, tmp_path))

    assert same({"method.name": "dense"}, {"method.name": "dense", "prune_rate": 0.9, "seeds.scores": 4})
    assert same({"method.name": "random"}, {"method.name": "random", "train.epochs": 3, "train.lr": 0.7})
    assert same(
        {"method.name": "random"}, {"method.name": "random", "data.crop": 2, "data.flip": True, "seeds.data": 4}
    )
    for method in ("dense", "sampled"):
        assert same({"method.name": method}, {"method.name": method, "prune_rate": 0.9, "pruning.name": "global"})
    ramp = {"pruning.ramp_epochs": 3, "pruning.start_rate": 0.1}
    for method in ("random", "random_trained"):
        assert same({"method.name": method}, {"method.name": method, **ramp})
        assert not same({"method.name": method}, {"method.name": method, "pruning.name": "global"})
    for method in ("edge_popup", "dnw", "warmup_then_prune"):
        assert not same({"method.name": method}, {"method.name": method, **ramp})
        assert same({"method.name": method}, {"method.name": method, "pruning.floor": 0.3, "pruning.start_rate": 0.3})
    assert same({"method.name": "dnw"}, {"method.name": "dnw", "seeds.scores": 4})
    assert same({"data.size": 16, "data.resize": 16}, {"data.size": 16})
    norms = {"model.name": "cifar_resnet18"}
    assert not same(norms, {**norms, "train.devices": 2})
    assert same(norms, {**norms, "train.devices": 2, "train.sync_norm": True})
    assert same({"method.name": "sampled"}, {"method.name": "sampled", "method.score_constant": 1.0})
    constant = {"method.name": "sampled", "method.score_init": "constant"}
    assert not same(constant, {**constant, "method.score_constant": 1.0})
    assert same({"data.validation": 0}, {"data.validation": 0, "seeds.split": 4})
    assert same({"method.name": "dense"}, {"method.name": "dense", "model.first_layer": "dense"})
    # Batch norm's statistics come from training images, in their order and with their augmentation.
    norms = {"method.name": "random", "train.norm_batches": 2}
    assert same(norms, {**norms, "train.epochs": 3, "train.lr": 0.7})
    for key, value in {"train.norm_batches": 3, "train.batch_size": 9, "data.flip": True, "seeds.data": 4}.items():
        assert not same(norms, {**norms, key: value})


def test_settings_that_optimizer_and_schedule_do_not_use_are_not_part_of_the_id(tmp_path: Path) -> None:
    train = projection(changed({"train.optimizer": "adam"}, tmp_path))["train"]
    assert set(train) == {
        "epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "warmup_epochs", "label_smoothing",
    }  # fmt: skip
    train = projection(changed({"train.schedule": "multistep", "train.milestones": [3]}, tmp_path))["train"]
    assert set(train) == {
        "epochs", "batch_size", "lr", "optimizer", "momentum", "nesterov", "weight_decay", "schedule",
        "warmup_epochs", "milestones", "gamma", "label_smoothing",
    }  # fmt: skip


# Marks


def kinds_of_settings() -> list[type[Any]]:
    """Return every dataclass of settings, those of the methods too."""
    here = [each for each in vars(all_settings).values() if isinstance(each, type) and is_dataclass(each)]
    ours = [each for each in here if each.__module__ == all_settings.__name__]
    return [*ours, *(method.settings for method in METHODS.values())]


def test_every_setting_has_a_mark() -> None:
    every = [(kind, field) for kind in kinds_of_settings() for field in fields(kind)]
    assert len(every) >= 100
    for kind, field in every:
        assert field.metadata["id"] in ("always", "if_changed", "never"), (kind, field.name)
        # It leaves the names of older runs as they were by its default, so it has one.
        assert field.metadata["id"] != "if_changed" or default_of(field) != all_settings.MISSING, (kind, field.name)


def test_a_setting_without_a_mark_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="'id'"):
        setting(1.0)  # type: ignore[call-arg]


def marks(kind: Any, prefix: str = "", never: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the dotted name of each setting, and its mark; what a group marked `never` holds is never in the id."""
    for field in fields(kind):
        mark = "never" if never else field.metadata["id"]
        made = None if field.default_factory is NO_DEFAULT else field.default_factory()
        if is_dataclass(made):
            yield from marks(made, f"{prefix}{field.name}.", mark == "never")
        else:
            yield f"{prefix}{field.name}", mark


def test_the_tables_above_follow_the_marks() -> None:
    """A seed counts through the four seeds; train.devices changes roundings only, where there are no norm layers."""
    found = dict(marks(Config()))
    never = {name for name, mark in found.items() if mark == "never"} - {"seed", "grids"}
    assert never == OPERATIONAL.keys() - {"train.devices"}
    assert found.keys() - never - {"grids"} == IDENTITY.keys() | WITHOUT_EFFECT | {"train.devices"}


def test_a_mark_says_when_a_value_counts() -> None:
    base = Config(model=Model(name="fc"), pruning=Pruning(name="global"), method=METHODS["dense"].settings())
    default = projection(base)
    assert default["model"] == {"name": "fc", "width": 1.0}  # always
    other = replace(base, model=Model(name="fc", temperature=2.0), data=replace(base.data, root="/elsewhere"))
    assert projection(other)["model"] == {"name": "fc", "width": 1.0, "temperature": 2.0}  # if_changed
    assert projection(other)["data"] == default["data"]  # never


@dataclass(kw_only=True, slots=True)
class LaterSettings(MethodSettings):
    name: str = setting("edge_popup", id="always")
    steps: int = setting(3, id="if_changed")
    verbose: bool = setting(False, id="never")


def test_settings_that_a_method_gets_later_follow_their_marks_too() -> None:
    def of_method(method: MethodSettings) -> str:
        return folder_name(Config(model=Model(name="fc"), pruning=Pruning(name="global"), method=method))

    now, then = of_method(LaterSettings()), of_method(METHODS["edge_popup"].settings())
    assert now == then == of_method(LaterSettings(verbose=True)) != of_method(LaterSettings(steps=4))


# Settings that a run does not use: with `base` they change nothing, and with `off` besides they do.
# (base, unused settings with other values, off) for each line of identity.UNUSED, in order.
NORMS = {"model.name": "cifar_resnet18"}
ONE_EPOCH = {"train.epochs": 1, "train.lr": 0.7, "train.weight_decay": 0.3}
TABLE: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"method.name": "sampled"}, {"prune_rate": 0.9, "pruning.name": "global"}, {"method.name": "edge_popup"}),
    ({"pruning.name": "layerwise"}, {"pruning.floor": 0.3}, {"pruning.name": "global"}),
    ({"pruning.ramp_epochs": 0}, {"pruning.start_rate": 0.1}, {"pruning.ramp_epochs": 3}),
    (
        {"method.name": "random_trained", "pruning.ramp_epochs": 3},
        {"pruning.ramp_epochs": 2, "pruning.start_rate": 0.1},
        {"method.name": "edge_popup"},
    ),
    ({"pruning.structure": "block"}, {"pruning.m": 8}, {"pruning.structure": "n_m"}),
    ({"pruning.structure": "n_m"}, {"pruning.block": 8}, {"pruning.structure": "block"}),
    ({"pruning.structure": "channel"}, {"pruning.indivisible": "dense"}, {"pruning.structure": "block"}),
    (
        {"method.name": "last_layer"},
        {"model.first_layer": "dense", "model.last_layer": "dense"},
        {"method.name": "edge_popup"},
    ),
    ({"method.name": "dnw"}, {"seeds.scores": 4}, {"method.name": "edge_popup"}),
    ({"data.validation": 0}, {"seeds.split": 4}, {"data.fraction": 0.5}),
    ({"method.name": "random"}, {"seeds.data": 4}, {"train.norm_batches": 2}),
    ({"data.size": 16}, {"data.resize": 16}, {"data.size": 15}),
    (
        {"data.one_batch": True},
        {"data.crop": 2, "data.flip": True, "data.resized_crop": True, "data.augment": ["RandomInvert"]},
        {"data.one_batch": False},
    ),
    ({"method.name": "random"}, {"data.fraction": 0.5, "data.one_batch": True}, {"method.name": "random_trained"}),
    ({"train.optimizer": "adam"}, {"train.momentum": 0.1, "train.nesterov": True}, {"train.optimizer": "sgd"}),
    (
        {"train.schedule": "cosine"},
        {"train.milestones": [3], "train.gamma": 0.3},
        {"train.schedule": "multistep", "train.milestones": [5]},
    ),
    ({**NORMS, "train.weight_decay": 0}, {"train.norm_decay": False}, {"train.weight_decay": 0.1}),
    ({"method.name": "last_layer"}, {"train.norm_affine": True}, {"method.name": "edge_popup"}),
    ({"method.name": "random_trained"}, {"train.norm_affine": True}, {"method.name": "warmup_then_prune"}),
    ({**NORMS, "train.sync_norm": True}, {"train.devices": 2}, {"train.sync_norm": False}),
    ({"method.name": "random"}, {**ONE_EPOCH, "train.batch_size": 9}, {"method.name": "random_trained"}),
    ({"method.name": "random", "train.norm_batches": 2}, ONE_EPOCH, {"method.name": "random_trained"}),
]


def test_the_table_has_a_line_for_each_of_the_conditions() -> None:
    assert len(TABLE) == len(UNUSED)


@pytest.mark.parametrize(("line", "example"), [*enumerate(TABLE)], ids=[", ".join(names)[:40] for names, *_ in UNUSED])
def test_an_unused_setting_is_not_part_of_the_id(
    line: int, example: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    names, is_unused, _ = UNUSED[line]
    base, others, off = example
    for name, value in others.items():
        assert name in names or name.partition(".")[0] in names
        without, with_it = (changed(given, tmp_path) for given in (base, {**base, name: value}))
        assert is_unused(with_it)
        assert folder_name(with_it) == folder_name(without), name
        without, with_it = (changed(given, tmp_path) for given in ({**base, **off}, {**base, **off, name: value}))
        assert not is_unused(with_it)
        assert folder_name(with_it) != folder_name(without), name


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        ({"method.name": "dense"}, "prune_rate", 0.9),
        ({"method.name": "dense"}, "seeds.scores", 4),
        ({"method.name": "random", "data.validation": 0, "data.fraction": 0.5}, "seeds.split", 4),
        ({"method.name": "random"}, "data.flip", True),
        ({}, "train.norm_decay", False),  # a network without norm layers
        ({}, "train.devices", 2),
        ({"method.name": "sampled"}, "method.score_constant", 1.0),  # its scores are uniform
    ],
)
def test_further_settings_that_are_not_part_of_the_id(
    base: dict[str, Any], name: str, value: Any, tmp_path: Path
) -> None:
    assert folder_name(changed(base, tmp_path)) == folder_name(changed({**base, name: value}, tmp_path))


def test_roundings_count_where_nothing_is_trained_too(tmp_path: Path) -> None:
    other = {"train.precision": "bf16", "train.channels_last": True, "train.compile": True}
    assert set(UNTRAINED_USES) == set(other)
    for method in ("random", "dense"):
        base = {"method.name": method}
        names = [folder_name(changed({**base, key: value}, tmp_path)) for key, value in [*other.items(), ("seed", 0)]]
        assert len(set(names)) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["prune_rate=0.30000000000000004"], ["prune_rate=0.3"]),
        (["prune_rate=0.7000000000000001"], ["prune_rate=0.7"]),
        (["prune_rate=0"], ["prune_rate=0.0"]),
        (
            ["model.width=1", "train.lr=1", "train.momentum=0"],
            ["model.width=1.0", "train.lr=1.0", "train.momentum=0.0"],
        ),
        (["train.weight_decay=1e-4"], ["train.weight_decay=0.0001"]),
        (["seed=3"], ["seed=3", "seeds.weights=3", "seeds.scores=3", "seeds.data=3", "seeds.split=3"]),
        (["method=dense", "train.lr=0.01"], ["train.lr=0.01", "method=dense", "prune_rate=0.1"]),
    ],
)
def test_spellings_of_the_same_run(compose: Compose, first: list[str], second: list[str]) -> None:
    assert folder_name(compose(*first)) == folder_name(compose(*second))


def test_seed_sets_all_four_streams(compose: Compose) -> None:
    each = compose("seeds.weights=3", "seeds.scores=3", "seeds.data=3", "seeds.split=3")
    assert projection(compose("seed=3")) == projection(each)
    assert projection(compose("seed=3", "seeds.data=0")) != projection(each)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_widths_of_one_name_are_one_network(model: str) -> None:
    """0.57 and 0.5700000000000001 are the same run, so 100 features must not become 56 or 57."""
    for hundredths in range(17 if model == "lenet5" else 10, 200):  # which has 6 channels
        width = hundredths / 100
        sizes = [plan(model, each, (3, 32, 32), 10) for each in (width, nextafter(width, 0), nextafter(width, 9))]
        assert sizes[0] == sizes[1] == sizes[2], width


@pytest.mark.parametrize(
    ("rate", "words", "earlier"),
    [
        (0.5, "-pr0.5-", None),
        (0.123456789, "-pr0.123457-", None),
        (0.99999999999, "-pr0.99999999999-", "-pr1-"),
        (1e-7, "-pr1e-07-", None),
        (0.50000000001, "-pr0.50000000001-", "-pr0.5-"),
        (0.4999999999, "-pr0.4999999999-", "-pr0.5-"),
        (1.0000001e-7, "-pr1.0000001e-07-", "-pr1e-07-"),
        (0.5000000000001, "-pr0.5-", None),  # the same run as 0.5
        (0.30000000000000004, "-pr0.3-", None),
        (0.123456, "-pr0.123456-", None),
        (0.0123456, "-pr0.0123456-", None),
        (1 / 3, "-pr0.333333-", None),
    ],
)
def test_a_rate_is_not_rounded_to_another_that_looks_exact(
    compose: Callable[..., Config], rate: float, words: str, earlier: str | None
) -> None:
    config = compose(f"prune_rate={rate}")
    before = earlier_folder_name(config)
    assert words in folder_name(config)
    assert before == (earlier and folder_name(config).replace(words, earlier))


@pytest.mark.parametrize("rate", [0.99999999999, 0.50000000001])
def test_a_folder_with_the_earlier_name_is_found(rate: float, compose: Callable[..., Config], tmp_path: Path) -> None:
    config = compose(f"prune_rate={rate}", f"out={tmp_path}")
    assert folder_of(config).name == folder_name(config)
    earlier = earlier_folder_name(config)
    assert earlier is not None
    (tmp_path / earlier).mkdir()
    assert folder_of(config) == tmp_path / earlier
    sweep = sweeps.write(sweeps.plan([config], "rate"), {})
    assert sweep.runs == [tmp_path / earlier]
    assert sweep.configs[0].prune_rate == rate


def test_the_name_of_a_number_with_six_digits_or_fewer_is_what_it_was() -> None:
    for count in range(1, 2000, 7):
        for rate in (count / 2000, count * 499 / 1e6, count / 1e9):
            config = Config(method=METHODS["edge_popup"].settings(), prune_rate=rate, model=Model(width=rate))
            assert earlier_folder_name(config) is None, rate


@pytest.mark.parametrize("typed", [(), ("method=dense",), ("method=random", "seeds.scores=3"), ("data.fraction=0.5",)])
def test_projections_of_runs_that_share_all_but_their_seed(compose: Compose, typed: tuple[str, ...]) -> None:
    first, other = compose(*typed), compose(*typed, "prune_rate=0.7")
    # In the last two the arguments are equal to Python, and are other runs.
    one, true = (replace(first, train=replace(first.train, optimizer_args={"x": each})) for each in (1, True))
    configs = [replace(each, seed=seed) for seed in (0, 3, 7) for each in (first, other, one, true)]
    found = projections(configs)
    assert [repr(each) for each in found] == [repr(projection(config)) for config in configs]
    computed: list[Config] = []
    once_but_seed(configs, computed.append, lambda _, config: None)
    assert computed == [first, other, one, true]
