"""The id of a run: the same settings give the same folder, on every machine and in every version of the program.

`projection` returns the settings that can change the result: the fields marked so in settings.py, without those that
this run does not use (UNUSED below). The id is a digest of them. A change here would rename finished runs: a setting
that is added later must be marked `if_changed`. Runs whose result changes, while their settings stay, get a higher
schema (CHANGED below, or the `schema` of their method), so that an old result is not taken for theirs.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar, cast

from hidden_subnet.config.convert import as_dict, default_of, normalised
from hidden_subnet.config.parents import search_of
from hidden_subnet.config.registries import ALLOCATIONS, DATA, OPTIMIZERS, SCHEDULES, method_traits, model_entry
from hidden_subnet.config.settings import (
    Config,
    CustomModel,
    Library,
    Masking,
    Norm,
    Scale,
    Seeds,
    Structure,
    Train,
)

T = TypeVar("T")
STREAMS = tuple(field.name for field in fields(Seeds))
_ALL_BUT_SEED = attrgetter(*(field.name for field in fields(Config) if field.name != "seed"))
UNTRAINED_USES = ("train.precision", "train.channels_last", "train.compile")
"""Settings of `train` that change the rounding of an evaluation, and so are part of the id where nothing is trained."""


def seed_of(config: Config, stream: str) -> int:
    """Return the seed of a stream, one of STREAMS: seeds.<stream> where it is given, else `seed`."""
    own = {
        "weights": config.seeds.weights,
        "scores": config.seeds.scores,
        "data": config.seeds.data,
        "split": config.seeds.split,
    }[stream]
    return config.seed if own is None else own


def _trains_nothing(config: Config) -> bool:
    return not method_traits(config).is_trained()


def _sees_no_batch(config: Config) -> bool:
    """Return whether no training image is read: nothing is trained, and batch norm is not recalibrated."""
    return _trains_nothing(config) and config.train.norm_batches == 0


def _has_no_norm(config: Config) -> bool:
    """Return whether the network has no norm layers and biases: all parameters have two dimensions or more."""
    entry = model_entry(config.model)
    return entry is not None and not entry.has_norm


# An own part whose file is not imported is taken for one that uses all settings; its run is read, not executed.
def _has_no_floor(config: Config) -> bool:
    return config.pruning.name in ALLOCATIONS and not ALLOCATIONS[config.pruning.name].has_floor


def _has_no_momentum(config: Config) -> bool:
    return config.train.optimizer in OPTIMIZERS and not OPTIMIZERS[config.train.optimizer].has_momentum


def _has_no_milestones(config: Config) -> bool:
    return config.train.schedule in SCHEDULES and not SCHEDULES[config.train.schedule].has_milestones


def _needs_no_split(config: Config) -> bool:
    uses_part = config.data.fraction != 1 or config.data.one_batch
    return config.data.validation == 0 and (_sees_no_batch(config) or not uses_part)


# Settings, or whole groups, that are not part of the id where the condition holds, since they change nothing there; and
# why, for a line to a user who gives one ("" where it changes rounding or what is measured).
UNUSED: list[tuple[tuple[str, ...], Callable[[Config], bool], str]] = [
    (("pruning", "prune_rate"), lambda c: not method_traits(c).prunes_by_rate(c.method), "{method} has no prune rate"),
    (("pruning.floor",), _has_no_floor, "pruning={c.pruning.name} has no floor"),
    (
        ("pruning.ramp_epochs", "pruning.start_rate", "pruning.ramp"),
        lambda c: c.pruning.ramp_epochs == 0,
        "pruning.ramp_epochs is 0",
    ),
    (
        ("pruning.ramp_epochs", "pruning.start_rate", "pruning.ramp"),
        lambda c: not method_traits(c).follows_ramp,
        "the mask of {method} never changes",
    ),
    (("pruning.m",), lambda c: c.pruning.structure is not Structure.n_m, "pruning.structure is not n_m"),
    (("pruning.block",), lambda c: c.pruning.structure is not Structure.block, "pruning.structure is not block"),
    (
        ("pruning.indivisible",),
        lambda c: c.pruning.structure not in (Structure.n_m, Structure.block),
        "pruning.structure={c.pruning.structure.name} divides every layer",
    ),
    (("model.first_layer", "model.last_layer"), lambda c: not method_traits(c).masks, "{method} has no mask"),
    (
        ("seeds.scores",),
        lambda c: not method_traits(c).masks or method_traits(c).score_stream is None,
        "{method} draws no scores",
    ),
    (("seeds.split",), _needs_no_split, "all training images are used"),
    (("seeds.data",), _sees_no_batch, "{method} trains nothing"),
    (("data.resize",), lambda c: c.data.resize == c.data.size, "it is data.size"),
    (
        ("data.crop", "data.flip", "data.resized_crop", "data.augment"),
        lambda c: c.data.one_batch or _sees_no_batch(c),
        "no training image is augmented",
    ),
    (("data.fraction", "data.one_batch"), _sees_no_batch, "{method} trains nothing"),
    (
        ("train.momentum", "train.nesterov"),
        _has_no_momentum,
        "train.optimizer={c.train.optimizer} has no momentum",
    ),
    (
        ("train.milestones", "train.gamma"),
        _has_no_milestones,
        "train.schedule={c.train.schedule} has no milestones",
    ),
    (
        ("train.norm_decay",),
        lambda c: c.train.weight_decay == 0 or _has_no_norm(c),
        "nothing of it is decayed: there is no train.weight_decay, or the network has no norm layers and biases",
    ),
    (("train.norm_affine",), lambda c: method_traits(c).only_last_layer, "{method} trains only its last layer"),
    (("train.norm_affine",), lambda c: method_traits(c).trains_unmasked(), ""),  # they train with the weights
    # In these cases the number of processes changes rounding only, as the number of threads does.
    (("train.devices",), lambda c: c.train.sync_norm or _has_no_norm(c), ""),
    (tuple(f"train.{field.name}" for field in fields(Train)), _sees_no_batch, "{method} trains nothing"),
    (
        tuple(f"train.{field.name}" for field in fields(Train) if field.name not in ("norm_batches", "batch_size")),
        _trains_nothing,
        "{method} trains nothing",
    ),
]


def _has_dense_layer(config: Config) -> bool:
    return Masking.dense in (config.model.first_layer, config.model.last_layer)


def _trains_unmasked_since_2(config: Config) -> bool:
    """Return whether schema 1 left frozen what is not masked, though the weights train: in dnw, warmup_then_prune."""
    method, model = method_traits(config), config.model
    has_unmasked = model.norm is Norm.batch or model.library is not Library.own or _has_dense_layer(config)
    return method.masks and method.trains_weights() and method.trains != "weights" and has_unmasked


def _scales_dense_layers_in_1(config: Config) -> bool:
    """Return whether schema 1 scaled a layer of which nothing is removed."""
    is_scaled = config.init.scale is Scale.density and config.prune_rate > 0
    return is_scaled and method_traits(config).prunes_by_rate(config.method) and _has_dense_layer(config)


# Runs of which schema 1, that of version 0.1.0, computed another result; their schema is 2.
CHANGED: list[Callable[[Config], bool]] = [_trains_unmasked_since_2, _scales_dense_layers_in_1]


def schema(config: Config) -> int:
    """Return the number of the rules by which a run is computed: 1, or more where they have changed since."""
    return max(2 if any(changed(config) for changed in CHANGED) else 1, method_traits(config).schema(config.method))


def unused(config: Config) -> dict[str, str]:
    """Return the settings, or whole groups, that are not part of this run's id since they change nothing, and why."""
    method = f"method={config.method.name}"
    own = method_traits(config).unused_settings(config.method)
    found = {f"method.{name}": f"{method} does not use it beside its other settings" for name in own}
    for names, is_unused, why in UNUSED:
        if is_unused(config):
            found |= dict.fromkeys(names, why.format(method=method, c=config))
    if _trains_nothing(config):
        found = {name: why for name, why in found.items() if name not in UNTRAINED_USES}
    return found


