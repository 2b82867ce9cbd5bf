"""A run is named by what it is: the same settings give the same folder, on any day and any machine.

Changing what this file computes would rename finished runs. So a setting added later is left out of the projection
while it holds the value that means the old behaviour, and anything else is a new SCHEMA with a note for users.
"""

import hashlib
import json
import re
from typing import Any

from hidden_subnet.config import Config, Dense, Library, OptimizerName, Random, ScheduleName, as_dict, normalised

SCHEMA = 1


def seed_of(config: Config, stream: str) -> int:
    """The seed of `weights`, `scores`, `data` or `split`: its own where given, else the run's `seed`."""
    own = {
        "weights": config.seeds.weights,
        "scores": config.seeds.scores,
        "data": config.seeds.data,
        "split": config.seeds.split,
    }[stream]
    return config.seed if own is None else own


def projection(config: Config) -> dict[str, Any]:
    """What makes two runs the same run: no operational setting, and none that the method does not use."""
    config = normalised(config)
    settings = as_dict(config)
    data = {key: settings["data"][key] for key in ("name", "validation", "crop", "flip")}
    seeds = {stream: seed_of(config, stream) for stream in ("weights", "scores", "data", "split")}
    what: dict[str, Any] = {
        "schema": SCHEMA,
        "model": _model(config, settings["model"]),
        "init": settings["init"],
        "data": data,
        "method": settings["method"],
        "seeds": seeds,
    }
    if config.data.validation == 0:
        del seeds["split"]
    if isinstance(config.method, Dense):
        del seeds["scores"]
    else:
        what |= {"pruning": settings["pruning"], "prune_rate": config.prune_rate}
    if isinstance(config.method, Random):
        if config.train.norm_batches:
            what["train"] = {key: settings["train"][key] for key in ("norm_batches", "batch_size")}
        else:
            del seeds["data"], data["crop"], data["flip"]
    else:
        what["train"] = _training(config, settings["train"])
    return what


def _model(config: Config, model: dict[str, Any]) -> dict[str, Any]:
    unused = {"first_layer", "last_layer"} if isinstance(config.method, Dense) else set()
    since = {"library": "own", "norm": "batch_fixed", "first_layer": "masked", "last_layer": "masked"}
    return {key: value for key, value in model.items() if key not in unused and value != since.get(key)}


def _training(config: Config, train: dict[str, Any]) -> dict[str, Any]:
    unused = {"device", "threads"}
    if config.train.norm_batches == 0:
        unused |= {"norm_batches"}
    if config.train.optimizer is OptimizerName.adam:
        unused |= {"momentum", "nesterov"}
    if config.train.schedule is not ScheduleName.multistep:
        unused |= {"milestones", "gamma"}
    return {key: value for key, value in train.items() if key not in unused}


def digest(what: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def slug(config: Config) -> str:
    """The part of a folder's name that a person reads, at most 80 characters of [A-Za-z0-9._-]."""
    library = "torchvision." if config.model.library is Library.torchvision else ""
    words = [config.data.name.name, library + config.model.name]
    if config.model.width != 1:
        words.append(f"w{config.model.width:g}")
    words += [config.method.name, config.init.name.name]
    if not isinstance(config.method, Dense):
        words.append(f"pr{config.prune_rate:g}")
    # From the projection, so that one run has one name: seed=3, or the four streams set to 3.
    seeds = projection(config)["seeds"].values()
    words.append("s" + ".".join(map(str, seeds if len(set(seeds)) > 1 else [*seeds][:1])))
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(words))[:80]


def folder_name(config: Config) -> str:
    return f"{slug(config)}-{digest(projection(config))[:12]}"
