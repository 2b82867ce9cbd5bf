"""`use=my_parts.py` and model.target=my_nets.py:Net on the command line: the files are imported before composing."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from hidden_subnet.config.own_parts import import_own_parts, named, split_target
from hidden_subnet.errors import ConfigError


def with_own_parts(arguments: Sequence[str]) -> list[str]:
    """Import what `use=...` names, and return the arguments with absolute paths, as the list that the setting is.

    model.target=my_nets.py:Net is use=my_nets.py:Net and model.target=Net. Raises ConfigError for what cannot be
    imported, and for `use` given twice.
    """
    arguments, targets = without_files(arguments)
    typed = [each for each in arguments if each.partition("=")[0].lstrip("+") == "use"]
    if targets and not any(each.startswith(("model=", "sweep=")) for each in arguments):
        raise ConfigError(
            f"model.target={targets[0]}: is of model=custom; type: model=custom model.target={targets[0]}"
        )
    if not typed and targets:
        import_own_parts(targets)
        return [*arguments, f"use={json.dumps(targets)}"]
    if not typed:
        return arguments
    if len(typed) > 1:
        names = [name for each in typed for name in _names(each)]
        raise ConfigError(f"{' '.join(typed)}: give use once; type: 'use=[{','.join(names)}]'")
    names = named(_names(typed[0]))
    if not names and typed[0].partition("=")[2].strip() != "[]":
        raise ConfigError(f"{typed[0]}: names no file; as in: use=my_parts.py")
    names = [*dict.fromkeys([*names, *targets])]
    import_own_parts(names)
    return [f"use={json.dumps(names)}" if each == typed[0] else each for each in arguments]


def without_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments with model.target=my_nets.py:Net as model.target=Net, and what `use` then has to name."""
    found: list[str] = []
    words: list[str] = []
    for word in arguments:
        key, _, value = word.partition("=")
        names = _names(word) if key == "model.target" and ":" in value else []
        found += [each for each in names if split_target(each)[1]]
        words.append(f"{key}={','.join(split_target(each)[1] or each for each in names)}" if names else word)
    return words, named(found)


def _names(argument: str) -> list[str]:
    value = argument.partition("=")[2].strip()
    if value.endswith(".py") and Path(value).expanduser().is_file():  # with commas or brackets in its path, too
        return [value]
    value = value.removeprefix("[").removesuffix("]")
    names = re.findall(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""", value)
    return [name for each in names if (name := each.strip().strip("'\""))]
