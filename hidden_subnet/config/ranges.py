"""The values that a number may have, which stand on its field in settings.py, and a right one near a wrong one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from hidden_subnet.errors import problem


@dataclass(frozen=True)
class Range:
    """The values that a number may have: finite ones from `low` to `high`."""

    low: float = -math.inf
    high: float = math.inf
    what: str = ""
    """The number in words, with which a refusal begins: "the fraction held out"."""
    note: str = ""
    """The meaning of its least value, or another word on the rule."""
    above: bool = False
    """True: `low` itself is not allowed."""
    below: bool = False
    """True: `high` itself is not allowed."""


@dataclass(frozen=True)
class Bounded:
    """A setting that has a range."""

    range: Range
    default: Any


@cache
def ranges_in(settings: Any, prefix: str = "") -> dict[str, Bounded]:
    """Return the fields of a dataclass, and of those in it, that have a range, by the name that is typed."""
    found: dict[str, Bounded] = {}
    hints = get_type_hints(settings)
    for field in fields(settings):
        if is_dataclass(hints[field.name]):
            found |= ranges_in(hints[field.name], f"{prefix}{field.name}.")
        elif field.metadata.get("within") is not None:
            found[prefix + field.name] = Bounded(field.metadata["within"], field.default)
    return found


def out_of_range(values: dict[str, Any], ranges: Mapping[str, Bounded]) -> Iterator[str]:
    """Yield a line for each number outside its range. values: nested and plain, as those of convert.as_dict."""
    for name, bounded in ranges.items():
        group, _, key = name.rpartition(".")
        value = (values[group] if group else values)[key]
        if value is not None and not contains(bounded.range, value):
            yield _line(name, value, bounded)


def rounded(value: float) -> float:
    """Return a number with the 12 digits that those of a run have, and 0 for -0. Raises OverflowError for 10**400."""
    return float(f"{value:.12g}") + 0.0


def contains(limits: Range, value: float) -> bool:
    """Return whether the value, rounded to 12 digits as those of a run are, is finite and in the range."""
    value = rounded(value)
    above = limits.low < value if limits.above else limits.low <= value
    below = value < limits.high if limits.below else value <= limits.high
    return math.isfinite(value) and above and below


def _line(name: str, value: float, bounded: Bounded) -> str:
    limits = bounded.range
    rule = f"{limits.what} must be {_text(limits)}".strip() + (f" ({limits.note})" if limits.note else "")
    meant = [-value] if value < 0 else [value / 100] if value >= 2 and limits.high == 1 else []
    near = [*meant, limits.low if value < limits.low else limits.high, bounded.default, 1]
    right = next(each for each in near if each is not None and contains(limits, each))
    words = f"{name}={right:.12g}"
    return problem(f"{name}={value:.12g}", rule, words, lead="did you mean" if right in meant else "as in")


def _text(limits: Range) -> str:
    if math.isinf(limits.low):
        return "a finite number"
    low = f"above {limits.low:g}" if limits.above else f"{limits.low:g} or larger"
    if math.isinf(limits.high):
        return low
    if not limits.above and not limits.below:
        return f"{limits.low:g} to {limits.high:g}"
    low = low if limits.above else f"at least {limits.low:g}"
    return f"{low} and {'below' if limits.below else 'at most'} {limits.high:g}"
