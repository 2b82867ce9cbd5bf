"""Converts Hydra's composed config, or the config.yaml of a run, to the dataclasses of settings.py, and back.

Only this module and the command line know OmegaConf: all others see plain dataclasses.
"""

import functools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import Field, fields, is_dataclass, make_dataclass, replace
from enum import Enum
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hidden_subnet.config.layer_rates import plain_rates
from hidden_subnet.config.own_parts import USED, import_own_parts
from hidden_subnet.config.parsing import parse_yaml
from hidden_subnet.config.ranges import rounded
from hidden_subnet.config.registries import (
    ALLOCATIONS,
    DATA,
    METHODS,
    METRICS,
    MODELS,
    load_parts,
    method_traits,
    model_entry,
    unknown_names,
)
from hidden_subnet.config.settings import (
    Config,
    CustomModel,
    Data,
    MethodSettings,
    Model,
    Norm,
    Pruning,
    default_value,
    setting,
)
from hidden_subnet.errors import ConfigError

T = TypeVar("T")
EXAMPLE = "as in: grids: [{prune_rate: [0.1, 0.5]}]"
"""End of the lines on a file that is no preset."""


def register(presets: Path, arguments: Sequence[str] = (), own: Mapping[str, Path] | None = None) -> None:
    """Register with Hydra the schema, and every preset `presets/*.yaml` as an option of the group `sweep`.

    own: presets of the user's own by name, which go before those.

    It loads the parts, since the schema needs the settings of every method. Raises ValueError for a file that is not a
    preset, if one of the command line's `arguments` chooses it.
    """
    load_parts()
    store = ConfigStore.instance()
    # Hydra copies its repository, and this store with all our presets, each time that it composes a config. Nothing
    # writes to the copies, and Hydra copies again what it loads from the store.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    schema = OmegaConf.structured(Config)
    OmegaConf.set_struct(schema.pruning.rates, False)  # any name of a layer is a key
    OmegaConf.set_struct(schema.train.optimizer_args, False)
    schema.metric = {name: entry.settings for name, entry in METRICS.items() if entry.defaults()}
    store.store(name="schema", node=schema)
    for name, method in METHODS.items():
        store.store(group="schema/method", name=name, node=method.settings)
    for name, entry in DATA.items():
        store.store(group="schema/data", name=name, node=entry.settings)
    custom = OmegaConf.structured(CustomModel)
    OmegaConf.set_struct(custom.args, False)  # so that model.args.width=64 is a setting, too
    store.store(group="schema/model", name="custom", node=custom)
    for group, name in sorted(part for file in USED.values() for part in file.parts):
        if node := _option(group, name):
            store.store(group=group, name=name, node=node, package="_global_" if group == "method" else group)
    for name, path in ({path.stem: path for path in sorted(presets.glob("*.yaml"))} | dict(own or {})).items():
        try:
            preset = read_preset(path)
        except ValueError as error:
            if f"sweep={name}" in arguments:
                raise ConfigError(str(error)) from None
            continue
        store.store(group="sweep", name=name, node=preset, package="_global_")


def _option(group: str, name: str) -> Any:
    """Return what a file conf/<group>/<name>.yaml would hold for an own part; None for a part without a group."""
    if group == "model":
        return MODELS[name].settings
    if group == "data":
        return DATA[name].settings
    if group == "pruning":
        return ALLOCATIONS[name].settings
    if group == "method":
        return {"defaults": [{"/schema/method@method": name}], "method": {"name": name}}
    return {"name": name} if group == "init" else None


