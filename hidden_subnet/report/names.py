"""Names of settings and their values as a reader of a figure or a paper expects them: "edge-popup", "quarter width"."""

from collections.abc import Mapping
from typing import Any

from hidden_subnet.config.differences import shown

VALUES: dict[str, dict[Any, str]] = {
    "method": {
        "edge_popup": "edge-popup",
        "random": "random masks",
        "random_trained": "random masks, trained",
        "finetune": "given masks, trained",
        "fixed": "given masks",
        "sampled": "sampled",
        "signed": "signed supermask",
        "biprop": "biprop (MPT-1/32)",
        "iterand": "IteRand",
        "gem_miner": "Gem-Miner",
        "multicoat": "multicoated supermask",
        "snip": "SNIP",
        "grasp": "GraSP",
        "synflow": "SynFlow",
        "magnitude": "magnitude pruning",
        "imp": "iterative magnitude pruning",
        "dense": "dense",
        "dnw": "DNW",
        "warmup_then_prune": "warm-up, then pruned",
        "last_layer": "last layer trained",
    },
    "model": {
        "fc": "FC",
        **{f"conv{layers}": f"Conv{layers}" for layers in (2, 4, 6, 8)},
        **{f"cifar_resnet{layers}": f"ResNet-{layers} (CIFAR)" for layers in (18, 34, 50, 101, 152)},
        **{f"resnet{layers}": f"ResNet-{layers}" for layers in (18, 20, 32, 34, 50, 56, 101, 110)},
        **{f"wide_resnet{layers}_2": f"Wide ResNet-{layers}-2" for layers in (50, 101)},
        "vgg_small": "VGG-small",
        "vgg16": "VGG-16",
        "lenet5": "LeNet-5",
    },
    "data": {
        "digits": "Digits",
        "synthetic": "Synthetic",
        "mnist": "MNIST",
        "fashion_mnist": "Fashion-MNIST",
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "bigcifar10": "enlarged CIFAR-10",
        "imagenet": "ImageNet",
        "tiny_imagenet": "Tiny ImageNet",
    },
    "init": {
        "signed_constant": "signed constant",
        "unsigned_constant": "unsigned constant",
        "kaiming_normal": "Kaiming normal",
        "kaiming_uniform": "Kaiming uniform",
        "xavier_normal": "Xavier normal",
        "xavier_constant": "Xavier constant",
        "standard": "torch's default",
    },
    "pruning": {"layerwise": "layerwise", "global": "global", "erk": "ERK", "balanced": "balanced"},
    "structure": {"weight": "single weights", "n_m": "N:M", "block": "blocks", "channel": "channels"},
    "norm_affine": {True: "batch norm learned", False: "batch norm not learned"},
    "width": {0.25: "quarter width", 0.5: "half width", 1.0: "full width", 2.0: "double width"},
}
"""Names of all that is ours, which a test compares with the registries; parts of users have none here."""
PARTS = ("data", "model", "method", "init", "pruning")
"""Settings whose value says enough: "global" and not "pruning global"."""
SETTINGS = {
    "prune_rate": "prune rate (fraction of weights removed)",
    "lr": "learning rate",
    "width": "width (multiplies all hidden channels)",
    "epochs": "training epochs",
    "fraction": "fraction of the training images",
    "batch_size": "images per step",
    "m": "M (consecutive inputs of a group)",
    "block": "block size (outputs and inputs)",
    "seed": "seed",
}


def value_name(setting: str, value: Any) -> str:
    """Return the name of a value of the setting with this short name: "edge-popup", "half width", "learning rate 0.1".

    "" where the setting is not used (None).
    """
    if value is None:
        return ""
    known = VALUES.get(setting, {})
    if value in known:
        return known[value]
    if setting in PARTS:
        return shown(value).replace("_", " ")
    return f"{setting_name(setting)} {shown(value)}"


def setting_name(setting: str) -> str:
    """Return the name of a setting inside a name: "learning rate" for lr."""
    return SETTINGS.get(setting, setting.replace("_", " ")).partition(" (")[0]


def axis_name(setting: str) -> str:
    """Return the label of the axis along which a setting varies."""
    return SETTINGS.get(setting, setting.replace("_", " "))


def joined(settings: Mapping[str, Any]) -> str:
    """Return the name of what these settings are together: "edge-popup, global"."""
    return ", ".join(name for name in (value_name(*each) for each in settings.items()) if name)
