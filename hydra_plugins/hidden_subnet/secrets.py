"""Settings that hold a secret are refused: settings are written to files, logs, manifests and W&B."""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hidden_subnet.check import ConfigError

# Words of a name in which a secret lies; "key" alone may be a sorting key, so it counts as a setting's name only.
_WORDS = {"apikey", "token", "secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials"}
_COMPOUND = {"key", "pwd", "pat"}
_PAIR = re.compile(r"([A-Za-z_][\w.-]*)['\"]?\s*[=:]\s*['\"]?([^\s'\",;\]})]+)")
_SHAPES = re.compile(
    r"(?<![0-9A-Za-z/])[0-9a-fA-F]{40,}(?![0-9A-Za-z/])"  # W&B's older keys; in a path it is a folder's name
    r"|wandb_v\d+_\w{20,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}"
    r"|\w://[^\s/:@]+:[^\s/@$]+@"  # a database's address with its password
)
_ADVICE = (
    "looks like a secret, and settings are written to files; give W&B's key in the environment as WANDB_API_KEY "
    "or by `wandb login` (which writes ~/.netrc), any other secret in the environment"
)


def refuse_secrets(arguments: list[str]) -> None:
    """Raise ConfigError with one line, which does not repeat the secret, if one of the arguments looks like one."""
    for number, argument in enumerate(arguments, 1):
        key, found, value = argument.partition("=")
        name = key.lstrip("+~")
        if found and not _SHAPES.search(name) and is_secret(name, value):
            raise ConfigError(f"{name}: {_ADVICE}")
        if _SHAPES.search(argument):
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


def is_secret(name: str, value: str) -> bool:
    """Whether the dotted setting `name` or its value, as typed, looks like a secret.

    Nothing (empty, null, false) is none, and a reference is none either: $NAME, $(command) or ${oc.env:NAME} stay
    as they are in every file. Hydra's env_copy puts the variable's value into the config, so it is no reference.
    """
    plain = value.strip(" '\"[]{}()")
    if name.startswith("hydra.job.env_copy") and any(_names_secret(word) for word in re.split(r"[\s,]+", plain)):
        return True
    if plain.lower() in ("", "null", "none", "true", "false"):
        return False
    if _SHAPES.search(value):
        return True
    if any(_names_secret(part) or part.lower() == "key" for part in name.split(".")) or _names_secret(name):
        return not plain.startswith(("$", "\\$"))
    return any(_names_secret(inner) and not text.startswith(("$", "\\$")) for inner, text in _PAIR.findall(value))


def _names_secret(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
    return bool(set(words) & _WORDS) or (len(words) > 1 and bool(set(words) & _COMPOUND))


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
