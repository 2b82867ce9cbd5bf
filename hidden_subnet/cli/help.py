"""The text of `python launch.py --help`, from the files of conf/ and sweeps/ and from the fields of the settings.

Needs neither Hydra nor torch, so that it is printed at once. What a method's own file defines is therefore not listed.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hidden_subnet.config.presets import own_presets
from hidden_subnet.config.program import LAUNCH, PROGRAM
from hidden_subnet.config.settings import Config, default_value

WIDTH = 120
INTRO = f"""\
hidden_subnet: find the subnetwork that already classifies well inside a randomly weighted network.

  {LAUNCH}                                    one run with the default settings
  {LAUNCH} prune_rate=0.9 model=conv4 seed=3  one run, three settings changed
  {LAUNCH} -m prune_rate=0.1,0.3,0.5          a sweep: every combination, then a table and a figure
  {LAUNCH} sweep=prune_rates                  a prepared sweep, or a file of yours: sweep=my.yaml
  {LAUNCH} sweep=prune_rates plan=true        its runs, which are done, how long the rest takes; no run
  {LAUNCH} evaluate=runs/<run>                evaluate a finished run again, compare with its record
  {LAUNCH} --cfg job ...                      print the composed settings, run nothing
  {f"{PROGRAM} --help":{len(LAUNCH) + 35}} commands for sweeps and runs that exist: status, logs, ...
"""
GROUPS = {
    "model": "the random network",
    "init": "how its weights are drawn",
    "data": "the images",
    "method": "how the subnetwork is found, or what it is compared with (print its settings: --cfg job method=<name>)",
    "pruning": "how the kept weights are distributed over the layers",
    "tracker": "where metrics are sent; several: tracker=[wandb,tensorboard]",
    "sweep": "a prepared sweep; -m is not needed",
}
"""Groups of conf/ in the order of the help, and what each part is."""


def help_text(root: Path, settings: type[Any] = Config) -> str:
    """Return the whole help. `root` holds conf/ and sweeps/; `settings` is the dataclass whose fields are listed."""
    lines = [INTRO, "Parts to choose from (name=option):"]
    for group, about in GROUPS.items():
        lines.append(f"  {group}: {about}")
        lines += _option_lines(options(root, group))
    listed = list(setting_lines(settings))
    if listed:
        lines += ["", "Settings (name=default):"]
        lines += [line for name, about in listed for line in _row(f"  {name}", about, 35)]
    return "\n".join(lines)


def options(root: Path, group: str) -> dict[str, str]:
    """Return the options of a group of conf/ (or the sweeps, ours and of ./sweeps/) with descriptions, by name."""
    folder = root / "sweeps" if group == "sweep" else root / "conf" / group
    files = [*folder.glob("*.yaml"), *(own_presets(root).values() if group == "sweep" else ())]
    return {path.stem: description(path) for path in sorted(files, key=_natural_order)}


def description(path: Path) -> str:
    """Return the first comment line of a yaml file, or "" if it has none. Hydra's directives (# @...) are skipped."""
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("#") and not line[1:].lstrip().startswith("@"):
            return line[1:].strip()
    return ""


def setting_lines(kind: type[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield ("train.epochs=15", help line) for each field with a non-empty "help" in its metadata, also in inner parts.

    The fields of `kind` itself come first, then those of the dataclasses that it holds.
    """
    inner = []
    for field in fields(kind):
        default = default_value(field)
        if is_dataclass(default):
            inner.append((field.name, type(default)))
        elif field.metadata.get("help"):
            yield f"{prefix}{field.name}={_typed(default)}", field.metadata["help"]
    for name, part in inner:
        yield from setting_lines(part, f"{prefix}{name}.")


def _option_lines(found: dict[str, str]) -> list[str]:
    """Options with the same description (the sizes of a family of networks) share a line."""
    families: dict[str, list[str]] = {}
    for name, about in found.items():
        families.setdefault(about or name, []).append(name)
    lines = []
    for about, names in families.items():
        lines += _row(f"    {', '.join(names)}", about if about != names[0] else "", 26)
    return lines


def _row(left: str, right: str, column: int) -> list[str]:
    """Text in two columns, the second from `column` on; a left side that is too long has a line of its own."""
    indent = " " * column
    lines = textwrap.wrap(right, WIDTH, initial_indent=indent, subsequent_indent=indent)
    if len(left) > column - 2 or not lines:
        return [left, *lines]
    return [left + lines[0][len(left) :], *lines[1:]]


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Key that sorts resnet50 before resnet101."""
    words = re.findall(r"\d+|\D+", path.stem)
    return [(int(word), "") if word.isdigit() else (0, word) for word in words]


def _typed(value: Any) -> str:
    """The value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)
