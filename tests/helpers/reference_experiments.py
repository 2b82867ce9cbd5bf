"""The authors' 112 experiments (tests/data/experiments.json), and our commands for them (sweeps/reference.csv)."""

import csv
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
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
    """Return what the run must be, as identity.projection says it: every setting that can change its result."""
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


def words(command: str) -> list[str]:
    """Return the settings in a command of the csv."""
    program, script, *settings = command.split()
    assert (program, script) == ("python", "launch.py")
    return settings
