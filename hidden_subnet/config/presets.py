"""Presets of the user's own: files that sweep=... names by their path, or files in ./sweeps/."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hidden_subnet.config.program import LAUNCH, ROOT
from hidden_subnet.errors import ConfigError, problem

START = "sweep="


def own_presets(root: Path = ROOT) -> dict[str, Path]:
    """Return the presets in sweeps/ of the working directory by name; none if that is the folder of ours in `root`."""
    here = Path("sweeps")
    if os.path.realpath(here) == os.path.realpath(root / here):
        return {}
    return {path.stem: path for path in sorted(here.glob("*.yaml"))}


def with_own_preset(arguments: Sequence[str], root: Path = ROOT) -> tuple[list[str], dict[str, Path]]:
    """Return the arguments with sweep=q for sweep=/path/q.yaml, and the file of the chosen preset if it is the user's.

    A preset in sweeps/ of the working directory goes before ours of that name, which a line says. Raises ConfigError
    for a path where no file is, and if that preset is another user's: a preset may choose what Hydra executes.
    """
    words, found = list(arguments), dict[str, Path]()
    for at, word in enumerate(words):
        value = word.removeprefix(START).strip("'\"")
        if not word.startswith(START):
            continue
        path = Path(value).expanduser()
        if path.suffix in (".yaml", ".yml") and path.is_file():
            name = re.sub(r"[^\w.-]+", "-", path.stem).strip("-.") or "sweep"
            words[at], found = f"{START}{name}", {name: path}
        elif path.suffix and os.sep in value and not (root / "sweeps" / path.name).exists():
            raise ConfigError(problem(word, "there is no such file", "sweep=prune_rates", lead="as in"))
        elif (file := own_presets(root).get(value)) is not None:
            if file.stat().st_uid not in (0, os.geteuid()):
                named = [*LAUNCH.split(), *words[:at], f"{START}{file}", *words[at + 1 :]]
                raise ConfigError(problem(word, f"{file} is another user's", *named, lead="if you trust it, type"))
            if (root / "sweeps" / file.name).exists():
                print(f"{word}: {file.absolute()} is taken, not the preset of that name in {root / 'sweeps'}")
            found = {value: file}
    return words, found
