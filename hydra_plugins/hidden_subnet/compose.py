"""From override lists to checked configs: every job of a sweep is composed and checked before any starts."""

from collections.abc import Sequence

from hydra.types import HydraContext
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from hidden_subnet.check import ConfigError, check
from hidden_subnet.config import Config, to_config
from hydra_plugins.hidden_subnet.errors import one_line


def to_checked_config(composed: DictConfig) -> Config:
    """Convert and check what Hydra composed. Raises ConfigError with one line."""
    with flag_override(composed, ["struct", "readonly"], False):
        composed.pop("hydra", None)
    try:
        config = to_config(composed)
    except (AttributeError, OmegaConfBaseException) as error:  # a key added with + that no dataclass has, or ~model
        raise ConfigError(one_line(error)) from None
    check(config)
    return config


def compose_job(context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> Config:
    return to_checked_config(context.config_loader.load_sweep_config(master, list(overrides)))
