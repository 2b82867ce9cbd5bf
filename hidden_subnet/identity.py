"""A run is named by what it is: the same settings give the same folder, on any day and any machine.

Changing what this file computes would rename finished runs. So a setting added later is left out of the projection
while it holds the value that means the old behaviour, and anything else is a new SCHEMA with a note for users.
"""

import hashlib
import json
import re
from dataclasses import asdict
from typing import Any

from hidden_subnet.config import as_dict, normalised
from hidden_subnet.settings import (
    UNMASKED,
    Config,
    Data,
    Dnw,
    Library,
    Method,
    OptimizerName,
    PruningName,
    Random,
    RandomTrained,
    Sampled,
    ScheduleName,
    ScoreInit,
)

SCHEMA = 1
WITHOUT_VECTORS = {"fc", "conv2", "conv4", "conv6", "conv8"}
"""Models without norm layers and biases, for which train.norm_decay changes nothing."""
_ROUNDING = {"precision": "fp32", "channels_last": False, "compile": False}


def seed_of(config: Config, stream: str) -> int:
    """The seed of `weights`, `scores`, `data` or `split`: its own where given, else the run's `seed`."""
    own = {
        "weights": config.seeds.weights,
        "scores": config.seeds.scores,
        "data": config.seeds.data,
        "split": config.seeds.split,
    }[stream]
    return config.seed if own is None else own


def has_rate(method: Method) -> bool:
    """Whether prune_rate and pruning have a part in it; what `sampled` keeps is an outcome."""
    return not isinstance(method, (*UNMASKED, Sampled))


def projection(config: Config) -> dict[str, Any]:
    """What makes two runs the same run: no operational setting, and none that the method does not use."""
    config = normalised(config)
    settings = as_dict(config)
    data = _data(config, settings["data"])
    seeds = {stream: seed_of(config, stream) for stream in ("weights", "scores", "data", "split")}
    what: dict[str, Any] = {
        "schema": SCHEMA,
        "model": _model(config, settings["model"]),
        "init": settings["init"],
        "data": data,
        "method": _method(config.method, settings["method"]),
        "seeds": seeds,
    }
    if config.pretrained_sha256 is not None:
        what["pretrained"] = config.pretrained_sha256
    if config.data.validation == 0 and not {"fraction", "one_batch"} & data.keys():
        del seeds["split"]
    if isinstance(config.method, (*UNMASKED, Dnw)):
        del seeds["scores"]
    if has_rate(config.method):
        what |= {"pruning": _pruning(config, settings["pruning"]), "prune_rate": config.prune_rate}
    if isinstance(config.method, Random):
        used = _rounding(settings["train"])
        if config.train.norm_batches:
            used |= {key: settings["train"][key] for key in ("norm_batches", "batch_size")}
        else:
            del seeds["data"]
        if used:
            what["train"] = used
    else:
        what["train"] = _training(config, settings["train"])
    return what


def _rounding(train: dict[str, Any]) -> dict[str, Any]:
    """What changes the last bits on the same machine, where it is not as it was before it could be chosen."""
    return {key: train[key] for key, before in _ROUNDING.items() if train[key] != before}


def _data(config: Config, data: dict[str, Any]) -> dict[str, Any]:
    what = {key: data[key] for key in ("name", "validation", "crop", "flip")}
    later = ("pad", "size", "resize", "resized_crop", "fraction", "one_batch", "found")
    before = asdict(Data())
    what |= {key: data[key] for key in later if data[key] != before[key]}
    if data["resize"] == data["size"]:
        what.pop("resize", None)  # as 0 means
    augmentation = ("crop", "flip", "resized_crop")
    unused: tuple[str, ...] = augmentation if config.data.one_batch else ()
    if isinstance(config.method, Random) and not config.train.norm_batches:
        unused = (*augmentation, "fraction", "one_batch")
    return {key: value for key, value in what.items() if key not in unused}


def _method(method: Method, settings: dict[str, Any]) -> dict[str, Any]:
    constant = isinstance(method, Sampled) and method.score_init is ScoreInit.constant
    return {key: value for key, value in settings.items() if key != "score_constant" or constant}


def _pruning(config: Config, pruning: dict[str, Any]) -> dict[str, Any]:
    unused = set()
    if config.pruning.name is PruningName.layerwise:
        unused |= {"floor"}
    if config.pruning.ramp_epochs == 0 or isinstance(config.method, Random | RandomTrained):
        unused |= {"ramp_epochs", "start_rate"}
    return {key: value for key, value in pruning.items() if key not in unused}


def _model(config: Config, model: dict[str, Any]) -> dict[str, Any]:
    unused = {"first_layer", "last_layer"} if isinstance(config.method, UNMASKED) else set()
    since = {
        "library": "own",
        "norm": "batch_fixed",
        "first_layer": "masked",
        "last_layer": "masked",
        "temperature": 1.0,
    }
    return {key: value for key, value in model.items() if key not in unused and value != since.get(key)}


def _training(config: Config, train: dict[str, Any]) -> dict[str, Any]:
    unused = {"device", "threads", "profile", "cuda_graph", "sync_norm", *_ROUNDING} - _rounding(train).keys()
    plain = config.model.library is Library.own and config.model.name in WITHOUT_VECTORS
    # Otherwise the number of processes changes roundings only, as that of threads does.
    if config.train.devices == 1 or config.train.sync_norm or plain:
        unused.add("devices")
    if config.train.norm_decay or config.train.weight_decay == 0 or plain:
        unused.add("norm_decay")
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
    if config.pretrained_sha256 is not None:
        words.append("pretrained")
    if has_rate(config.method):
        if config.pruning.name is not PruningName.layerwise:
            words.append(config.pruning.name.name)
        words.append(f"pr{config.prune_rate:g}")
    # From the projection, so that one run has one name: seed=3, or the four streams set to 3.
    seeds = projection(config)["seeds"].values()
    words.append("s" + ".".join(map(str, seeds if len(set(seeds)) > 1 else [*seeds][:1])))
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(words))[:80]


def folder_name(config: Config) -> str:
    return f"{slug(config)}-{digest(projection(config))[:12]}"
