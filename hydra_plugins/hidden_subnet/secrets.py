"""Settings that hold a secret are refused: settings are written to files, logs, manifests and W&B."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hidden_subnet.check import ConfigError
from hidden_subnet.redact import SHAPES, is_secret

_ADVICE = (
    "looks like a secret, and settings are written to files; give W&B's key in the environment as WANDB_API_KEY "
    "or by `wandb login` (which writes ~/.netrc), any other secret in the environment"
)


def refuse_secrets(arguments: list[str]) -> None:
    """Raise ConfigError with one line, which does not repeat the secret, if one of the arguments looks like one."""
    for number, argument in enumerate(arguments, 1):
        key, found, value = argument.partition("=")
        name = key.lstrip("+~")
        if found and not SHAPES.search(name) and is_secret(name, value):
            raise ConfigError(f"{name}: {_ADVICE}")
        if SHAPES.search(argument):
            raise ConfigError(f"argument {number}: {_ADVICE}")


def refuse_secrets_in(composed: DictConfig) -> None:
    """The same for all that was composed, what presets set and Hydra's own settings among it."""
    settings = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(settings, dict)
    # Not where it runs (a folder may have any name), nor the command line again.
    hydra = {key: value for key, value in settings.get("hydra", {}).items() if key not in ("runtime", "overrides")}
    for name, value in _leaves({**settings, "hydra": hydra}, ""):
        if is_secret(name, value):
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
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, str(value)
