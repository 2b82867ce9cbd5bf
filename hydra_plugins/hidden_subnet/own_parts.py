"""`use=my_parts.py` on the command line: imports the files of the user's own parts before anything is composed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from hidden_subnet.config.own_parts import import_own_parts, named
from hidden_subnet.errors import ConfigError


def with_own_parts(arguments: Sequence[str]) -> list[str]:
    """Import what `use=...` names, and return the arguments with absolute paths, as the list that the setting is.

    Raises ConfigError for what cannot be imported, and for `use` given twice.
    """
    typed = [each for each in arguments if each.partition("=")[0].lstrip("+") == "use"]
    if not typed:
        return list(arguments)
    if len(typed) > 1:
        names = [name for each in typed for name in _names(each)]
        raise ConfigError(f"{' '.join(typed)}: give use once; type: 'use=[{','.join(names)}]'")
    names = named(_names(typed[0]))
    if not names and typed[0].partition("=")[2].strip() == "[]":
        return list(arguments)
    if not names:
        raise ConfigError(f"{typed[0]}: names no file; as in: use=my_parts.py")
    import_own_parts(names)
    return [f"use={json.dumps(names)}" if each == typed[0] else each for each in arguments]


def _names(argument: str) -> list[str]:
    value = argument.partition("=")[2].strip()
    if value.endswith(".py") and Path(value).expanduser().is_file():  # with commas or brackets in its path, too
        return [value]
    value = value.removeprefix("[").removesuffix("]")
    names = re.findall(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""", value)
    return [name for each in names if (name := each.strip().strip("'\""))]
