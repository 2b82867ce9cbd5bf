"""From override lists to checked configs: every job of a sweep is composed and checked before any starts.

Hydra takes 55 ms for a job, which is a minute for a thousand. So it composes every combination of group choices once
and converts every value once; a job is put together from these. Whatever is not plain `setting=value`, and whatever
goes wrong, is left to Hydra, whose errors are thus the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from hidden_subnet.check import ConfigError, check
from hidden_subnet.config import as_dict, from_dict, to_config
from hidden_subnet.dataset import counted
from hidden_subnet.pretrained import pinned
from hidden_subnet.settings import Config
from hydra_plugins.hidden_subnet.errors import one_line
from hydra_plugins.hidden_subnet.evaluating import refuse_in_sweep


def to_checked_config(composed: DictConfig) -> Config:
    """Convert and check what Hydra composed. Raises ConfigError with one line."""
    _drop_hydra(composed)
    try:
        config = counted(to_config(composed))
    except (AttributeError, OmegaConfBaseException) as error:  # a key added with + that no dataclass has, or ~model
        raise ConfigError(one_line(error)) from None
    check(config)
    return pinned(config)


def compose_job(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> Config:
    """One job in full by Hydra."""
    config = to_checked_config(context.config_loader.load_sweep_config(master, list(overrides)))
    refuse_in_sweep(config)
    return config


class Composer:
    """Composes job after job of one sweep: for each the Config, or the exception, that `compose_job` gives."""

    def __init__(self, context: HydraContext, master: DictConfig) -> None:
        self.context, self.master = context, master
        self.parser = OverridesParser.create(config_loader=context.config_loader)
        self.groups = set(master.hydra.runtime.choices)
        self.parsed: dict[str, Override] = {}
        self.bases: dict[tuple[str, ...], _Base | None] = {}

    def compose(self, overrides: Sequence[str]) -> Config:
        config = self._assembled(overrides)
        if config is None:
            return compose_job(self.context, self.master, overrides)
        config = counted(config)
        check(config)
        config = pinned(config)
        refuse_in_sweep(config)
        return config

    def _assembled(self, overrides: Sequence[str]) -> Config | None:
        """None where Hydra must do it."""
        try:
            parsed = [self._parse(line) for line in overrides]
        except HydraException:
            return None
        if not all(map(_is_plain, parsed)):
            return None
        choices = tuple(line for line, each in zip(overrides, parsed, strict=True) if each.key_or_group in self.groups)
        if choices not in self.bases:
            self.bases[choices] = self._base(choices)
        base = self.bases[choices]
        if base is None:
            return None
        return base.with_settings([each for each in parsed if each.key_or_group not in self.groups])

    def _parse(self, line: str) -> Override:
        if line not in self.parsed:
            self.parsed[line] = self.parser.parse_override(line)
        return self.parsed[line]

    def _base(self, choices: tuple[str, ...]) -> "_Base | None":
        try:
            composed = self.context.config_loader.load_sweep_config(self.master, list(choices))
            _drop_hydra(composed)
            config = to_config(composed)
        except (HydraException, OmegaConfBaseException, AttributeError):
            return None  # it may be well together with the job's settings; if not, Hydra says why
        if "${" in str(OmegaConf.to_container(composed, resolve=False)):
            return None  # a value that follows from others
        return _Base(composed, as_dict(config), config.grids)


@dataclass
class _Base:
    """What a combination of group choices composes to."""

    composed: DictConfig
    """Converts values as Hydra would; what it holds at a setting is the value that was converted last."""
    settings: dict[str, Any]
    grids: list[Any]
    converted: dict[str, Any] = field(default_factory=dict)
    """Plain values by override line."""

    def with_settings(self, overrides: list[Override]) -> Config | None:
        settings = {key: dict(value) if isinstance(value, dict) else value for key, value in self.settings.items()}
        for override in overrides:
            line, key = override.input_line, override.key_or_group
            *parts, last = key.split(".")
            node = settings
            for part in parts:
                node = node.get(part, {})
                if not isinstance(node, dict):
                    return None
            # method.name alone would choose another dataclass, where Hydra keeps the one of the group's option.
            if last not in node or isinstance(node[last], dict) or key == "method.name":
                return None
            assert line is not None
            if line not in self.converted:
                try:
                    self.converted[line] = self._convert(key, override.value())
                except OmegaConfBaseException:
                    return None
            value = self.converted[line]
            node[last] = list(value) if isinstance(value, list) else value
        config = from_dict(settings)
        config.grids = self.grids
        return config

    def _convert(self, key: str, value: Any) -> Any:
        OmegaConf.update(self.composed, key, value, merge=True)
        converted = OmegaConf.select(self.composed, key)
        if OmegaConf.is_config(converted):
            return OmegaConf.to_object(converted)
        return converted.name if isinstance(converted, Enum) else converted


def _is_plain(override: Override) -> bool:
    line = override.input_line
    return (
        line is not None
        and override.type is OverrideType.CHANGE
        and override.package is None
        and not override.is_sweep_override()
        and not isinstance(override.value(), dict)
        and "${" not in line
        and "???" not in line
    )


def _drop_hydra(composed: DictConfig) -> None:
    with flag_override(composed, ["struct", "readonly"], False):
        composed.pop("hydra", None)
