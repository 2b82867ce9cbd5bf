"""Refuse settings that hold a key of a known service, since settings are written to files and logs and sent to W&B."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hidden_subnet.errors import ConfigError
from hidden_subnet.store.redact import KEYS

_ADVICE = (
    "looks like a secret, and settings are written to files; it belongs in the environment (W&B's key as "
    "WANDB_API_KEY), or W&B's key in ~/.netrc; type: wandb login"
)


def refuse_secrets(arguments: list[str]) -> None:
    """Raise ConfigError if one of the command line's arguments holds a key; the message does not repeat it."""
    for number, argument in enumerate(arguments, 1):
        if KEYS.search(argument):
            name = argument.partition("=")[0].lstrip("+~")
            raise ConfigError(f"{f'argument {number}' if KEYS.search(name) else name}: {_ADVICE}")


def refuse_secrets_in(composed: DictConfig) -> None:
    """Raise ConfigError if a composed setting holds a key, including those of presets and of Hydra."""
    settings = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(settings, dict)
    # Without the runtime (folders may have any name) and the overrides, which were checked before.
    hydra = {key: value for key, value in settings.get("hydra", {}).items() if key not in ("runtime", "overrides")}
    for name, value in _leaves({**settings, "hydra": hydra}, ""):
        if KEYS.search(f"{name}={value}"):
            raise ConfigError(f"{name}: {_ADVICE}")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, name)
    elif isinstance(value, str):
        yield name, value
