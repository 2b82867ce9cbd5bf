"""From override lists to checked configs: every job of a sweep is composed and checked before any starts.

Hydra takes 55 ms per job, a minute for a thousand. So each combination of group choices is composed by Hydra once, each
value is converted once, and a job is assembled from both; jobs that differ in their seed only are assembled and checked
once. A job with an override that is not a plain `setting=value`,
or that cannot be converted, is composed by Hydra in full, so that the error messages are the same.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from hidden_subnet.config.checks import check
from hidden_subnet.config.convert import as_dict, from_dict, to_config
from hidden_subnet.config.own_parts import takes_former_code, with_own_code
from hidden_subnet.config.parents import names_method, search_of
from hidden_subnet.config.program import ROOT
from hidden_subnet.config.registries import DATA
from hidden_subnet.config.settings import Config, Train
from hidden_subnet.data.found_images import Seen, with_found_images, with_trusted_names
from hidden_subnet.errors import ConfigError
from hidden_subnet.models.published_weights import with_published_weights
from hidden_subnet.store.former_code import on_former_code
from hidden_subnet.store.pretrained import resolve_pretrained
from hidden_subnet.trackers import check_trackers
from hidden_subnet.training.extended import resolve_extended
from hidden_subnet.training.given_mask import resolve_mask
from hydra_plugins.hidden_subnet.errors import one_line
from hydra_plugins.hidden_subnet.evaluating import refuse_in_sweep
from hydra_plugins.hidden_subnet.hydra_settings import refuse_changed_in_job


def to_checked_config(composed: DictConfig, overrides: Sequence[str] = (), seen: Seen | None = None) -> Config:
    """Return the config that Hydra composed from these overrides, checked. Raises ConfigError and DataError.

    seen: the images that were found for other jobs of the sweep.
    """
    _drop_hydra(composed)
    try:
        config = to_config(composed)
    except (AttributeError, OmegaConfBaseException) as error:  # e.g. ~model, or a key added with +
        raise ConfigError(one_line(error, overrides)) from None
    return _checked(config, {} if seen is None else seen)


def _checked(config: Config, seen: Seen) -> Config:
    """Return the config with what is looked up on disk, after all checks. Raises ConfigError and DataError."""
    former_code = takes_former_code(config)
    config = with_found_images(with_own_code(config), seen)
    check(config)
    check_trackers(config)
    config = resolve_extended(resolve_mask(resolve_pretrained(with_published_weights(config))))
    config = with_trusted_names(config, seen)
    if names_method(config):
        config = replace(config, mask_train=_train_of_search(config))
        if (search := search_of(config)) is not None:
            check(search)
    return on_former_code(config) if former_code else config


def _train_of_search(config: Config) -> dict[str, Any]:
    """Return what of `train` is other by the defaults of the method that mask= names than by those of the run's own."""

    def defaults(method: str) -> dict[str, Any]:
        path = ROOT / "conf" / "method" / f"{method}.yaml"  # one of the user's own has none
        return dict(OmegaConf.select(OmegaConf.load(path), "train", default={})) if path.is_file() else {}

    plain = asdict(Train())
    return {name: plain[name] for name in defaults(config.method.name)} | defaults(str(config.mask))


