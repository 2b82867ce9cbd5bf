"""Choose runs by their settings, as `--where method=edge_popup,random` does."""

from collections.abc import Mapping, Sequence
from typing import Any

from hidden_subnet.config.differences import shown
from hidden_subnet.config.registries import nearest
from hidden_subnet.errors import ConfigError, problem
from hidden_subnet.report.results import column, row
from hidden_subnet.store.read import Run


def matching(runs: Sequence[Run], conditions: Sequence[str], option: str = "--where") -> list[Run]:
    """Return the runs that satisfy all conditions, each `name=value` or `name=value,value`.

    A name is a column of results.csv, or a setting as the command line has it: lr or train.lr. Raises ConfigError for a
    name that no run has, a value that no run has, and conditions that no run satisfies together.
    """
    rows = [row(run) for run in runs]
    kept = list(range(len(runs)))
    for condition in conditions:
        name, equals, text = condition.partition("=")
        known = sorted({each for values in rows for each in values})
        found = name if name in known else column(name)
        if not equals or found not in known:
            near = nearest(name, known) or "method"
            example = [option, f"{near}={shown(next(values[near] for values in rows if near in values))}"]
            raise ConfigError(
                problem(f"{option} {condition}", "is no name=value of these runs", *example, lead="as in")
            )
        wanted = text.split(",")
        values = [shown(values.get(found)) for values in rows]
        for each in wanted:
            if not any(_is(each, value) for value in values):
                there = sorted({value for value in values if value != "-"})
                rule = f"no run has the {name} {each}, they have {', '.join(there[:12])}"
                example = [option, f"{name}={there[0] if there else ''}"]
                raise ConfigError(problem(f"{option} {condition}", rule, *example, lead="as in"))
        kept = [index for index in kept if any(_is(each, values[index]) for each in wanted)]
    if not kept:
        rule = "no run is all of this"
        raise ConfigError(problem(f"{option} {' '.join(conditions)}", rule, option, conditions[0], lead="as in"))
    return [runs[index] for index in kept]


def satisfies(values: Mapping[str, Any], conditions: Sequence[str]) -> bool:
    """Return whether a row of results.csv has all these values, each `column=value`."""
    pairs = (condition.partition("=") for condition in conditions)
    return all(_is(value, shown(values.get(name))) for name, _, value in pairs)


def _is(typed: str, value: str) -> bool:
    """Whether a value is the one that was typed: 0.50 is 0.5."""
    try:
        return typed == value or float(typed) == float(value)
    except ValueError:
        return False
