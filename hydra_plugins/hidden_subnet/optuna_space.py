"""The space of a search: Hydra's choice, range and interval as Optuna's distributions."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from hidden_subnet.errors import ConfigError, problem


@dataclass(frozen=True)
class Axis:
    """A setting that is searched."""

    key: str
    distribution: Any
    """Optuna's; no name in quotes, which dataclass cannot look up where Hydra executes this module."""
    values: tuple[str, ...] = ()
    """All values, as typed; empty for an interval."""
    numbers: tuple[float, ...] = ()
    """Of a range: the values in Optuna's study, in the same order."""
    ends: tuple[str, ...] = ()
    """Both ends of an interval."""

    def typed(self, chosen: Any) -> str:
        """Return the override for a value of the study. A step of 0.1 makes 0.30000000000000004, which was 0.3."""
        if self.numbers:
            nearest = min(range(len(self.numbers)), key=lambda index: abs(self.numbers[index] - chosen))
            return f"{self.key}={self.values[nearest]}"
        return f"{self.key}={chosen}"


def search_space(parser: OverridesParser, arguments: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """Return the overrides that all trials have, and the settings that are searched. Raises ConfigError."""
    fixed: list[str] = []
    axes: list[Axis] = []
    for override in parser.parse_overrides(list(arguments)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(override.input_line or f"{key}={override.get_value_element_as_str()}")
        elif isinstance(override.value(), IntervalSweep):
            axes.append(_interval(override))
        else:
            values = tuple(dict.fromkeys(override.sweep_string_iterator()))
            if not values:
                raise ConfigError(
                    problem(str(override.input_line), "has no values", f"{key}=choice(0,1)", lead="as in")
                )
            if len(values) == 1:
                fixed.append(f"{key}={values[0]}")
            else:
                axes.append(_discrete(override, values))
    return fixed, axes


def combinations(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield every combination of values, as Optuna's study has them; the axes must have no interval."""
    for values in itertools.product(*(axis.numbers or axis.values for axis in axes)):
        yield {axis.key: value for axis, value in zip(axes, values, strict=True)}


def _interval(override: Override) -> Axis:
    from optuna.distributions import FloatDistribution, IntDistribution

    key, value = override.get_key_element(), override.value()
    low, high, log = value.start, value.end, "log" in value.tags
    if not low < high:
        rule = "an interval is from a number to a larger one"
        raise ConfigError(problem(str(override.input_line), rule, f"{key}=interval({high:g},{low:g})", lead="as in"))
    if log and low <= 0:
        rule = "an interval on a log scale begins above 0"
        raise ConfigError(
            problem(str(override.input_line), rule, f"{key}=tag(log,interval({high / 1000:g},{high:g}))", lead="as in")
        )
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return Axis(key, kind(low, high, log=log), ends=(str(low), str(high)))


def _discrete(override: Override, values: tuple[str, ...]) -> Axis:
    """A choice is between names, also of numbers; of a range Optuna knows the order and the step."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, value = override.get_key_element(), override.value()
    if not isinstance(value, RangeSweep):
        return Axis(key, CategoricalDistribution(values), values)
    values = tuple(sorted(values, key=float))
    step = abs(value.step)
    kind: Any = FloatDistribution
    if all(isinstance(each, int) for each in (value.start, value.stop, value.step)):
        kind = IntDistribution
    numbers = tuple((int if kind is IntDistribution else float)(each) for each in values)
    return Axis(key, kind(numbers[0], numbers[-1], step=step), values, numbers)