def read_preset(path: Path) -> dict[str, Any]:
    """Return what Hydra gets of a preset: its grids, filled with what they have in common. Raises ValueError."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is not a preset: {' '.join(str(error).split())[:150]}; {EXAMPLE}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is not a preset: it must have common:, a mapping of settings to values, or grids:, a list of such "
            f"mappings; {EXAMPLE}"
        )
    common, grids, hydra = content.pop("common", {}), content.pop("grids", [{}]), content.pop("hydra", {})
    if content or not isinstance(hydra, dict):
        raise ValueError(
            f"{path} is not a preset: it has {', '.join(map(str, content)) or hydra}, but settings and their values "
            f"stand under common: or in the list grids:, those of Hydra's parts under hydra:; {EXAMPLE}"
        )
    if not isinstance(common, dict) or not isinstance(grids, list) or not all(isinstance(each, dict) for each in grids):
        raise ValueError(
            f"{path} is not a preset: common: must map settings to values, and grids: must be a list of such mappings; "
            f"{EXAMPLE}"
        )
    # A setting that a grid ties to another one ("a,b: [...]") overrides a common one too.
    filled = [{**{key: common[key] for key in common if key not in names_in(grid)}, **grid} for grid in grids]
    for key, value in (item for grid in filled for item in grid.items()):
        if value == []:
            raise ValueError(f"{path} is not a preset: {key}: has no values; as in: seed: [0, 1]")
        if isinstance(value, dict):
            raise ValueError(
                f"{path} is not a preset: {key}: holds further settings, each of which has its whole name; type: "
                f"{key}.{next(iter(value), 'name')}: {next(iter(value.values()), '...')}"
            )
    if any("use" in names_in(grid) for grid in filled):
        raise ValueError(f"{path} is not a preset: only the command line names files to import; type: use=my_parts.py")
    if not any(filled):
        raise ValueError(f"{path} is not a preset: it names no setting; {EXAMPLE}")
    # With this mode a preset is a sweep without -m on the command line.
    return {"hydra": {**hydra, "mode": "MULTIRUN"}, "grids": filled}


def names_in(grid: dict[Any, Any]) -> set[str]:
    """Return the names of the settings in a grid of a preset, alone or tied to others ("a,b")."""
    return {name.strip() for key in grid for name in str(key).split(",")}


def to_config(composed: Any) -> Config:
    """Convert Hydra's composed DictConfig to plain dataclasses, normalised."""
    load_parts()  # a task of submitit starts here, in a process that has loaded nothing
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return normalised(config)


def normalised(config: Config) -> Config:
    """Return the config with every float setting as a float of 12 digits, so that the id is that of the values run.

    Hydra's range(0.1,1.0,0.1) yields 0.30000000000000004 for 0.3; also 1 becomes 1.0, and -0.0 becomes 0.0.
    """
    found: Config = _rounded(config)
    pruning, model, data = found.pruning, found.model, found.data
    if pruning.rates:
        pruning = replace(pruning, rates=plain_rates(pruning.rates))
    if found.train.norm_affine and (entry := model_entry(model)) is not None and entry.has_norm_choice:
        method = method_traits(config)
        if method.is_trained() and not method.only_last_layer:
            model = replace(model, norm=Norm.batch)  # which has the factors
    if data.augment:
        data = replace(data, augment=[_plain_transform(each) for each in data.augment])
    out, metrics = os.path.expanduser(config.out), sorted(set(config.metrics))
    metric = _plain(config.metric)
    return replace(found, model=model, data=data, pruning=pruning, out=out, metrics=metrics, metric=metric)


def _plain_transform(item: Any) -> Any:
    """Return an item of data.augment as it is written in one way only: {Name: {}} is Name, and arguments are sorted."""
    if isinstance(item, dict):
        named = {str(key): _plain_transform(item[key]) for key in sorted(item, key=str)}
        return next(iter(named)) if len(named) == 1 and next(iter(named.values())) in ({}, None) else named
    if isinstance(item, list):
        return [_plain_transform(each) for each in item]
    return rounded(item) if isinstance(item, float) else item


def _rounded(settings: Any) -> Any:
    """Return a dataclass in which the float fields of it and of those in it are rounded: itself where they are."""
    changed: dict[str, Any] = {}
    for name, read, is_float in _floats_and_parts(cast(Any, type(settings))):
        value = read(settings)
        found = _float(name, value) if is_float else _rounded(value)
        if found is not value and not (is_float and repr(found) == repr(value)):  # -0.0 and 1 equal 0.0 and 1.0
            changed[name] = found
    return replace(settings, **changed) if changed else settings


