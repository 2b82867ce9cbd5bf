"""Parses JSON and YAML that somebody else may have written: whatever is in it, the result is plain or a ValueError."""

import json
import re
from functools import lru_cache
from typing import Any

import yaml  # type: ignore[import-untyped]

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml gives the same result, but takes 5 ms per file instead of 0.5
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

ENTRIES = 8192
"""Longest text of YAML that is parsed entry by entry."""
_ENTRY = re.compile(r"(?<=\n)(?=[a-z_0-9]+:)")
"""Where an entry at the top of a mapping begins."""
_SEED = re.compile(r"\nseed: (0|[1-9][0-9]{0,17})\n")
YAML_LENGTH, VALUES = 256 << 10, 300_000
"""Longest text of YAML and most values of JSON that are read: the objects that they make are 30 times as large.
A config.yaml of ours has 3 kB, a result of a network with 1,000 layers 20,000 values."""
DIGITS = 100
"""Most digits of a whole number that is read; a float, and its square, can hold as many."""


def parse_json(text: str, most: int = VALUES) -> Any:
    """Parse JSON. Raises ValueError also where it is nested too deeply, or a number has more than DIGITS digits.

    most: number of values, lists and mappings above which it is refused, about.
    """
    if len(text) > most and sum(map(text.count, ",[{")) > most:
        raise ValueError(f"it has more than {most:,} values")
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """Parse YAML. Raises ValueError also for aliases: we never write them, and a few lines can mean terabytes."""
    if len(text) > YAML_LENGTH:
        raise ValueError(f"it has more than {YAML_LENGTH >> 10} kB")
    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
            raise ValueError("it has aliases (*name)")
        found = _by_entries(text)
        return yaml.load(text, Loader) if found is None else found
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _by_entries(text: str) -> dict[str, Any] | None:
    """Parse a mapping entry by entry, as those of thousands of runs differ in a few; None if it is not that simple."""
    if len(text) > ENTRIES:
        return None
    if seed := _SEED.search(text):  # in which most of them differ
        found = _entries(f"{text[: seed.start(1)]}0{text[seed.end(1) :]}")
        if found is not None and found["seed"] == 0:  # a text may continue behind the number
            return {**_copied(found), "seed": int(seed[1])}
    whole: dict[str, Any] | None = _copied(_entries(text))
    return whole


@lru_cache(maxsize=4096)
def _entries(text: str) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for entry in _ENTRY.split(text):
        try:
            parsed = _entry(entry)
        except yaml.YAMLError:
            return None
        if not isinstance(parsed, dict) or len(parsed) != 1 or not found.keys().isdisjoint(parsed):
            return None
        found |= parsed
    return found


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) if isinstance(inner, dict | list) else inner for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


@lru_cache(maxsize=4096)
def _entry(text: str) -> Any:
    return yaml.load(text, Loader)


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)
