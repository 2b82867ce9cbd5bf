"""From what Hydra composed, or a run's config.yaml, to the dataclasses of settings.py, and back.

Only this module, launch.py and hydra_plugins/ know Hydra and OmegaConf; it imports no torch, so that
`python launch.py --help` answers at once. Below `to_config` everything is ordinary Python.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hidden_subnet.settings import METHODS, Config, Method

T = TypeVar("T")


def register(presets: Path, arguments: Sequence[str] = ()) -> None:
    """Make the schema and every preset `presets/*.yaml` known to Hydra (as options of the group `sweep`).

    Raises ValueError for a file that is no preset, if one of the command line's `arguments` chooses it.
    """
    store = ConfigStore.instance()
    # Hydra copies its repository, and this store with it, at each of the hundred look-ups behind --help (4 s with our
    # presets); nobody writes to the copies, and what is loaded from the store is copied once more.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    store.store(name="schema", node=Config)
    for name, node in METHODS.items():
        store.store(group="schema/method", name=name, node=node)
    for path in sorted(presets.glob("*.yaml")):
        try:
            preset = _preset(path)
        except ValueError:
            if f"sweep={path.stem}" in arguments:
                raise
            continue
        store.store(group="sweep", name=path.stem, node=preset, package="_global_")


def _preset(path: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is no preset: {' '.join(str(error).split())[:150]}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is no preset: it must have common:, settings and their values, or a list grids: of such"
        )
    common, grids, hydra = content.pop("common", {}), content.pop("grids", [{}]), content.pop("hydra", {})
    if content or not isinstance(hydra, dict):
        raise ValueError(
            f"{path} is no preset: it has {', '.join(map(str, content)) or hydra}; settings and their values stand "
            "under common: or in the list grids:, those of Hydra's parts under hydra:"
        )
    if not isinstance(common, dict) or not isinstance(grids, list) or not all(isinstance(each, dict) for each in grids):
        raise ValueError(
            f"{path} is no preset: common: must map settings to values, as in 'seed: [0, 1]', and grids: must be a "
            "list of such mappings"
        )
    # What a grid ties to another setting takes the place of a common one as well.
    filled = [{**{key: common[key] for key in common if key not in names_in(grid)}, **grid} for grid in grids]
    for key, value in (item for grid in filled for item in grid.items()):
        if value == []:
            raise ValueError(f"{path} is no preset: {key}: has no values")
        if isinstance(value, dict):
            raise ValueError(
                f"{path} is no preset: {key}: holds settings of its own; write each with its whole name, as in "
                f"'{key}.{next(iter(value), 'name')}: ...'"
            )
    if not any(filled):
        raise ValueError(f"{path} is no preset: it names no setting; give common:, or the list grids:")
    # Its mode makes it a sweep by itself: otherwise `sweep=...` would need -m beside it.
    return {"hydra": {**hydra, "mode": "MULTIRUN"}, "grids": filled}


def names_in(grid: dict[Any, Any]) -> set[str]:
    """The settings that a grid of a preset names, alone or tied to others."""
    return {name.strip() for key in grid for name in str(key).split(",")}


def to_config(composed: Any) -> Config:
    """The one conversion from what Hydra composed to plain dataclasses."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return normalised(config)


def normalised(config: Config) -> Config:
    """The config with a float in type and at 12 digits wherever one is meant: what is hashed is what is run.

    Hydra's range(0.1,1.0,0.1) yields 0.30000000000000004, and it means 0.3; 1 means 1.0, and -0.0 means 0.
    """
    settings = as_dict(config)
    method = settings.pop("method")
    same = from_dict(settings)
    same.method, same.grids = _build(type(config.method), method), config.grids
    same.out = os.path.expanduser(same.out)
    return same


def as_dict(config: Config) -> dict[str, Any]:
    """Plain values only (enums as their names): what is written to config.yaml, hashed, and sent to trackers."""
    settings = asdict(replace(config, grids=[]))  # asdict copies, and a preset's lists may be long
    settings.pop("grids")
    plain = _plain(settings)
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value


def to_yaml(settings: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(settings))


def load_config(path: Path) -> Config:
    """Read a run's config.yaml; settings that it does not name (it may be older) take their defaults."""
    try:
        settings = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(settings, dict) or "method" not in settings:
            raise ValueError("it names no method")
        return from_dict({str(key): value for key, value in settings.items()})
    except (ValueError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); move it away") from None


def from_dict(settings: dict[str, Any]) -> Config:
    """The way back from `as_dict`; what is not named takes its default, and a float has 12 digits.

    Raises ValueError for a key or a choice that does not exist. OmegaConf would take 13 ms for it.
    """
    return _build(Config, settings)


def _build(kind: type[T], settings: dict[str, Any]) -> T:
    if not isinstance(settings, dict):
        raise ValueError(f"{settings!r} is no {kind.__name__}")
    names = {item.name for item in fields(cast(Any, kind))}
    for key in settings:
        if key not in names:
            raise ValueError(f"{key!r} is no setting of {kind.__name__}")
    hints = _hints(cast(Any, kind))
    return kind(**{key: _value(hints[key], value) for key, value in settings.items()})


def _value(hint: Any, value: Any) -> Any:
    if hint is Method:
        name = value.get("name") if isinstance(value, dict) else value
        if name not in METHODS:
            raise ValueError(f"{name!r} is no method")
        hint = METHODS[name]
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value not in hint.__members__:
            raise ValueError(f"{value!r} is no {hint.__name__}")
        return hint[value]
    if is_dataclass(hint):
        return _build(cast(Any, hint), value)
    return float(f"{value:.12g}") + 0.0 if hint is float else value


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)