_PLAIN = {bool, int, float, str, type(None)}


def as_dict(config: Config) -> dict[str, Any]:
    """Return plain nested values, enums as their names, without `grids`: for config.yaml, the id and trackers."""
    return {name: _plain(read(config)) for name, read in _readers(Config) if name != "grids"}


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN:  # most are, and a sweep has thousands of runs
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    # dataclasses.asdict takes three times as long, and a sweep asks for every run more than once.
    readers = _readers(cast(Any, type(value)))
    return {name: _plain(read(value)) for name, read in readers} if readers else value


def to_yaml(settings: dict[str, Any]) -> str:
    """Return the settings of `as_dict` as the text of a config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(settings))


def parse_config(text: str, path: Path) -> Config:
    """Read the text of a run's config.yaml; settings that it does not name, since it is older, take their defaults.

    Raises ValueError, which names `path`, if it is damaged.
    """
    try:
        settings = parse_yaml(text)
        if not isinstance(settings, dict) or "method" not in settings:
            raise ValueError("it names no method")
        return from_dict({str(key): value for key, value in settings.items()})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); move it away") from None


def from_dict(settings: dict[str, Any]) -> Config:
    """Undo `as_dict`; a setting that is not named takes its default, and floats are rounded to 12 digits.

    A run on own parts can be read where their files are not imported: their names and settings are taken as they are.
    Raises ValueError for a key, a choice or the name of a part that does not exist. (OmegaConf would take 13 ms.)
    """
    config = _build(Config, _with_unknown_parts(_with_tracker_mapping(settings)))
    for problem in unknown_names(config) if config.code is None else ():
        raise ConfigError(problem)
    # Floats are rounded already, and this would take as long as the rest; only these two change other settings.
    return normalised(config) if config.train.norm_affine or config.data.augment else config


def restored(settings: dict[str, Any], use: Sequence[str]) -> Config:
    """Undo `as_dict` in another process of the same user, which imports the own parts that this one has imported."""
    import_own_parts(use)
    return from_dict(settings)


def _with_unknown_parts(settings: dict[str, Any]) -> dict[str, Any]:
    """Build the settings of own parts that are not imported, which have no dataclass here."""
    if not isinstance(settings, dict) or settings.get("code") is None:
        return settings
    load_parts()
    parts: list[tuple[str, Any, Collection[str]]] = [
        ("model", Model, MODELS),
        ("data", Data, DATA),
        ("method", MethodSettings, METHODS),
        ("pruning", Pruning, ALLOCATIONS),
    ]
    found = dict(settings)
    for key, base, known in parts:
        values = settings.get(key)
        if isinstance(values, dict) and values.get("name") not in known:
            more = [(str(name), Any, setting(id="always")) for name in values if str(name) not in _hints(base)]
            found[key] = _build(make_dataclass(f"Unknown{base.__name__}", more, bases=(base,), kw_only=True), values)
    return found


def _with_tracker_mapping(settings: dict[str, Any]) -> dict[str, Any]:
    """Convert tracker.name, which config.yaml files and manifests of version 0.1.0 have, to the mapping tracker.to."""
    tracker = settings.get("tracker") if isinstance(settings, dict) else None
    if not isinstance(tracker, dict) or "name" not in tracker:
        return settings
    rest = {key: value for key, value in tracker.items() if key != "name"}
    names = {"both": ["wandb", "tensorboard"], "none": []}.get(tracker["name"], [tracker["name"]])
    return {**settings, "tracker": {"to": dict.fromkeys(names, True), **rest}}


def _build(kind: type[T], settings: dict[str, Any]) -> T:
    if not isinstance(settings, dict):
        raise ValueError(f"{settings!r} does not hold the settings of {kind.__name__}")
    hints = _hints(cast(Any, kind))
    for key in settings:
        if key not in hints:
            raise ValueError(f"{key!r} is not a setting of {kind.__name__}")
    return kind(**{key: _value(key, hints[key], value) for key, value in settings.items()})


REMEMBERED = 4096
"""The most groups of settings that `_build_once` remembers."""
_BUILT: dict[tuple[type[Any], str], Any] = {}


def _build_once(kind: type[T], settings: dict[str, Any]) -> T:
    """Build a group, or copy the one that was built of equal settings: the runs of a sweep differ in a few groups."""
    key = kind, repr(settings)  # 1, 1.0 and True are equal, and their texts are not
    if key not in _BUILT:
        if len(_BUILT) >= REMEMBERED:
            _BUILT.clear()
        _BUILT[key] = _build(kind, settings)
    built: T = _fresh(_BUILT[key])
    return built


def _fresh(built: Any) -> Any:
    """Copy a group, or a list or dict in it, so far that nothing done to it changes the other."""
    values = {name: read(built) for name, read in _readers(cast(Any, type(built)))}
    parts = {name: _fresh(each) for name, each in values.items() if isinstance(each, list | dict) or is_dataclass(each)}
    return replace(built, **parts) if parts else copy(built)


def _value(key: str, hint: Any, value: Any) -> Any:
    if type(value) is hint and hint in (bool, int, str):  # most are, and a sweep has thousands of runs
        return value
    if isinstance(value, Model | Data | MethodSettings | Pruning):  # of an own part that is not imported
        return value
    if hint in (Model, Data, MethodSettings, Pruning):
        hint = _settings_of(hint, value.get("name") if isinstance(value, dict) else value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if not isinstance(value, str) or value not in hint.__members__:
            raise ValueError(f"{value!r} is not a value of {hint.__name__}; choose {', '.join(hint.__members__)}")
        return hint[value]
    if is_dataclass(hint):
        return _build_once(cast(Any, hint), value)
    if not _fits(hint, value):
        raise ValueError(f"{key}={str(value)[:50]}: must be {hint.__name__ if isinstance(hint, type) else hint}")
    return _float(key, value) if hint is float else value


def _float(key: str, value: Any) -> float:
    try:
        return rounded(value)
    except OverflowError:
        raise ValueError(f"{key}: is too large a number") from None


def _fits(hint: Any, value: Any) -> bool:
    """Whether a plain value is of the type; a whole number is a float too. Hydra sees to this where it composes."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(each, value) for each in inner)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(inner[0], each) for each in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(inner[0], k) and _fits(inner[1], v) for k, v in value.items())
    if hint is Any or not isinstance(hint, type):
        return True  # Any, and what a method of the user's own may use
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _settings_of(base: type[Any], name: Any) -> type[Any]:
    """Return the class of the settings of a network, data set, budget or method; some have more than the others."""
    load_parts()  # a caller that reads a config need not have loaded them
    name = str(name)
    if base is Model:
        return MODELS[name].settings if name in MODELS else Model
    if base is Data:
        return DATA[name].settings if name in DATA else Data
    if base is Pruning:
        return ALLOCATIONS[name].settings if name in ALLOCATIONS else Pruning
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name].settings


def default_of(field: "Field[Any]") -> Any:
    """Return the default of a settings field as a plain value; None where it has none."""
    return _plain(default_value(field))


@functools.cache
def _readers(kind: type[Any]) -> list[tuple[str, Callable[[Any], Any]]]:
    """Return the names of the fields of a dataclass, each with the function that reads it; none of another type."""
    return [(field.name, attrgetter(field.name)) for field in fields(kind)] if is_dataclass(kind) else []


@functools.cache
def _floats_and_parts(kind: Any) -> list[tuple[str, Callable[[Any], Any], bool]]:
    """Return the fields of a dataclass that are floats or dataclasses: the name, its reader, and whether it is one."""
    return [
        (name, read, _hints(kind)[name] is float)
        for name, read in _readers(kind)
        if _hints(kind)[name] is float or is_dataclass(_hints(kind)[name])
    ]


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