def compose_job(
    context: HydraContext, master: DictConfig, overrides: Sequence[str], seen: Seen | None = None
) -> Config:
    """Compose one job of a sweep by Hydra alone. `master` is the sweep's config, `overrides` those of the job."""
    try:
        composed = _composed(context, master, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(one_line(error, overrides)) from None
    refuse_changed_in_job(master, composed, overrides)
    config = to_checked_config(composed, overrides, seen)
    refuse_in_sweep(config)
    return config


def _composed(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Do what Hydra's load_sweep_config does, without the checks of 1.4: refuse_changed_in_job says what to type."""
    words = [*master.hydra.overrides.hydra, *overrides]
    composed: DictConfig = context.config_loader.load_configuration(master.hydra.job.config_name, words, RunMode.RUN)
    OmegaConf.copy_cache(from_config=master, to_config=composed)
    return composed


class Composer:
    """Composes the jobs of one sweep: returns the same Config, or raises the same exception, as `compose_job`."""

    def __init__(self, context: HydraContext, master: DictConfig) -> None:
        self.context, self.master = context, master
        self.parser = OverridesParser.create(config_loader=context.config_loader)
        self.groups = set(master.hydra.runtime.choices)
        self.parsed: dict[str, Override] = {}
        self.bases: dict[tuple[str, ...], _Base | None] = {}
        self.seen: Seen = {}
        self.checked: dict[tuple[str, ...], Config] = {}
        """A config by the overrides without the seed, which may be any other."""

    def compose(self, overrides: Sequence[str]) -> Config:
        """Return the checked config of the job with these overrides. Raises as compose_job.

        Jobs that differ in their seed only share all other settings: the same objects, which must not be changed.
        """
        others, seed = _without_seed(overrides)
        if seed is not None and others in self.checked:
            return replace(self.checked[others], seed=seed)
        config = self._assembled(overrides)
        if config is None:
            return compose_job(self.context, self.master, overrides, self.seen)
        config = _checked(config, self.seen)
        refuse_in_sweep(config)
        # Own parts may look at the seed, whether an image folder is known by its names depends on the run's folder, and
        # a run that is extended has a seed of its own.
        if seed is not None and config.code is None and config.extend is None and not DATA[config.data.name].in_folders:
            self.checked[others] = config
        return config

    def _assembled(self, overrides: Sequence[str]) -> Config | None:
        """Return None if Hydra must compose the job."""
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
            composed = _composed(self.context, self.master, choices)
            refuse_changed_in_job(self.master, composed, choices)
            _drop_hydra(composed)
            config = to_config(composed)
        except (HydraException, OmegaConfBaseException, AttributeError):
            return None  # it may be valid together with the job's settings; if not, Hydra raises the error
        if "${" in str(OmegaConf.to_container(composed, resolve=False)):
            return None  # a value that is computed from others
        return _Base(composed, as_dict(config), config.grids)


NAMES_OF_PARTS = ("method.name", "model.name", "data.name", "pruning.name")
"""Settings that name a part whose dataclass may have settings of its own."""


@dataclass
class _Base:
    """The composed config of one combination of group choices."""

    composed: DictConfig
    """Converts values as Hydra would; the value of a setting in it is the one that was converted last."""
    settings: dict[str, Any]
    grids: list[Any]
    converted: dict[str, Any] = field(default_factory=dict)
    """Plain values by override, as typed."""

    def with_settings(self, overrides: list[Override]) -> Config | None:
        settings = _copied(self.settings)
        for override in overrides:
            line, key = override.input_line, override.key_or_group
            *parts, last = key.split(".")
            node = settings
            for part in parts:
                node = node.get(part, {})
                if not isinstance(node, dict):
                    return None
            # Hydra keeps the dataclass of the chosen part; with another name, as method.name, from_dict takes another.
            if last not in node or isinstance(node[last], dict) or key in NAMES_OF_PARTS:
                return None
            assert line is not None
            if line not in self.converted:
                try:
                    self.converted[line] = self._convert(key, override.value())
                except OmegaConfBaseException:
                    return None
            value = self.converted[line]
            node[last] = list(value) if isinstance(value, list) else value
        return replace(from_dict(settings), grids=self.grids)

    def _convert(self, key: str, value: Any) -> Any:
        OmegaConf.update(self.composed, key, value, merge=True)
        converted = OmegaConf.select(self.composed, key)
        if OmegaConf.is_config(converted):
            return OmegaConf.to_object(converted)
        return converted.name if isinstance(converted, Enum) else converted


def _copied(settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested dicts, several times as fast as copy.deepcopy."""
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in settings.items()}


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


_SEED = re.compile("seed=(0|[1-9][0-9]{0,17})")


def _without_seed(overrides: Sequence[str]) -> tuple[tuple[str, ...], int | None]:
    """Return the overrides without the seed, and the seed; None unless it is one, typed as a plain number."""
    seeds = [_SEED.fullmatch(line) for line in overrides if line.startswith("seed=")]
    others = tuple(line for line in overrides if not line.startswith("seed="))
    return others, int(seeds[0][1]) if len(seeds) == 1 and seeds[0] else None


def _drop_hydra(composed: DictConfig) -> None:
    with flag_override(composed, ["struct", "readonly"], False):
        composed.pop("hydra", None)