def projection(config: Config) -> dict[str, Any]:
    """Return the settings that can change the result, as plain nested values: equal ones mean the same run."""
    config = normalised(config)
    return _projected(config, unused(config).keys(), defaults=False)


def once_but_seed(
    configs: Sequence[Config], compute: Callable[[Config], T], with_seed: Callable[[T, Config], T]
) -> list[T]:
    """Return what `compute` returns for each config, computed once for those that share all but their seed.

    The jobs of a sweep do (hydra_plugins/hidden_subnet/compose.py): all their settings are the same objects.
    with_seed: puts the seed of another config in the place of that in a result.
    """
    computed: dict[tuple[int, ...], T] = {}
    found = []
    for config in configs:
        key = tuple(map(id, _ALL_BUT_SEED(config)))
        if key in computed:
            found.append(with_seed(computed[key], config))
        else:
            found.append(computed.setdefault(key, compute(config)))
    return found


def projections(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Return the projection of each config; those that share their settings share the values in it."""

    def with_seed(what: dict[str, Any], config: Config) -> dict[str, Any]:
        return {**what, "seeds": {stream: seed_of(config, stream) for stream in what["seeds"]}}

    return once_but_seed(configs, projection, with_seed)


def settings_in_use(config: Config) -> dict[str, Any]:
    """Return the settings that act on the result, those of `projection` and those at the defaults that it omits."""
    config = normalised(config)
    # These are unused because of their own value, which says so.
    say_so = {"data.resize"} | ({"pruning.ramp_epochs"} if config.pruning.ramp_epochs == 0 else set())
    return _projected(config, unused(config).keys() - say_so, defaults=True)


def _projected(config: Config, without: AbstractSet[str], *, defaults: bool) -> dict[str, Any]:
    seeds = {stream: seed_of(config, stream) for stream in STREAMS}
    values = as_dict(config)
    what: dict[str, Any] = {"schema": schema(config), **_marked(config, values, defaults), "seeds": seeds}
    # The groups whose fields are marked one by one; those of own parts have more fields than our class.
    marked = (config.model, config.init, config.data, config.pruning, config.method, config.train)
    names = ("model", "init", "data", "pruning", "method", "train")
    what |= {name: _marked(group, values[name], defaults) for name, group in zip(names, marked, strict=True)}
    if "found" in what["data"]:
        what["data"]["found"] = what["data"].pop("found")  # last, behind what the user has set
    if "pretrained_sha256" in what:
        what["pretrained"] = what.pop("pretrained_sha256")
    if "mask_sha256" in what:
        what["mask"] = what.pop("mask_sha256")
    if "extend_sha256" in what:
        what["extend"] = what.pop("extend_sha256")
    for name in without:
        group, _, key = name.partition(".")
        if key:
            what.get(group, {}).pop(key, None)
        else:
            what.pop(group, None)
    if not what["train"]:
        del what["train"]
    search = search_of(config)
    return what if search is None else _with_search(what, projection(search))


def _with_search(what: dict[str, Any], search: dict[str, Any]) -> dict[str, Any]:
    """Return the projection of a run with that of the search of its mask: `search` holds what they have otherwise."""
    both = {
        name: {**value, **what[name]} if isinstance(value, dict) and name in what else what.get(name, value)
        for name, value in search.items()
        if name != "method"
    }
    others = {name: search[name] for name in ("schema", "train") if name in search and search[name] != both[name]}
    return {**what, **both, "search": {"method": search["method"], **others}}


def _marked(settings: Any, values: dict[str, Any], defaults: bool) -> dict[str, Any]:
    """Return the fields of `settings` that are part of the id, with their values among the plain `values`.

    `defaults`: also those that are part of it only where they differ from their default.
    """
    found: dict[str, Any] = {}
    for name, always, default in _marks(cast(Any, type(settings))):
        value = values[name]
        if defaults or always or value != default:
            found[name] = value
    return found


@functools.cache
def _marks(kind: Any) -> list[tuple[str, bool, Any]]:
    """Return the fields of a dataclass that may be part of the id: name, whether they always are, and default."""
    marks = [(field, field.metadata.get("id", "always")) for field in fields(kind)]  # own parts may have plain fields
    return [(field.name, mark == "always", default_of(field)) for field, mark in marks if mark != "never"]


def digest(what: dict[str, Any]) -> str:
    """Return the sha256 of plain values, 64 hex digits."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_id(what: dict[str, Any]) -> str:
    """Return the id of the run with this projection: the first 12 hex digits of its digest."""
    return digest(what)[:12]


def id_of(config: Config) -> str:
    """Return the id of the run of a config."""
    return run_id(projection(config))


def slug(config: Config) -> str:
    """Return the readable part of a folder's name: at most 80 characters of [A-Za-z0-9._-]."""
    return _slug(config, projection(config))


def folder_name(config: Config) -> str:
    """Return the name of the run's folder: the slug and the id."""
    return name_of(config, projection(config))


def name_of(config: Config, what: dict[str, Any]) -> str:
    """Return the same name where the projection of the config is known: `what`, which takes the time."""
    return f"{_slug(config, what)}-{run_id(what)}"


def earlier_folder_name(config: Config) -> str | None:
    """Return the name in older versions, with 6 digits: pr1 for prune_rate=0.99999999999. None if it is the same."""
    if all(_number(value) == f"{value:g}" for value in (config.model.width, config.prune_rate)):
        return None
    what = projection(config)
    return f"{_slug(config, what, '{:g}'.format)}-{run_id(what)}"


def _number(value: float) -> str:
    """Return 6 digits of a number, but all 12 where they would look exact and are not: 0.99999999999 is not 1.

    They look so where they are a whole number, or fewer than 6: 0.50000000001 is not 0.5, and 0.333333 may be a third.
    """
    short = f"{value:g}"
    digits = short.partition("e")[0].replace(".", "").lstrip("-0")
    looks_exact = "." not in short or len(digits) < 6
    return f"{value:.12g}" if looks_exact and float(short) != value else short


def _slug(config: Config, what: dict[str, Any], number: Callable[[float], str] = _number) -> str:
    library = f"{config.model.library.name}." if config.model.library is not Library.own else ""
    target = f".{config.model.target}" if isinstance(config.model, CustomModel) else ""
    words = [config.data.name, library + config.model.name + target]
    in_folders = config.data.name in DATA and DATA[config.data.name].in_folders
    if config.data.found.digest and not in_folders:  # files that are not the published ones
        words[0] += f".{config.data.found.digest[:6]}"
    if config.model.width != 1:
        words.append(f"w{number(config.model.width)}")
    words += [config.method.name, config.init.name]
    if config.pretrained_sha256 is not None:
        words.append("pretrained")
    if config.mask_sha256 is not None:
        words.append("mask")
    if config.extend_sha256 is not None:
        words.append("extended")
    if (search := search_of(config)) is not None:
        words.append(f"mask.{search.method.name}")
        config = search if method_traits(search).prunes_by_rate(search.method) else config
    if method_traits(config).prunes_by_rate(config.method):
        if config.pruning.name != "layerwise":
            words.append(config.pruning.name)
        if config.pruning.structure is not Structure.weight:
            words.append(config.pruning.structure.name)
        words.append(f"pr{number(config.prune_rate)}")
    # From the projection, so that seed=3 and all four streams set to 3 have one name: they are the same run.
    seeds = what["seeds"].values()
    words.append("s" + ".".join(map(str, seeds if len(set(seeds)) > 1 else [*seeds][:1])))
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(words))[:80]
