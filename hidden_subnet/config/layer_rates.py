"""Prune rates of single layers (pruning.rates): read, checked, and found for each layer by its name or a pattern."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hidden_subnet.config.ranges import Range, contains, rounded
from hidden_subnet.config.registries import ALLOCATIONS, nearest
from hidden_subnet.config.settings import Config, Structure
from hidden_subnet.errors import problem

RANGE = Range(0, 1, below=True)
MOST_NAMES = 30
"""The most layers that a line lists."""


def plain_rates(given: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return rates by name with 12 digits, sorted; pruning.rates.stage1.0.conv=0.5 is a mapping in mappings to Hydra.

    What is no number, and a name that Hydra has read as one with a fraction (1.10 as 1.1), stays for `problems`.
    """
    found: dict[Any, Any] = {}
    for key, value in given.items():
        name = key if isinstance(key, float) else f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= plain_rates(value, f"{name}.")
        else:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            found[name] = rounded(value) if is_number else value
    return dict(sorted(found.items(), key=lambda each: str(each[0])))


def problems(config: Config) -> Iterator[str]:
    """Yield a line for each broken rule that needs no network."""
    pruning = config.pruning
    if not pruning.rates:
        return
    if not ALLOCATIONS[pruning.name].takes_rates:
        rule = f"pruning={pruning.name} finds the rate of each layer itself"
        yield problem(_typed(pruning.rates), rule, "pruning=layerwise")
    if pruning.structure is not Structure.weight:
        rule = f"pruning.structure={pruning.structure.name} has one rate for all layers"
        yield problem(_typed(pruning.rates), rule, "pruning.structure=weight")
    for name, rate in pruning.rates.items():
        typed = _typed({name: rate})
        if not isinstance(name, str):
            rule = "a name of digits and a point is a number within braces"
            yield problem(typed, rule, f"pruning.rates.{name}={_shown(rate)}", lead="as in")
        elif not isinstance(rate, float) or not contains(RANGE, rate):
            rule = "the fraction of the layer's weights removed must be at least 0 and below 1 (0.9 keeps one in ten)"
            yield problem(typed, rule, _typed({name: 0.9}), lead="as in")


def final_rate(config: Config) -> float:
    """Return the rate to which ramps and rounds lead: prune_rate, or where that is 0 the largest of pruning.rates."""
    return config.prune_rate or max(config.pruning.rates.values(), default=0.0)


def layer_rates(config: Config, paths: Sequence[str]) -> list[float]:
    """Return the final prune rate of each masked layer: that of its name, else of a pattern that fits, else prune_rate.

    Raises ValueError, in one line, for a name or pattern that fits no layer, and for two rates of one layer.
    """
    rates, found = config.pruning.rates, []
    if wrong := [name for name in rates if not any(_fits(path, name) for path in paths)]:
        names = ", ".join(paths[:MOST_NAMES]) + (f" and {len(paths) - MOST_NAMES} more" * (len(paths) > MOST_NAMES))
        near = nearest(wrong[0], paths) or next(iter(paths), "*")
        right = _typed({near: rates[wrong[0]]})
        rule = f"no masked layer has this name ({names})"
        raise ValueError(problem(_typed({wrong[0]: rates[wrong[0]]}), rule, right, lead="as in"))
    for path in paths:
        patterns = [path] if path in rates else [name for name in rates if _fits(path, name)]
        if len({rates[name] for name in patterns}) > 1:
            both = _typed({name: rates[name] for name in patterns})
            right = _typed({path: rates[patterns[0]]})
            raise ValueError(problem(both, f"gives {path} several rates; name the layer itself", right, lead="as in"))
        found.append(rates[patterns[0]] if patterns else config.prune_rate)
    return found


def rates_on_the_way(finals: Sequence[float], final: float) -> Callable[[float], list[float]]:
    """Return a function of the rate of all layers that gives the rate of each, where `finals` are those at `final`.

    On a ramp to `final` all have removed the same share of what they remove in the end. Beyond it (the inner coats of
    method=multicoat) all keep the same share of what they keep there.
    """

    def rates(rate: float) -> list[float]:
        if rate <= final:
            share = rate / final if rate < final else 1.0
            return [each * share for each in finals]
        share = (1 - rate) / (1 - final)
        return [1 - (1 - each) * share for each in finals]

    return rates


def _fits(path: str, name: str) -> bool:
    return path == name or fnmatchcase(path, name)


def _typed(rates: Mapping[Any, Any]) -> str:
    return f"pruning.rates={{{','.join(f'{name}:{_shown(rate)}' for name, rate in rates.items())}}}"


def _shown(rate: Any) -> str:
    return f"{rate:.12g}" if isinstance(rate, float) and math.isfinite(rate) else str(rate)
