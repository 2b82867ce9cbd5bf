"""A run's name is a function of what the run is: the same for ever, and different for whatever gives other results."""

from collections.abc import Callable
from math import nextafter
from pathlib import Path
from typing import Any

import pytest
import yaml

from hidden_subnet.config import as_dict, load_config
from hidden_subnet.identity import digest, folder_name, projection
from hidden_subnet.models.plan import NAMES as MODEL_NAMES
from hidden_subnet.models.plan import plan
from hidden_subnet.settings import (
    METHODS,
    Config,
)

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

# Finished runs are found again by these names. They change only with a new identity.SCHEMA and a migration note that
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
    """The config read from SCHEMA_1 with `changes` ("group.key": value) written into it."""
    settings = yaml.safe_load(SCHEMA_1)
    for key, value in changes.items():
        *groups, last = key.split(".")
        inner = settings
        for group in groups:
            inner = inner.setdefault(group, {})  # settings later than SCHEMA_1; load_config refuses what is none
        inner[last] = value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load_config(path)


def test_golden_names(tmp_path: Path) -> None:
    found = [folder_name(changed(changes, tmp_path)) for changes, _ in GOLDEN]
    assert found == [name for _, name in GOLDEN]
    assert len({name[-12:] for name in found}) == 20


def test_a_fresh_run_has_its_golden_name(compose: Compose, tmp_path: Path) -> None:
    overrides = ["model=conv4", "data=cifar10", "train.epochs=100", "train.lr=0.1", "train.batch_size=64"]
    assert folder_name(compose(*overrides)) == GOLDEN[9][1]


OPERATIONAL: dict[str, Any] = {
    "out": "elsewhere",
    "force": True,
    "train.device": "cpu",
    "train.devices": 2,
    "train.sync_norm": True,
    "train.threads": 3,
    "train.profile": True,
    "train.cuda_graph": True,
    "data.root": "/elsewhere",
    "data.workers": 3,
    "plan": True,
    "on_error": "stop",
    "claim.silent_seconds": 30.0,
    "checkpoint.minutes": 0.0,
    "checkpoint.every": 2,
    "pretrained": "weights.pt",
    "evaluate": "runs/other",
    "tracker.name": "none",
    "tracker.project": "other",
    "tracker.entity": "me",
    "tracker.mode": "offline",
    "tracker.tags": ["a"],
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
    "model.name": "conv4",
    "model.library": "torchvision",
    "model.width": 0.5,
    "model.norm": "batch",
    "model.first_layer": "dense",
    "model.last_layer": "dense",
    "model.temperature": 2.0,
    "init.name": "kaiming_normal",
    "init.mode": "fan_out",
    "init.scale": "density",
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
    "train.norm_batches": 4,
    "train.precision": "bf16",
    "train.channels_last": True,
    "train.compile": True,
    "prune_rate": 0.51,
    "pruning.name": "layerwise",
    "pruning.floor": 0.2,
    "pruning.ramp_epochs": 3,
    "pruning.start_rate": 0.2,
    "seed": 2,
    "seeds.weights": 2,
    "seeds.scores": 2,
    "seeds.data": 2,
    "seeds.split": 2,
}
# Without a norm layer or a bias in any model, it changes nothing.
UNUSED = {"train.norm_decay"}


def leaves(settings: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in settings.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found


def test_every_setting_is_known_to_make_another_run_or_not() -> None:
    config = Config(method=METHODS["edge_popup"]())
    assert set(leaves(as_dict(config))) == {*OPERATIONAL, *IDENTITY, *UNUSED}


@pytest.mark.parametrize("method", METHODS)
def test_operational_settings_leave_the_name(tmp_path: Path, method: str) -> None:
    name = folder_name(changed({**BASE, "method.name": method}, tmp_path))
    for key, value in OPERATIONAL.items():
        assert folder_name(changed({**BASE, "method.name": method, key: value}, tmp_path)) == name, key


def test_every_other_setting_makes_another_run(tmp_path: Path) -> None:
    ids = {key: digest(projection(changed({**BASE, key: value}, tmp_path))) for key, value in IDENTITY.items()}
    ids["nothing"] = digest(projection(changed(BASE, tmp_path)))
    assert len(set(ids.values())) == len(ids)


def test_what_a_method_does_not_use_is_no_part_of_its_runs(tmp_path: Path) -> None:
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


def test_what_the_optimizer_and_schedule_do_not_use_is_left_out(tmp_path: Path) -> None:
    train = projection(changed({"train.optimizer": "adam"}, tmp_path))["train"]
    assert set(train) == {
        "epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "warmup_epochs", "label_smoothing",
    }  # fmt: skip
    train = projection(changed({"train.schedule": "multistep", "train.milestones": [3]}, tmp_path))["train"]
    assert set(train) == {
        "epochs", "batch_size", "lr", "optimizer", "momentum", "nesterov", "weight_decay", "schedule",
        "warmup_epochs", "milestones", "gamma", "label_smoothing",
    }  # fmt: skip


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
    for hundredths in range(10, 200):
        width = hundredths / 100
        sizes = [plan(model, each, (3, 32, 32), 10) for each in (width, nextafter(width, 0), nextafter(width, 9))]
        assert sizes[0] == sizes[1] == sizes[2], width
