"""What looks like a secret: no setting may hold it, and no file of a run repeats it."""

import re

# Words of a name in which a secret lies; "key" alone may be a sorting key, so it counts as a setting's name only.
_WORDS = {"apikey", "token", "secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials"}
_COMPOUND = {"key", "pwd", "pat"}
# From the beginning of a word: a start at each of its letters takes quadratic time.
_PAIR = re.compile(r"(?<![\w.])([A-Za-z_][\w.-]*)['\"]?\s*[=:]\s*['\"]?([^\s'\",;\]})]+)")
SHAPES = re.compile(
    r"(?<![0-9A-Za-z/])[0-9a-fA-F]{40,}(?![0-9A-Za-z/])"  # W&B's older keys; in a path it is a folder's name
    r"|wandb_v\d+_\w{20,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}"
    r"|\w://[^\s/:@]+:[^\s/@$]+@"  # a database's address with its password
)
_OPAQUE = re.compile(r"[\w+/=-]{20,}")
LEFT_OUT = "[a line that looks like a secret is left out]"


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
    if SHAPES.search(value):
        return True
    if any(_names_secret(part) or part.lower() == "key" for part in name.split(".")) or _names_secret(name):
        return not plain.startswith(("$", "\\$"))
    return any(_names_secret(inner) and not text.startswith(("$", "\\$")) for inner, text in _PAIR.findall(value))


def _names_secret(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
    return bool(set(words) & _WORDS) or (len(words) > 1 and bool(set(words) & _COMPOUND))


def redacted(text: str) -> str:
    """The text without its lines in which something of the shape of a secret stands, or is given to a telling name.

    A line is cut at 2,000 characters.
    """
    return "\n".join(LEFT_OUT if _tells(line[:2000]) else line[:2000] for line in text.split("\n"))


def _tells(line: str) -> bool:
    return bool(SHAPES.search(line)) or any(
        _names_secret(name) and _OPAQUE.fullmatch(value) for name, value in _PAIR.findall(line)
    )
