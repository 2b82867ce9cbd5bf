"""sweeps/reference.csv: the authors' 112 experiments and our commands for them, setting by setting.

What is expected comes from their own settings (tests/data/experiments.json), never from the csv.
"""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from composing import make_composer
from image_folders import make_folder

from hidden_subnet import record
from hidden_subnet.experiment import masked, unmasked
from hidden_subnet.feed import open_feed
from hidden_subnet.fit import Hooks, fit
from hidden_subnet.identity import folder_name, has_rate, projection
from hidden_subnet.layers import masked_layers
from hidden_subnet.settings import Config
from hidden_subnet.subnetwork import weights_digest
from hidden_subnet.training import evaluate

ROOT = Path(__file__).parents[1]
EXPERIMENTS: list[dict[str, Any]] = json.loads((ROOT / "tests" / "data" / "experiments.json").read_text())
with (ROOT / "sweeps" / "reference.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
IDS = [experiment["experiment"] for experiment in EXPERIMENTS]

# The authors' defaults, for the keys that an experiment does not name.
DEFAULTS: dict[str, Any] = {
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "lr_policy": "constant_lr",
    "warmup_length": 0,
    "nesterov": False,
    "init": "kaiming_normal",
    "mode": "fan_in",
    "nonlinearity": "relu",
    "scale_fan": False,
    "label_smoothing": 0,
    "width_mult": 1,
    "trainer": "default",
}
# Read by nothing in the authors' code, or not a setting.
SILENT = {"experiment", "note", "baseline"}
FROZEN = {"SubnetConv": True, "SampleSubnetConv": True, "DenseConv": False, "RGConv": False, "DNWConv": False}
METHODS: dict[str, dict[str, Any]] = {
    "SubnetConv": {"name": "edge_popup"},
    "SampleSubnetConv": {"name": "sampled", "evaluation": "sample", "score_init": "uniform", "penalty": 0.0},
    "DenseConv": {"name": "dense"},
    "RGConv": {"name": "random_trained"},
    "DNWConv": {"name": "dnw"},
}
MODELS = {
    "FC": "fc",
    "Conv2": "conv2",
    "Conv4": "conv4",
    "Conv6": "conv6",
    "Conv8": "conv8",
    "Conv4Wide": "conv4",
    "Conv6Wide": "conv6",
    "cResNet18": "cifar_resnet18",
    "ResNet18": "resnet18",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "WideResNet50_2": "wide_resnet50_2",
    "WideResNet101_2": "wide_resnet101_2",
}
DATA: dict[str, dict[str, Any]] = {
    "MNIST": {"name": "mnist", "crop": 0, "flip": False},
    "CIFAR10": {"name": "cifar10", "crop": 4, "flip": True},
    "ImageNet": {
        "name": "imagenet",
        "crop": 0,
        "flip": True,
        "size": 224,
        "resize": 256,
        "resized_crop": True,
    },
}
SCHEDULES = {"cosine_lr": "cosine", "constant_lr": "constant"}


def expected(experiment: dict[str, Any]) -> dict[str, Any]:
    """What the run must be, as identity.projection says it: every setting that can change its result."""
    known = {**DEFAULTS, **{key: value for key, value in experiment.items() if key not in SILENT}}
    take = known.pop
    conv, adam = take("conv_type"), take("optimizer") == "adam"
    arch, norm = take("arch"), take("bn_type")
    model: dict[str, Any] = {"name": MODELS[arch], "width": float(take("width_mult"))}
    if norm == "LearnedBatchNorm":
        assert "ResNet" in arch
        model["norm"] = "batch"
    scale = "density" if take("scale_fan") else "none"
    what: dict[str, Any] = {
        "model": model,
        "init": {"name": take("init"), "mode": take("mode"), "scale": scale},
        "data": {**DATA[take("set")], "validation": 0.0},
        "method": METHODS[conv],
        "train": {
            "epochs": take("epochs"),
            "batch_size": take("batch_size"),
            "lr": float(take("lr")),
            "optimizer": "adam" if adam else "sgd",
            "momentum": take("momentum"),
            "nesterov": take("nesterov"),
            "weight_decay": float(take("weight_decay")),
            "schedule": SCHEDULES[take("lr_policy")],
            "warmup_epochs": take("warmup_length"),
            "label_smoothing": float(take("label_smoothing")),
        },
    }
    if adam:  # theirs is given the learning rate only
        del what["train"]["momentum"], what["train"]["nesterov"]
        what["train"]["weight_decay"] = 0.0
    if conv in ("SubnetConv", "RGConv", "DNWConv"):
        what["pruning"] = {"name": "layerwise"}
    assert take("freeze_weights", False) == FROZEN[conv]
    assert take("prune_rate", -1) == (
        0 if experiment["experiment"] == "smallscale/resnet18/resnet18-dense.yaml" else -1
    )
    assert (take("nonlinearity"), take("trainer")) == ("relu", "default")
    assert not known, f"not compared: {known}"
    return what


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for ImageNet; ten classes, so that it stands for CIFAR-10 too."""
    return make_folder(tmp_path_factory.mktemp("images"), classes=10, train=2, val=1)


@pytest.fixture(scope="module")
def composed(images: Path) -> Callable[..., Config]:
    """composed(command, ...): the checked config of a command of the csv, with settings added to it."""
    composer = make_composer()
    return lambda command, *added: composer.compose([*words(command), f"data.root={images}", *added])


def words(command: str) -> list[str]:
    program, script, *settings = command.split()
    assert (program, script) == ("python", "launch.py")
    return settings


def test_every_experiment_has_its_row_in_order() -> None:
    assert [row["experiment"] for row in ROWS] == IDS
    assert len(set(IDS)) == 112


@pytest.mark.parametrize(
    ("experiment", "row"),
    [
        pytest.param(experiment, row, id=row["experiment"], marks=[pytest.mark.slow] * (index % 4 > 0))
        for index, (experiment, row) in enumerate(zip(EXPERIMENTS, ROWS, strict=True))
    ],
)
def test_every_setting_is_theirs(
    composed: Callable[..., Config], experiment: dict[str, Any], row: dict[str, str]
) -> None:
    config = composed(row["command"])
    what = projection(config)
    del what["schema"], what["seeds"]
    what["data"].pop("found", None)
    rate = what.pop("prune_rate", None)
    assert what == expected(experiment)
    # The rate is for whoever types it, as there: it stands in the command where there is one, and nowhere else.
    assert (rate is not None) == has_rate(config.method) == ("prune_rate=" in row["command"])
    assert rate in (None, 0.7 if experiment["set"] == "ImageNet" else 0.5)
    assert ("model.width=" in row["command"]) == experiment["arch"].endswith("Wide")


@pytest.mark.parametrize(("experiment", "row"), [*zip(EXPERIMENTS, ROWS, strict=True)], ids=IDS)
def test_the_notes_say_what_differs(
    composed: Callable[..., Config], experiment: dict[str, Any], row: dict[str, str]
) -> None:
    note = row["note"]
    for part in ("RGConv", "DNWConv"):
        assert (f"{part} is not defined" in note) == (experiment["conv_type"] == part) == (
            f"{part} is not defined" in experiment.get("note", "")
        )  # fmt: skip
    assert ("baseline=" in note) == ("baseline" in experiment)
    assert ("no weight decay" in note) == (experiment["optimizer"] == "adam")
    assert ("init.scale=reference" in note) == ("scale_fan" in experiment)
    assert ("takes its width" in note) == experiment["arch"].endswith("Wide")
    if "the same run as " in note:
        other = next(each for each in ROWS if each["experiment"] == note.partition("the same run as ")[2])
        assert folder_name(composed(row["command"])) == folder_name(composed(other["command"]))


def test_experiments_that_are_one_run_say_so(composed: Callable[..., Config]) -> None:
    runs = {folder_name(composed(row["command"])) for row in ROWS}
    assert len(runs) == len([row for row in ROWS if "the same run as " not in row["note"]]) == 98


def test_nothing_is_said_twice(composed: Callable[..., Config]) -> None:
    """But for what a reader looks for (the four parts, the rate, the width), no word of a command is a default."""
    kept = ("model=", "data=", "method=", "init=", "prune_rate=", "model.width=")
    for row in ROWS:
        settings, whole = words(row["command"]), folder_name(composed(row["command"]))
        for word in settings:
            if not word.startswith(kept):
                fewer = " ".join(["python launch.py", *(each for each in settings if each != word)])
                assert folder_name(composed(fewer)) != whole, (row["experiment"], word)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "init.scale=density" in row["command"]], ids=lambda r: r["experiment"]
)
def test_the_scale_may_be_turned_upside_down(composed: Callable[..., Config], row: dict[str, str]) -> None:
    config = composed(row["command"], "init.scale=reference", "prune_rate=0.9")
    assert (config.init.scale.name, config.prune_rate) == ("reference", 0.9)


def kind(experiment: dict[str, Any]) -> str:
    init = experiment.get("init", DEFAULTS["init"])
    return f"{experiment['arch']}-{METHODS[experiment['conv_type']]['name']}-{init}"


# One experiment of each architecture x method x init that occurs.
KINDS = {kind(experiment): row for experiment, row in reversed([*zip(EXPERIMENTS, ROWS, strict=True)])}
SMALL_DATA = {
    "data=mnist": ["data=synthetic", "data.size=28"],
    # Image files with three channels and ten classes, as CIFAR-10 has, and its side.
    "data=cifar10": ["data=imagenet", "data.size=32", "data.resize=32"],
    "data=imagenet": ["data=imagenet", "data.size=64", "data.resize=64"],
}
ONE_STEP = ["data.one_batch=true", "train.batch_size=2", "train.epochs=1", "train.warmup_epochs=0", "tracker=none"]
ONE_STEP += ["data.workers=0", "train.device=cpu"]


def test_every_kind_of_experiment_is_there() -> None:
    assert len(KINDS) == 65


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_one_batch_of_every_kind(composed: Callable[..., Config], name: str, tmp_path: Path) -> None:
    """Every network in its own size; those of the wide kind at half of it."""
    command = KINDS[name]["command"].replace("model.width=1", "model.width=0.5")
    data = next(word for word in words(command) if word.startswith("data="))
    config = composed(" ".join(word for word in command.split() if word != data), *SMALL_DATA[data], *ONE_STEP)
    hooks = Hooks(lambda row: None, lambda *step: None, lambda: False, lambda text: None)
    (tmp_path / "checkpoints").mkdir()
    with open_feed(config, "cpu") as feed:
        network = unmasked(config, "cpu")
        parts = masked(network, config, tmp_path, "cpu", feed)
        scores = {path: layer.scores.detach().sum().item() for path, layer in masked_layers(parts.model)}
        first = asdict(evaluate(parts.model, feed.test, "cpu"))
        progress, _ = fit(parts, {"unpruned": first, "first_mask": first}, None, hooks)
    shutil.rmtree(tmp_path / "checkpoints")  # half a gigabyte for the widest
    assert (progress.epoch, progress.step) == (1, 1)
    row = record.read_rows(tmp_path)[-1]
    assert math.isfinite(row["train/loss"])
    assert row["train/loss"] > 0
    method = config.method.name
    searches = method in ("edge_popup", "sampled", "dnw")  # dnw's scores are the weights that it trains
    assert (weights_digest(parts.model) == network.weights) == searches
    learned = [path for path, layer in masked_layers(parts.model) if layer.scores.detach().sum().item() != scores[path]]
    assert bool(learned) == searches
    if method == "dense":
        assert (scores, row["density"]) == ({}, 1)
    for path, layer in masked_layers(parts.model):
        n, kept = layer.weight.numel(), int(progress.masks[path].count_nonzero())
        if method == "sampled":
            assert 0 < kept < n or n < 1000
        else:
            assert kept == n - math.floor(Fraction(str(config.prune_rate)) * n), path
