"""Combinations of a sweep that are one run, and why: which settings tell them apart, and change nothing."""

from collections.abc import Iterable, Sequence

from hidden_subnet.config import as_dict
from hidden_subnet.settings import Config


def doubles(groups: Iterable[Sequence[Config]]) -> list[str]:
    """A line for each method and set of settings; `groups` are the combinations that make each run.

    As in "prune_rate does not matter to method=dense: 9 combinations are 3 runs".
    """
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for configs in groups:
        if len(configs) > 1:
            from hidden_subnet.report.table import flat  # here, since it takes a while and few sweeps come so far

            flats = [flat(as_dict(config)) for config in configs]
            differ = tuple(key for key in flats[0] if len({each.get(key) for each in flats}) > 1)
            found.setdefault((configs[0].method.name, differ), []).append(len(configs))
    return [_line(method, differ, counts) for (method, differ), counts in found.items()]


def _line(method: str, differ: Sequence[str], counts: Sequence[int]) -> str:
    are = f"{sum(counts)} combinations are {len(counts)} run{'s' * (len(counts) > 1)}"
    if not differ:
        return f"method={method}: {are}; the others are the same in other words"
    return f"{', '.join(differ)} {'do' if len(differ) > 1 else 'does'} not matter to method={method}: {are}"
