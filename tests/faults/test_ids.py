"""The id of a run: the same however it is spelled, another for every other run."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from helpers.real_commands import FULL, figure

from hidden_subnet.config.convert import from_dict
from hidden_subnet.config.identity import digest, folder_name, projection
from hidden_subnet.config.settings import Config

pytestmark = pytest.mark.slow


def draw(rng: random.Random) -> dict[str, Any]:
    """Settings of a run as from_dict takes them."""
    schedule = rng.choice(["cosine", "constant", "multistep"])
    return {
        "model": {"name": rng.choice(["fc", "conv2", "conv4", "conv6"]), "width": rng.choice([0.125, 0.5, 1.0])},
        "init": {"name": rng.choice(["signed_constant", "kaiming_normal"]), "mode": rng.choice(["fan_in", "fan_out"])},
        "data": {
            "name": rng.choice(["digits", "mnist", "cifar10"]),
            "validation": rng.choice([0.0, 0.1, 0.2]),
            "crop": rng.choice([0, 1, 4]),
            "flip": rng.choice([True, False]),
        },
        "pruning": {"name": "layerwise"},
        "method": {"name": rng.choice(["edge_popup", "dense", "random"])},
        "train": {
            "epochs": rng.randint(3, 200),
            "batch_size": rng.choice([20, 60, 64, 128]),
            "lr": round(10 ** rng.uniform(-4, 0), rng.randint(4, 9)),
            "optimizer": rng.choice(["sgd", "adam"]),
            "momentum": rng.choice([0.0, 0.9]),
            "weight_decay": rng.choice([0.0, 1e-4, 5e-4]),
            "schedule": schedule,
            "milestones": [1, 2] if schedule == "multistep" else [],
            "label_smoothing": rng.choice([0.0, 0.1]),
        },
        "tracker": {"name": "none"},
        "prune_rate": round(rng.uniform(0.0, 0.99), rng.randint(1, 9)),
        "seed": rng.randint(0, 10**6),
    }  # fmt: skip


def respelled(settings: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The same run: keys in another order, numbers as other texts read, and other operational settings."""

    def other(value: Any) -> Any:
        if isinstance(value, dict):
            keys = rng.sample(list(value), len(value))
            return {key: other(value[key]) for key in keys}
        if isinstance(value, float):
            return int(value) if value == int(value) else value * (1 + rng.choice([-1, 1]) * 2.2e-16)
        return value

    said: dict[str, Any] = other(settings)
    said["train"] |= {"threads": rng.randint(1, 9), "device": rng.choice(["auto", "cpu"])}
    said["data"]["root"] = rng.choice(["data", "/elsewhere"])
    return said | {
        "out": f"runs{rng.randint(0, 9)}",
        "force": rng.random() < 0.5,
        "checkpoint": {"minutes": rng.randint(0, 9)},
        "claim": {"silent_seconds": rng.randint(5, 99)},
        "tracker": {"name": rng.choice(["wandb", "both"]), "tags": ["a"]},
    }


def another(settings: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Another run: one thing that counts for every method is different."""
    change = rng.choice(["seed", "width", "validation", "data", "init"])
    match change:
        case "seed":
            return settings | {"seed": settings["seed"] + 1}
        case "width":
            return settings | {"model": settings["model"] | {"width": settings["model"]["width"] * 1.0001}}
        case "validation":
            return settings | {"data": settings["data"] | {"validation": settings["data"]["validation"] + 0.01}}
        case "data":
            return settings | {"data": settings["data"] | {"name": "fashion_mnist"}}
        case _:
            return settings | {"init": {"name": "xavier_normal"}}


def test_f14_ids(compose: Callable[..., Config]) -> None:
    rng, count = random.Random(14), 100_000 if FULL else 3_000
    names: dict[str, str] = {}
    same = different = collisions = 0
    for _ in range(count):
        settings = draw(rng)
        config = from_dict(settings)
        name = folder_name(config)
        same += folder_name(from_dict(respelled(settings, rng))) == name
        different += folder_name(from_dict(another(settings, rng))) != name
        whole = digest(projection(config))
        collisions += names.setdefault(name.rpartition("-")[2], whole) != whole
    spelled = [["prune_rate=0.3", "seed=3"], ["seed=3", "prune_rate=3e-1"],
               ["prune_rate=0.30000000000000004", "seed=3"],
               ["prune_rate=0.3", "seeds.weights=3", "seeds.scores=3", "seeds.data=3", "seeds.split=3"]]  # fmt: skip
    typed = {folder_name(compose(*each)) for each in spelled}
    figure(
        f"F14: ids of {count} configs: respelled the same {same}/{count}, changed different {different}/{count}, "
        f"collisions {collisions}; typed in {len(spelled)} ways: {len(typed)} id"
    )
    assert (same, different, collisions) == (count, count, 0)
    assert len(typed) == 1
    assert len(names) > 0.9 * count
